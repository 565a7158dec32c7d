// SPDX-License-Identifier: Apache-2.0
// What the library learns through a driver once and keeps, so that making and importing a buffer makes no call beyond
// the necessary ones. Each Driver carries one. Failures are not kept: the next caller asks again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/platform.hpp>
#include <fabricmem/probe.hpp>
#include <fabricmem/types.hpp>

#include "driver/cache_book.hpp"
#include "driver/foreign_ids.hpp"
#include "driver/memory_book.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {

struct DeviceFacts {
    CUdevice device = 0;
    Id128 uuid;
    std::string pci_bus_id;
    bool fabric_attribute = false;    // attribute 128; proves nothing (docs/driver-notes.md), good for explanations
    bool rdma_attribute = false;      // GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
    int nearest_numa_node = 0;        // HOST_NUMA_ID; 0 where the system has no NUMA
    std::vector<int> reachable_from;  // ordinals of the devices that can access this one's memory, itself included
};

struct Topology {
    std::vector<DeviceFacts> devices;  // by ordinal

    [[nodiscard]] std::optional<int> ordinal_of(const Id128& uuid) const noexcept;
};

/// Who this process is, as blobs and error texts tell it.
struct ProcessIdentity {
    std::optional<Id128> host_id;
    std::optional<Id128> boot_id;
    std::optional<std::uint32_t> process_id;
    std::optional<std::uint64_t> pid_namespace;
    std::optional<std::uint64_t> process_start;
};

/// What is the same for all memory that is made at one place.
struct MemoryFacts {
    Location asked = Location::device(0);  // with `handle_types` the key
    CUmemAllocationHandleType handle_types{};

    std::shared_ptr<const Topology> topology;
    Location location = Location::device(0);  // where `asked` is
    CUmemAllocationProp properties{};         // all but the flags
    bool rdma_attribute = false;              // of the owning device
    std::uint64_t granularity = 0;            // minimum, bytes
    std::vector<int> devices;                 // ordinals of those that can access it
    HandleBlob blob;                          // what no buffer changes
};

/// What has been learnt of a machine so far.
struct KnownFacts {
    std::shared_ptr<const Topology> topology;
    std::shared_ptr<const ProcessIdentity> identity;
    std::optional<std::int32_t> imex_channel;
    std::map<std::string, std::optional<FabricPlace>> fabric_places;  // by PCI bus id
};

/// How long the GPU is waited for. Tests make it short.
struct Patience {
    std::chrono::milliseconds zeroing{60'000};
    std::chrono::milliseconds probing{10'000};
    std::chrono::milliseconds calling{10'000};       // a probe's calls, beyond that
    std::chrono::milliseconds no_of_a_probe{5'000};  // how long it is given again
};

/// Counted always, whether somebody asks or not. Relaxed: each is read by itself.
struct Tally {
    std::atomic<std::uint64_t> access_refused{0};
    std::atomic<std::uint64_t> host_access_refused{0};
    std::atomic<std::uint64_t> access_one_by_one{0};
    std::atomic<std::uint64_t> rdma_not_granted{0};
    std::atomic<std::uint64_t> gpu_waits{0};
    std::atomic<std::uint64_t> gpu_waits_timed_out{0};

    static void count(std::atomic<std::uint64_t>& counter) noexcept { counter.fetch_add(1, std::memory_order_relaxed); }
};

class DriverState {
public:
    static constexpr std::size_t kRetiredRangesMax = 1024;
    static constexpr std::uint64_t kRetiredBytesMax = std::uint64_t{1} << 40;

    explicit DriverState(Driver& driver);
    DriverState(const DriverState&) = delete;
    DriverState& operator=(const DriverState&) = delete;
    ~DriverState();

    [[nodiscard]] static DriverState& of(const Driver& driver) noexcept { return *driver.state_; }

    /// Throws Error{unsupported} without a device, or as the failing call says.
    [[nodiscard]] std::shared_ptr<const Topology> topology();
    /// Minimum granularity in bytes. Throws as the failing call says.
    [[nodiscard]] std::uint64_t granularity(const CUmemAllocationProp& properties);
    /// Facts for `asked`. Kept once the identity in its blob is final (a fabric that is still being probed, or no IMEX
    /// channel yet, is not). Throws Error{bad_argument} for a place that is not here, else as the failing call says.
    [[nodiscard]] std::shared_ptr<const MemoryFacts> memory_at(const Location& asked,
                                                               CUmemAllocationHandleType handle_types);
    [[nodiscard]] std::shared_ptr<const ProcessIdentity> identity();
    /// Whether the blob's exporter runs on this node, since this boot: its boot id is known, and ours.
    [[nodiscard]] bool is_this_node(const HandleBlob& blob);
    /// The channel that this process holds: by the first node that it can open. Kept once found: a process has one for
    /// life.
    [[nodiscard]] std::optional<std::int32_t> imex_channel();
    /// Kept once the fabric's probe is over (or there is none); nullopt where there is no multi-node fabric.
    [[nodiscard]] std::optional<FabricPlace> fabric_place(const DeviceFacts& device);

    // What is at hand: for the making of errors, which may not wait for a driver that fails or for NVML.
    [[nodiscard]] std::shared_ptr<const Topology> known_topology();  ///< null: not learnt yet
    [[nodiscard]] std::optional<FabricPlace> known_fabric_place(const DeviceFacts& device);
    /// Whether the fabric was still being probed when it was last asked for.
    [[nodiscard]] bool was_probing(const DeviceFacts& device);

    /// Keeps a reserved range from being used again; gives the oldest ones back beyond the caps. What is listed when
    /// the driver object ends stays reserved: nobody is left then to give it back.
    void retire(CUdeviceptr address, std::uint64_t bytes) noexcept;

    /// What is known by now, for texts about a call that hangs: asks neither the driver nor the platform.
    [[nodiscard]] KnownFacts known() const;

    /// A probe's answer for this very location that still holds: a yes, or a no that is not old.
    [[nodiscard]] std::optional<ProbeResult> kept_probe(const Location& location) const;
    void keep_probe(const ProbeResult& result);
    void forget_probe(const Location& location);

    /// The threads of this driver's calls with a deadline; made when first asked for.
    [[nodiscard]] Workers& workers();
    /// As workers(); null where there never was such a call, and in a forked child.
    [[nodiscard]] const Workers* workers_if_any() const noexcept;

    /// True in a child that was forked after the driver was made.
    [[nodiscard]] bool forked() const noexcept;

    /// How much of the addresses is kept by retire() now.
    struct Retired {
        std::size_t ranges = 0;
        std::uint64_t bytes = 0;
    };
    [[nodiscard]] Retired retired() const;

    Patience patience;  // not guarded: set before the driver is used
    MemoryBook book;    // these have locks of their own
    CacheBook caches;
    ForeignIds foreign_ids;
    Tally tally;

private:
    struct RetiredRange {
        CUdeviceptr address;
        std::uint64_t bytes;
    };
    using GranularityKey = std::tuple<int, int, unsigned>;  // location type, location id, handle types

    [[nodiscard]] Topology learn_topology();
    [[nodiscard]] MemoryFacts learn_memory(const Location& asked, CUmemAllocationHandleType handle_types);
    [[nodiscard]] bool is_final(const MemoryFacts& facts);
    [[nodiscard]] std::optional<RetiredRange> take_surplus() noexcept;

    Driver& driver_;
    std::uint64_t made_in_;
    mutable std::mutex mutex_;  // guards all below; never held across a call of the driver or the platform
    std::shared_ptr<const Topology> topology_;
    std::shared_ptr<const ProcessIdentity> identity_;
    std::vector<std::shared_ptr<const MemoryFacts>> memory_;
    std::map<GranularityKey, std::uint64_t> granularities_;
    std::optional<std::int32_t> imex_channel_;
    std::map<std::string, std::optional<FabricPlace>> fabric_places_;  // by PCI bus id
    std::set<std::string> probing_;                                    // PCI bus ids
    struct KeptProbe {
        ProbeResult result;
        std::chrono::steady_clock::time_point at;
    };
    std::vector<KeptProbe> probes_;  // one for each location that was asked for
    std::deque<RetiredRange> retired_;
    std::uint64_t retired_bytes_ = 0;
    std::unique_ptr<Workers> workers_;
};

}  // namespace fabricmem::detail
