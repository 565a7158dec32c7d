// SPDX-License-Identifier: Apache-2.0
// The second seam: all that the library wants to know of a machine and that libcuda does not tell. No CUDA type.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/export.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

/// A character device /dev/nvidia-caps-imex-channels/channelN.
struct ImexChannel {
    int number = 0;      ///< N, in its name
    int open_errno = 0;  ///< 0: this process can open it for reading and writing; else the errno of the try
    /// Its major number is the one in /proc/devices; true where that can't be told, false for what is no character
    /// device.
    bool major_matches = true;
    /// Of the device node; nullopt: not known, or no character device.
    std::optional<std::uint32_t> device_minor{};

    /// Which channel a process has by it: the driver goes by the device's minor number. But it imports by nodes alone
    /// whose name has their minor number (both seen on an H100, driver 580.159.04; docs/driver-notes.md).
    [[nodiscard]] int channel() const noexcept {
        return device_minor.has_value() ? static_cast<int>(*device_minor) : number;
    }
};

/// What NVML says of a device's place in the NVLink fabric (nvmlGpuFabricInfoV_t).
struct FabricInfo {
    enum class State : std::uint8_t { not_supported = 0, not_started = 1, in_progress = 2, completed = 3 };
    State state = State::not_supported;
    int status = 0;            ///< nvmlReturn_t; holds only where state is completed
    Id128 cluster_uuid{};      ///< zero: no multi-node fabric (normal on one HGX box)
    std::uint32_t clique = 0;  ///< compare together with cluster_uuid: unrelated racks share clique numbers
    std::optional<std::uint32_t> health_mask{};  ///< v2 and later of NVML's struct
};

/// NVML's health mask in words, by its fields from bit 0 on: "degraded bandwidth, route unhealthy"; "healthy" for one
/// without a fault. The mask is no bitmap of faults: 0xaa is healthy. A configuration that this version does not know
/// is "incorrect configuration (9)".
[[nodiscard]] FABRICMEM_API std::string describe_fabric_health(std::uint32_t health_mask);
/// Whether the mask names no fault. Fields that say "not supported", and bits that this version does not know, are
/// none.
[[nodiscard]] FABRICMEM_API bool is_healthy_fabric(std::uint32_t health_mask) noexcept;

/// The kernel's nvidia module, open or closed, as /proc tells it.
struct KernelModule {
    std::string version{};  ///< "580.159.04"; empty: not known
    /// From /proc/driver/nvidia/params: channels from this number on are refused; 0: there is no fabric memory.
    std::optional<std::uint32_t> imex_channel_count{};
    /// Of the channel nodes, in /proc/devices; it changes from node to node and boot to boot. The module has none where
    /// its channel count is 0.
    std::optional<unsigned int> imex_channel_major{};
};

/// A GPU as NVML lists it, whatever CUDA_VISIBLE_DEVICES says.
struct NvmlDevice {
    std::string pci_bus_id{};  ///< as cuDeviceGetPCIBusId writes it, in capitals: "0000:1B:00.0"
    std::string name{};        ///< "NVIDIA H100 80GB HBM3", in printable ASCII; empty: not known
    Id128 uuid{};              ///< as cuDeviceGetUuid tells it; zero: not known
    std::optional<FabricInfo> fabric{};
    /// Field 230, nvmlDeviceGpuRecoveryAction_t: 0 none, 1 reset the GPU, 2 reboot the node, 3 drain P2P, 4 drain and
    /// reset. From NVML 595 on 5 is: recover the IMEX domain, whose daemon died with memory exported; from 615 on 6:
    /// reset by the bus, 7: reboot the system. Older NVMLs may mean a reset by the bus by 5.
    std::optional<std::uint32_t> recovery_action{};
};

/// What NVML knows of the machine.
struct NvmlFacts {
    std::string driver_version{};       ///< "580.159.04", in printable ASCII; empty: not known
    std::vector<NvmlDevice> devices{};  ///< in NVML's order, which is no ordinal of CUDA's
};

enum class ProcessState : std::uint8_t { alive, gone, unknown };

/// One node as this process sees it. Every function answers "not known" (nullopt, unknown, an empty list) rather than
/// fail; it throws nothing but std::bad_alloc. Thread-safe. Answers that can't change while the process lives may be
/// kept; channels, processes and fabric info are looked up anew at each call.
class FABRICMEM_API Platform {
public:
    Platform() = default;
    Platform(const Platform&) = delete;
    Platform& operator=(const Platform&) = delete;
    virtual ~Platform();

    /// The machine id (/etc/machine-id): never the host name, which containers share and users change.
    [[nodiscard]] virtual std::optional<Id128> host_id() const;
    /// Random at each boot of the kernel: equal boot ids mean the same node, also across containers.
    [[nodiscard]] virtual std::optional<Id128> boot_id() const;
    [[nodiscard]] virtual std::optional<std::uint32_t> process_id() const;
    /// Inode number of /proc/self/ns/pid: a process id means something within one of these alone.
    [[nodiscard]] virtual std::optional<std::uint64_t> pid_namespace() const;
    /// Start of this process in clock ticks since boot (field 22 of /proc/self/stat): tells a reused pid apart.
    [[nodiscard]] virtual std::optional<std::uint64_t> process_start() const;
    /// Whether the process with this id, started then, lives; `unknown` for id 0. Meaningful only for this boot and pid
    /// namespace.
    [[nodiscard]] virtual ProcessState process_state(std::uint32_t process_id, std::uint64_t process_start) const;
    /// The IMEX channel nodes that this process sees, by number, ascending. Tries to open each: access(2) does not see
    /// a device cgroup.
    [[nodiscard]] virtual std::vector<ImexChannel> imex_channels() const;
    /// The fabric state of the device with this PCI bus id ("0000:1B:00.0", as cuDeviceGetPCIBusId writes it; small
    /// letters are as good); nullopt without NVML, where NVML doesn't know it, and in a child that was forked after
    /// any Platform of the process had loaded NVML. The first call loads NVML, which starts it for this process: slow
    /// beside all others.
    [[nodiscard]] virtual std::optional<FabricInfo> fabric_info(std::string_view pci_bus_id) const;
    /// nullopt where the module is not loaded, or /proc does not show it. What of it is missing, cut short or nonsense
    /// is not known.
    [[nodiscard]] virtual std::optional<KernelModule> kernel_module() const;
    /// nullopt without NVML, as for fabric_info(). Devices that NVML lists and can't tell the place of are left out;
    /// all else that one of its calls does not answer is not known. Costs some calls a device.
    [[nodiscard]] virtual std::optional<NvmlFacts> nvml() const;
    /// Why the folder of the channel nodes can't be listed, as an errno (ENOENT: it is not there); 0 where it can, or
    /// where that is not known. imex_channels() is empty then.
    [[nodiscard]] virtual int imex_channels_errno() const;
};

/// The machine that this process runs on: /proc, /dev, /etc and, where libnvidia-ml.so.1 can be loaded, NVML. `root` is
/// put before each path that is read (for another /dev and /proc; empty: the machine's own). NVML is loaded when it is
/// first asked for.
[[nodiscard]] FABRICMEM_API std::unique_ptr<Platform> make_system_platform(std::string root = {});

}  // namespace fabricmem
