// SPDX-License-Identifier: Apache-2.0
// Makes a Driver that needs no GPU and answers as a measured one does. A target of its own (fabricmem::emulated): the
// library never takes it by itself. No CUDA type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <fabricmem/export.hpp>

namespace fabricmem {

class Driver;

/// CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED of the emulated devices.
enum class FabricAttribute : std::uint8_t { supported, unsupported };

struct EmulatedOptions {
    int devices = 1;  ///< 0: cuInit's answer is NO_DEVICE, so making the driver throws Error{unsupported}
    std::uint64_t device_memory_bytes = std::uint64_t{80} << 30;  ///< per device and driver; beyond it: OUT_OF_MEMORY
    int numa_nodes = 1;
    std::uint64_t numa_node_memory_bytes = std::uint64_t{64} << 30;  ///< per NUMA node and driver
    /// The IMEX channel that this process can open; nullopt: none, so fabric handles are NOT_PERMITTED.
    std::optional<int> imex_channel = 0;
    FabricAttribute fabric = FabricAttribute::supported;
    /// Which node of the emulated fabric this is. Drivers with the same name share host id and boot id; the empty name
    /// is the real machine with its real ids. Nodes of all names are in one NVLink domain.
    std::string node{};
    /// What opening the channel node fails with (EACCES: it is another user's); 0: it opens. Channels from 2048 on are
    /// beyond the driver's ImexChannelCount and fail with ENXIO. A channel that does not open is as good as none.
    int imex_channel_errno = 0;
};

/// Works between processes of one user on one machine; memory is taken when it is touched, and nothing stays behind
/// when a process is killed. Device memory can't be loaded or stored by the CPU (SIGSEGV), as on an x86 machine with a
/// GPU. The driver has one thread while work is waiting on its streams, and none otherwise. In a child of fork() all
/// calls return NOT_INITIALIZED. Throws Error{bad_argument} for options out of range: 0 to 64 devices, 1 to 1024 NUMA
/// nodes, channels 0 to 65535, at most 2^47 bytes of each memory.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> make_emulated_driver(const EmulatedOptions& options = {});

/// What an emulated driver holds now. For tests: take it before, take it after, compare.
struct EmulatedCounts {
    /// Allocations alive in this driver, own and imported, by handle or by mapping; cuMemAlloc's and cuMemAllocHost's
    /// too.
    std::size_t allocations = 0;
    std::size_t handles = 0;  ///< references that cuMemRelease has yet to drop
    std::size_t ranges = 0;   ///< address reservations
    std::size_t mappings = 0;
    /// Open file descriptors behind them, one for each. The drivers of a process share it, however many hold the
    /// memory, and each counts it.
    std::size_t descriptors = 0;
    /// Allocations of which this driver has used the emulator's own mapping, with which it loads and stores words that
    /// the CPU may not touch. Shared, and counted, as the descriptors are.
    std::size_t aliases = 0;
    std::size_t streams = 0;
    std::size_t primary_contexts = 0;  ///< devices whose primary context is retained

    friend bool operator==(const EmulatedCounts&, const EmulatedCounts&) = default;
};

/// Throws Error{bad_argument} where `driver` was not made by make_emulated_driver.
[[nodiscard]] FABRICMEM_API EmulatedCounts emulated_counts(const Driver& driver);

}  // namespace fabricmem
