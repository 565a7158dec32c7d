// SPDX-License-Identifier: Apache-2.0
// What an emulated fabric is made of: nodes, devices, NVLink domains, channels. A value, with a JSON spelling
// (docs/emulator.md). No CUDA type, no driver.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/platform.hpp>

namespace fabricmem {

/// One GPU. Its place in the vector is its number on the node, by which NVML and the PCI bus know it; CUDA's ordinals
/// follow what a process sees (EmulatedProcess::visible_devices).
struct ScenarioDevice {
    std::uint64_t memory_bytes = std::uint64_t{80} << 30;  ///< per driver; beyond it: OUT_OF_MEMORY
    FabricAttribute fabric = FabricAttribute::supported;
    /// The NVLink domain: devices with the same name have the same cluster UUID. Empty: an all-zero UUID, and no way
    /// to other nodes.
    std::string cluster{};
    std::uint32_t clique = 0;
    int numa_node = 0;  ///< the nearest one
    FabricInfo::State fabric_state = FabricInfo::State::not_supported;
    int fabric_status = 0;  ///< nvmlReturn_t
    std::optional<std::uint32_t> health_mask{};
    std::optional<std::uint32_t> recovery_action{};  ///< nvmlDeviceGpuRecoveryAction_t; nullopt: NVML does not know it
    std::string name = "Emulated GPU";               ///< as CUDA and NVML tell it; printable ASCII

    friend bool operator==(const ScenarioDevice&, const ScenarioDevice&) = default;
};

/// Two devices of one node that can access each other's memory.
struct DevicePair {
    int first = 0;
    int second = 0;

    friend bool operator==(const DevicePair&, const DevicePair&) = default;
};

/// Whether CPUs load and store device memory, as on Grace.
enum class Coherence : std::uint8_t { none, cpu_and_gpu };

/// CU_DEVICE_ATTRIBUTE_HOST_NUMA_MULTINODE_IPC_SUPPORTED: whether host memory travels to other nodes.
enum class HostMemoryReach : std::uint8_t { node, fabric };

/// Whether libnvidia-ml.so.1 is there; in many containers it is not.
enum class NvmlLibrary : std::uint8_t { present, absent };

struct ScenarioNode {
    std::string name{};
    std::vector<ScenarioDevice> devices{};
    std::vector<std::uint64_t> numa_node_bytes{std::uint64_t{64} << 30};  ///< one entry a host NUMA node; per driver
    /// Nodes with the same name have their IMEX daemons in one domain. Empty: the node has no daemon.
    std::string imex_domain{};
    /// The channel nodes in /dev. A process gets the lowest that can be opened, when its driver is made.
    std::vector<ImexChannel> channels{};
    Coherence coherence = Coherence::none;
    HostMemoryReach host_memory = HostMemoryReach::node;
    /// Which devices can access each other's memory; nullopt: all.
    std::optional<std::vector<DevicePair>> p2p{};
    /// Of the kernel module, and what NVML tells. Empty: not known.
    std::string driver_version = "580.159.04";
    /// Channel nodes from this number on can't be opened; 0: fabric memory is NOT_SUPPORTED.
    std::uint32_t imex_channel_count = 2048;
    NvmlLibrary nvml = NvmlLibrary::present;

    friend FABRICMEM_API bool operator==(const ScenarioNode&, const ScenarioNode&);
};

/// What calls take: their own time, or at least what they took on an H100 (docs/emulator.md).
enum class CallLatency : std::uint8_t { none, measured };

struct FABRICMEM_API Scenario {
    std::string name{};
    std::vector<ScenarioNode> nodes{};
    CallLatency latency = CallLatency::none;
    double latency_factor = 1.0;  ///< multiplies what was measured; 0 to 1,000,000
    /// The file of the switches that all processes of the scenario share, made where it is absent. Empty: every fabric
    /// made from this value has its own.
    std::string switches{};

    /// "single-h100-no-channel", "single-h100", "hgx-h100", "gb200-nvl72", "two-racks", "mixed-box".
    [[nodiscard]] static const std::vector<std::string>& ready_made_names();
    /// Throws Error{bad_argument} for another name.
    [[nodiscard]] static Scenario ready_made(std::string_view name);

    /// Throws Error{bad_argument}, which names the field as a JSON path, for text that is no scenario: a field that is
    /// unknown, missing, of another type or out of range. `switches` is taken as it stands.
    [[nodiscard]] static Scenario from_json(std::string_view text);
    /// As from_json(); a relative `switches` is one beside the file. Throws Error{system} where it can't be read.
    [[nodiscard]] static Scenario from_file(const std::string& path);
    /// Every field, in the order of docs/emulator.md. Throws as validate() does.
    [[nodiscard]] std::string to_json() const;

    /// Throws Error{bad_argument}, which names the field as a JSON path, for values that contradict each other or are
    /// out of range: 1 to 1024 nodes with names of their own, at most 64 devices and 1 to 1024 NUMA nodes each, at most
    /// 2^47 bytes of each memory, channels 0 to 65535, a channel count of at most 65536.
    void validate() const;

    friend bool operator==(const Scenario&, const Scenario&) = default;
};

}  // namespace fabricmem
