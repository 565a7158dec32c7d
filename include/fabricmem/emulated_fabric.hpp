// SPDX-License-Identifier: Apache-2.0
// A scenario that runs: drivers of its nodes, in one process or in many, and switches for what fails between them. No
// CUDA type. Part of fabricmem::emulated.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/emulated_scenario.hpp>
#include <fabricmem/export.hpp>

namespace fabricmem {

namespace detail::emulated {
class FabricCore;
}

/// The IMEX daemon of a node.
enum class ImexDaemon : std::uint8_t {
    ready,
    down,    ///< exports are single-node for ever, imports from other nodes are NOT_READY
    killed,  ///< as down; who had imports from or to the node is cut off, and the node makes no fabric memory
};

enum class NodeLife : std::uint8_t { up, lost };

/// Calls that wait for the IMEX daemon.
enum class RemoteCalls : std::uint8_t { answer, hang };

/// The channel nodes in /dev of a node. Which one a process has is settled when its driver is made.
enum class ChannelNodes : std::uint8_t { present, absent };

/// A scenario and the state of its switches. Every process of the scenario sees a switch at once: with its next call,
/// or in the call that waits. Node names are the scenario's; an unknown one throws Error{bad_argument}. Thread-safe.
/// What each switch does to whom, and which of its answers were invented: docs/emulator.md.
class FABRICMEM_API EmulatedFabric {
public:
    explicit EmulatedFabric(std::unique_ptr<detail::emulated::FabricCore> core) noexcept;
    EmulatedFabric(const EmulatedFabric&) = delete;
    EmulatedFabric& operator=(const EmulatedFabric&) = delete;
    ~EmulatedFabric();

    [[nodiscard]] const Scenario& scenario() const noexcept;

    void set_imex_daemon(std::string_view node, ImexDaemon daemon);
    /// A lost node's drivers fail, and so do those elsewhere that have imports from it. It comes back as after a boot.
    void set_node(std::string_view node, NodeLife life);
    /// Imports that the node's processes make of other nodes' memory: they return when this is taken back.
    void set_imports(std::string_view node, RemoteCalls calls);
    /// The unmap or release that ends an import of another node's memory, in the node's processes.
    void set_releases(std::string_view node, RemoteCalls calls);
    void set_channels(std::string_view node, ChannelNodes channels);
    /// Of all devices of the node; nullopt: as the scenario says. So for all below.
    void set_fabric_state(std::string_view node, std::optional<FabricInfo::State> state);
    void set_health_mask(std::string_view node, std::optional<std::uint32_t> mask);
    void set_clique(std::string_view node, std::optional<std::uint32_t> clique);
    /// nvmlDeviceGpuRecoveryAction_t.
    void set_recovery_action(std::string_view node, std::optional<std::uint32_t> action);
    /// Calls take `factor` times what they took on an H100; 0: their own time. Throws Error{bad_argument} outside 0 to
    /// 1,000,000.
    void set_latency(std::string_view node, std::optional<double> factor);

    /// All of them by name and text, as tools/fabricmem-emulator does: "imex_daemon", "node", "imports", "releases",
    /// "channels", "fabric_state", "health_mask", "clique", "latency", "recovery_action". Throws Error{bad_argument},
    /// which says what can be given.
    static const std::vector<std::string>& switch_names();
    void set(std::string_view node, std::string_view name, std::string_view value);
    [[nodiscard]] std::string get(std::string_view node, std::string_view name) const;

    /// What a child process needs in its environment to join as `node` (empty: the first) by
    /// make_emulated_driver_from_environment(). For as long as this process and this object live. Throws Error{system}.
    [[nodiscard]] std::map<std::string, std::string> environment(std::string_view node = {}) const;

    /// The fabric is over: calls that hang return, as failed. Not undone.
    void end() noexcept;

    [[nodiscard]] detail::emulated::FabricCore& core() const noexcept { return *core_; }

private:
    std::unique_ptr<detail::emulated::FabricCore> core_;
};

/// Runs a scenario. Its switches are shared with the processes that join through environment(), or, where the scenario
/// names a file for them, with all that use the file. Throws as Scenario::validate() does, Error{system} where the
/// switches can't be made, and Error{bad_argument} for a file that is none of this scenario's.
[[nodiscard]] FABRICMEM_API std::shared_ptr<EmulatedFabric> make_emulated_fabric(const Scenario& scenario);

/// As FABRICMEM_EMULATOR says: a ready-made scenario's name, or the path of one's JSON. Switches that the scenario
/// gives no file are this process's own. Null where the variable is not set. Throws as Scenario::from_file() and
/// make_emulated_fabric() do.
[[nodiscard]] FABRICMEM_API std::shared_ptr<EmulatedFabric> make_emulated_fabric_from_environment();

/// How a process joins a fabric.
struct EmulatedProcess {
    std::string node{};  ///< empty: the scenario's first
    /// The node's devices that the process sees, in its order: CUDA_VISIBLE_DEVICES. nullopt: all.
    std::optional<std::vector<int>> visible_devices{};
    /// The IMEX channel, where it is not to be the lowest that can be opened.
    std::optional<int> imex_channel{};
};

/// A driver of one node, which keeps the fabric alive. Throws Error{bad_argument} for an unknown node, device or
/// channel, Error{unsupported} without a visible device, and Error{system} where the node is lost or its devices have
/// not joined the NVLink fabric (SYSTEM_NOT_READY).
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> make_emulated_driver(std::shared_ptr<EmulatedFabric> fabric,
                                                                         const EmulatedProcess& process = {});

/// As FABRICMEM_EMULATOR says, on the node FABRICMEM_EMULATOR_NODE (default: the first), which sees the devices
/// FABRICMEM_EMULATOR_DEVICES ("1,0"; default: all, empty: none). Without FABRICMEM_EMULATOR as
/// make_emulated_driver(otherwise). Throws as those do.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> make_emulated_driver_from_environment(
    const EmulatedOptions& otherwise = {});

/// "scenario gb200-nvl72, node node3"; empty for a driver of make_emulated_driver(EmulatedOptions) and for one that is
/// not emulated.
[[nodiscard]] FABRICMEM_API std::string emulated_place(const Driver& driver);

}  // namespace fabricmem
