// SPDX-License-Identifier: Apache-2.0
// A scenario, its switches and the ids that follow from both: what all drivers of a fabric agree on.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <fabricmem/emulated_fabric.hpp>

#include "emulated/node.hpp"
#include "emulated/process.hpp"
#include "emulated/switches.hpp"

namespace fabricmem::detail::emulated {

/// Where a device is in the NVLink fabric.
struct Domain {
    std::string_view cluster;  ///< empty: nowhere
    std::uint32_t clique = 0;
    std::string_view imex;
};

class FabricCore {
public:
    /// Of one node that is in no scenario, as EmulatedOptions describes it: its ids are the machine's and its name's,
    /// and it knows the nodes of all other such fabrics.
    [[nodiscard]] static std::unique_ptr<FabricCore> of_one_node(const EmulatedOptions& options);
    enum class Sharing : std::uint8_t { none, by_descriptor };
    [[nodiscard]] static std::unique_ptr<FabricCore> of_scenario(Scenario scenario, Sharing sharing);

    [[nodiscard]] const Scenario& scenario() const noexcept { return scenario_; }
    [[nodiscard]] bool is_scenario() const noexcept { return kind_ == Kind::scenario; }
    [[nodiscard]] const ScenarioNode& node(std::size_t index) const noexcept { return scenario_.nodes[index]; }
    /// Empty: the first. Throws Error{bad_argument}.
    [[nodiscard]] std::size_t node_named(std::string_view name) const;

    [[nodiscard]] Switches& switches() noexcept { return switches_; }
    [[nodiscard]] const Switches& switches() const noexcept { return switches_; }

    /// As of its present boot.
    [[nodiscard]] NodeIdentity identify(std::size_t node) const;
    /// The node of a number that identify() gave; nullopt for another fabric's.
    [[nodiscard]] std::optional<std::size_t> node_of(std::uint32_t number) const noexcept;

    /// With what the switches have made of the scenario's answers.
    [[nodiscard]] FabricInfo fabric_info(std::size_t node, std::size_t device) const;
    [[nodiscard]] std::optional<std::uint32_t> recovery_action(std::size_t node, std::size_t device) const noexcept;
    [[nodiscard]] Domain domain(std::size_t node, std::size_t device) const noexcept;
    [[nodiscard]] ImexDaemon daemon(std::size_t node) const noexcept;
    [[nodiscard]] bool lost(std::size_t node) const noexcept;
    [[nodiscard]] bool hangs(std::size_t node, Switch which) const noexcept;
    [[nodiscard]] std::vector<ImexChannel> channels(std::size_t node) const;
    /// 0: calls take their own time.
    [[nodiscard]] double latency_factor(std::size_t node) const noexcept;

    /// "/proc/PID/fd/N" of the scenario's JSON, whose switches are these. Made at the first call. Throws Error{system}.
    [[nodiscard]] std::string path() const;

private:
    enum class Kind : std::uint8_t { one_node, scenario };
    FabricCore(Kind kind, Scenario scenario, Switches switches, std::uint64_t id);

    const Kind kind_;
    const Scenario scenario_;
    Switches switches_;
    const std::uint64_t id_;  // of a scenario's: the same in all its processes
    mutable std::mutex json_mutex_;
    mutable FileDescriptor json_;
};

}  // namespace fabricmem::detail::emulated
