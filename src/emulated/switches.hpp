// SPDX-License-Identifier: Apache-2.0
// The words by which the failures of a fabric are switched while it runs, shared by all processes of a scenario. Knows
// nodes by number, and no driver.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "emulated/process.hpp"

namespace fabricmem::detail::emulated {

/// Their order is the file's. 0 is what a node starts with.
enum class Switch : std::uint8_t {
    imex_daemon,      ///< ImexDaemon
    node,             ///< NodeLife
    imports,          ///< RemoteCalls
    releases,         ///< RemoteCalls
    channels,         ///< ChannelNodes
    fabric_state,     ///< FabricInfo::State + 1; 0: as the scenario says, as for all below
    health_mask,      ///< the mask + 1
    clique,           ///< the number + 1
    latency,          ///< thousandths of the factor + 1
    recovery_action,  ///< the number + 1
};
inline constexpr std::size_t kSwitchCount = 10;

/// What has happened to a node: an event between two looks is seen in the numbers.
struct Incarnation {
    std::uint32_t daemon_kills = 0;
    std::uint32_t losses = 0;

    friend bool operator==(const Incarnation&, const Incarnation&) = default;
};

class Switches {
public:
    /// Of this process alone, in its heap: nothing is opened or mapped.
    Switches(std::size_t nodes, std::uint64_t scenario);
    Switches(Switches&& other) noexcept;
    Switches& operator=(Switches&&) = delete;
    ~Switches();

    /// In a memfd, for processes that open /proc/PID/fd/N. Throws Error{system}.
    [[nodiscard]] static Switches shared(std::size_t nodes, std::uint64_t scenario);
    /// The file's, made where there is none. Throws Error{system}, and Error{bad_argument} for a file that is no
    /// switches, of another version or of another scenario.
    [[nodiscard]] static Switches in_file(const std::string& path, std::size_t nodes, std::uint64_t scenario);

    [[nodiscard]] std::uint64_t value(std::size_t node, Switch which) const noexcept;
    [[nodiscard]] Incarnation incarnation(std::size_t node) const noexcept;
    /// Differs from every earlier answer once something has been switched. One load: it is asked in every call.
    [[nodiscard]] std::uint32_t changes() const noexcept;
    /// Tells the fabrics of one scenario apart; 0 for a process's own.
    [[nodiscard]] std::uint64_t instance() const noexcept;

    /// Returns once every process sees it, and wakes those that wait.
    void set(std::size_t node, Switch which, std::uint64_t value) noexcept;

    /// The fabric is over: whoever waits stops waiting.
    void end() noexcept;
    [[nodiscard]] bool ended() const noexcept;
    /// Waits until `over` is true: asked anew after each change. False where the fabric ended first, which it has too
    /// once the process that made a memfd's switches is gone.
    [[nodiscard]] bool wait(const std::function<bool()>& over) const noexcept;

    /// The memfd's descriptor; -1 without one.
    [[nodiscard]] int descriptor() const noexcept { return file_.get(); }

private:
    struct Header;
    struct Node;
    enum class Home : std::uint8_t { heap, mapping };

    Switches(Home home, void* memory, std::size_t bytes, FileDescriptor file) noexcept;
    [[nodiscard]] static std::size_t bytes_of(std::size_t nodes) noexcept;
    static Switches map(FileDescriptor file, std::size_t nodes);
    static void make_file(const std::string& path, std::size_t nodes, std::uint64_t scenario);
    void fill(std::size_t nodes, std::uint64_t scenario, std::uint64_t instance) noexcept;
    void check(const std::string& path, std::size_t nodes, std::uint64_t scenario) const;
    [[nodiscard]] Header& header() const noexcept;
    [[nodiscard]] Node& node_at(std::size_t node) const noexcept;
    [[nodiscard]] bool owner_lives() const noexcept;
    void announce() noexcept;

    Home home_ = Home::heap;
    void* memory_ = nullptr;
    std::size_t bytes_ = 0;
    FileDescriptor file_;
};

}  // namespace fabricmem::detail::emulated
