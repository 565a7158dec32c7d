// SPDX-License-Identifier: Apache-2.0
// What a driver object has done so far, in numbers: what is counted always, and each call's time where that was asked
// for. No CUDA type. docs/counters.md has the fields.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/export.hpp>

namespace fabricmem {

class Driver;

/// One of the driver's calls.
struct CallCounters {
    static constexpr std::size_t kBuckets = 40;

    std::string_view call{};  ///< the seam's name, "mem_create"
    std::uint64_t calls = 0;
    std::uint64_t failures = 0;  ///< of them, those that did not return CUDA_SUCCESS
    std::uint64_t total_ns = 0;
    std::uint64_t max_ns = 0;
    /// Calls by time: bucket i has those of 2^i to 2^(i+1)-1 ns, the first those of 0 and 1 ns, the last all longer
    /// ones (from 2^39 ns, nine minutes).
    std::array<std::uint64_t, kBuckets> histogram{};
};

struct MemoryCounters {
    std::uint64_t made = 0;        ///< since the driver was made
    std::uint64_t live = 0;        ///< now
    std::uint64_t live_bytes = 0;  ///< mapped
    std::uint64_t peak_bytes = 0;  ///< the most that live_bytes was
};

/// Of all import caches of the driver's, those that are gone too.
struct CacheCounters {
    std::uint64_t caches = 0;  ///< now; a cache that is gone while views of it live is still one
    std::uint64_t hits = 0;    ///< these as in ImportCacheStatistics, since the driver was made
    std::uint64_t misses = 0;  ///< the same, up to `outdated`
    std::uint64_t waits = 0;
    std::uint64_t imports = 0;
    std::uint64_t failed_imports = 0;
    std::uint64_t evicted_for_room = 0;
    std::uint64_t evicted_idle = 0;
    std::uint64_t evicted_by_peer = 0;
    std::uint64_t invalidated = 0;
    std::uint64_t outdated = 0;
    std::uint64_t entries = 0;  ///< now, as what follows
    std::uint64_t bytes = 0;
    std::uint64_t retired = 0;
    std::uint64_t deferred = 0;
    std::uint64_t ranges = 0;
    std::uint64_t backlog = 0;  ///< imports whose end has not come back, of caches that are gone too
    std::uint64_t backlog_bytes = 0;
};

/// Where the library did with less than it asked for. Each is a buffer or import, counted once.
struct FallbackCounters {
    std::uint64_t access_refused = 0;       ///< some devices got no access
    std::uint64_t host_access_refused = 0;  ///< HostAccess::automatic, and the CPU got none
    std::uint64_t access_one_by_one = 0;    ///< all got access, but not by one call
    std::uint64_t rdma_not_granted = 0;     ///< Rdma::automatic was asked for, and the driver did not grant it
};

struct WaitCounters {
    std::uint64_t gpu = 0;  ///< waits for work of the library's own: zeroing, probes, flags by copies
    std::uint64_t gpu_timed_out = 0;
    std::uint64_t calls_with_deadline = 0;  ///< threads begun for them, as for ImportOptions::timeout
    std::uint64_t calls_given_up = 0;       ///< of them, those that were not done in time
};

struct FABRICMEM_API Counters {
    std::string driver{};               ///< Driver::name()
    bool has_calls = false;             ///< whether the driver counts its calls (make_counting_driver)
    std::vector<CallCounters> calls{};  ///< those that were made at least once, in the order of driver.hpp
    MemoryCounters buffers{};           ///< FabricBuffers
    MemoryCounters imports{};           ///< ImportedFabricBuffers
    CacheCounters caches{};             ///< ImportCaches, whose imports are among the `imports`
    FallbackCounters fallbacks{};
    WaitCounters waits{};
    std::uint64_t given_up = 0;           ///< as in MemoryReport
    std::uint64_t failed_tear_downs = 0;  ///< the same
    std::uint64_t retired_ranges = 0;     ///< the same
    std::uint64_t stuck_calls = 0;        ///< as stuck_calls()

    /// One object, with "schema" 1; in docs/counters.md.
    [[nodiscard]] std::string to_json() const;
};

/// Makes no driver call. Any thread; what changes meanwhile is counted or not, and the numbers are not of one moment.
/// In a forked child: zeros. Calls are those of the counting driver that `driver` is or, in wrappers of
/// ForwardingDriver, has inside; all else is of this very object, so ask the one that the buffers were made with.
[[nodiscard]] FABRICMEM_API Counters counters(const Driver& driver);

/// A driver that forwards to `inner`, takes the time around each call (two looks at the monotonic clock, tens of
/// nanoseconds) and counts it. Without one nothing is timed. A call that hangs is counted when it returns. Throws
/// Error{bad_argument} where `inner` is null.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> make_counting_driver(std::shared_ptr<Driver> inner);

}  // namespace fabricmem
