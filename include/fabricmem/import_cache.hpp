// SPDX-License-Identifier: Apache-2.0
// One import per allocation of a peer's, found again in nanoseconds, never stale and never unbounded. No CUDA type.
// How it works, and what it promises to threads: docs/import-cache.md.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

namespace detail {
class CacheCore;
struct CacheSlot;

struct CacheRelease {
    void operator()(CacheCore* core) const noexcept;
};
}  // namespace detail

struct ImportCacheOptions {
    /// Imports at once, 1 to 2^20: those that can be acquired, those being made, and those that were retired and are
    /// still referenced. About 1.3 KiB of bookkeeping each, taken when the cache is made.
    std::uint32_t max_entries = 4096;
    /// The sum of their mapped bytes. Address space of this process, and memory that their exporters can't have back.
    std::uint64_t max_bytes = std::uint64_t{16} << 40;
    /// How long an import is kept that nobody has a view of. milliseconds::max(): for as long as there is room.
    std::chrono::milliseconds idle_timeout{300'000};
    /// How all imports of this cache are made. `timeout` has to be above 0, and so has `tear_down_timeout`, which is
    /// how long the end of one import may take before it is given up and the next one is begun beside it.
    ImportOptions import{.access = {},
                         .host_access = HostAccess::automatic,
                         .permission = Permission::read_write,
                         .alignment_bytes = 0,
                         .timeout = std::chrono::milliseconds(30'000),
                         .tear_down_timeout = std::chrono::milliseconds(5'000)};
};

struct AcquireOptions {
    /// Whose memory it is, for evict() and for generations; nullopt: the blob's `peer`. An import belongs to the peer
    /// that it was made for. Zero: nobody's.
    std::optional<Id128> peer{};
    /// For this import from now on, in place of the cache's: holding one ties this process to the exporter's node.
    std::optional<std::chrono::milliseconds> idle_timeout{};
};

/// One moment of a cache. Its counts grow as long as it lives.
struct ImportCacheStatistics {
    std::uint64_t hits = 0;            ///< acquires that found the import
    std::uint64_t misses = 0;          ///< acquires that began one, or had no room for one
    std::uint64_t waits = 0;           ///< acquires that waited for another thread's import of the same allocation
    std::uint64_t imports = 0;         ///< that were made
    std::uint64_t failed_imports = 0;  ///< that were tried, and failed
    std::uint64_t evicted_for_room = 0;
    std::uint64_t evicted_idle = 0;
    std::uint64_t evicted_by_peer = 0;  ///< by evict()
    std::uint64_t invalidated = 0;      ///< by invalidate()
    std::uint64_t outdated = 0;         ///< by a newer generation of their peer
    std::uint64_t entries = 0;          ///< as max_entries counts them, now
    std::uint64_t entries_peak = 0;
    std::uint64_t bytes = 0;  ///< as max_bytes counts them, now
    std::uint64_t bytes_peak = 0;
    std::uint64_t retired = 0;        ///< of the entries: no longer to be acquired, but still referenced
    std::uint64_t deferred = 0;       ///< views that retire_after() keeps
    std::uint64_t ranges = 0;         ///< that translate() knows
    std::uint64_t backlog = 0;        ///< imports whose end has not come back; no longer among the entries
    std::uint64_t backlog_bytes = 0;  ///< their mapped bytes
    friend bool operator==(const ImportCacheStatistics&, const ImportCacheStatistics&) = default;
};

/// A share in a cached import: the range that was acquired. The mapping stays where it is until the last view of it is
/// gone, whatever becomes of the cache. Copyable; empty when made by default, moved from, or let go: then address() is
/// null.
///
/// Threads: as a shared_ptr. Copies share a counter with the view that they are made of: threads that make and drop
/// views all the time do better to acquire their own.
///
/// The GPU is never waited for: see retire_after(). In a forked child the end of a view does nothing.
class FABRICMEM_API ImportView {
public:
    ImportView() noexcept = default;
    ImportView(const ImportView& other) noexcept;
    ImportView(ImportView&& other) noexcept
        : slot_(std::exchange(other.slot_, nullptr)),
          address_(std::exchange(other.address_, nullptr)),
          bytes_(std::exchange(other.bytes_, 0)),
          stripe_(other.stripe_) {}
    ImportView& operator=(const ImportView& other) noexcept;
    ImportView& operator=(ImportView&& other) noexcept;
    ~ImportView() {
        if (slot_ != nullptr) let_go();
    }

    /// Where the range begins. A device address; the CPU may use it where buffer().access().host.
    [[nodiscard]] void* address() const noexcept { return address_; }
    /// Of the range. Never rounded.
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] bool is_open() const noexcept { return slot_ != nullptr; }
    /// The import itself: where it is, who got access. Its own address(), bytes() and blob() are those of the blob that
    /// it was made from, which may have meant another range. Valid while a view lives. Throws Error{closed}.
    [[nodiscard]] const ImportedFabricBuffer& buffer() const;

    /// Empty afterwards. Never waits: where it was the last view of an import that is retired, the import is taken down
    /// by a thread of the cache's.
    void let_go() noexcept;

    /// Lets go once `done` has said yes: work on the memory may still be queued, and unmapping under it would lose the
    /// CUDA context. Empty afterwards; until then the cache has the view. `done` is asked by collect(), so by each miss
    /// too, in whichever thread that is, under no lock; what it throws is logged once and taken for a no. Where the
    /// cache is gone before, the mapping stays until the process ends.
    ///
    /// Throws Error: closed where the view is empty; bad_argument for an empty `done`; unsupported in a forked child;
    /// std::bad_alloc. The view is as it was then.
    void retire_after(std::function<bool()> done);
    /// The same for a CUDA stream, a CUstream or cudaStream_t: lets go at the first collect() that finds no work at all
    /// in it (cuStreamQuery), so none of what was queued before this call, nor what was queued since. A stream that is
    /// busy each time keeps the view: with an event, or a counter of one's own, the form above tells sooner. The stream
    /// has to outlive that, and must not be capturing at a collect(), which would spoil the capture. Where the context
    /// is lost or gone, no work is left either; any other failure is logged once, and keeps the view.
    ///
    /// Throws as above; bad_argument for null, since the default stream is another one for each context.
    void retire_after_stream(void* stream);

private:
    friend class detail::CacheCore;
    ImportView(detail::CacheSlot& slot, std::uint32_t stripe, void* address, std::uint64_t bytes) noexcept
        : slot_(&slot), address_(address), bytes_(bytes), stripe_(stripe) {}
    [[nodiscard]] detail::CacheSlot& open_slot() const;

    detail::CacheSlot* slot_ = nullptr;
    void* address_ = nullptr;
    std::uint64_t bytes_ = 0;
    std::uint32_t stripe_ = 0;
};

/// What acquire_all() has for one blob: a view, or why there is none.
struct AcquireResult {
    ImportView view{};
    std::optional<Error> error{};
};

/// Imports of peers' memory, each allocation once. The key is who exported it (host, boot, process, its start) and the
/// allocation's random id: never an address, nor the handle's bytes, which may name other memory tomorrow. Movable, not
/// copyable; empty when moved from or closed: then all but close() throws Error{closed}.
///
/// Bounded: where there is no room, the least recently used import that nobody has a view of ends; where all are
/// referenced, acquire() throws Error{out_of_memory}. The bounds are never exceeded.
///
/// Threads: all members but close(), a move and the destructor may be called from many threads at once. An acquire that
/// finds its import, and translate(), take no lock, allocate nothing, make no driver call. Imports are made in threads
/// of their own, with a deadline; acquires of other allocations don't wait for them. While there is a cache up to
/// two threads of the driver's sleep until there is something to import or to end.
///
/// There is no thread that looks at the time: idle imports end by collect(), which each miss calls, and which a program
/// that holds imports without missing any should call now and then. The ends of imports are made by a thread that lives
/// while there are any, so nobody waits for the IMEX daemon; a wedged one is seen in `backlog`, and in stuck_calls().
///
/// In a forked child the cache owns nothing: its destructor does nothing, all else throws Error{unsupported}.
class FABRICMEM_API ImportCache {
public:
    /// Throws Error: bad_argument, unsupported in a forked child; std::bad_alloc.
    explicit ImportCache(std::shared_ptr<Driver> driver, const ImportCacheOptions& options = {});
    ImportCache(ImportCache&&) noexcept;
    ImportCache& operator=(ImportCache&&) noexcept;
    /// Views keep what they have, and their driver. What retire_after() keeps is asked a last time. Waits for nothing.
    ~ImportCache();

    /// The blob's range of its allocation, which is imported where it is not yet. Threads that want one that another
    /// one imports wait for that, as long as an import may take, and get the same error where it fails; the next
    /// acquire tries anew. A blob of a newer generation of its peer retires that peer's older imports.
    ///
    /// Throws Error: as ImportedFabricBuffer's constructor; out_of_memory where all that the cache may hold is
    /// referenced; bad_argument for a blob without an allocation id (a bare handle: import it without a cache);
    /// bad_blob where blobs of one allocation disagree on its size; peer_gone where a newer generation of the peer is
    /// known; closed; unsupported in a forked child.
    [[nodiscard]] ImportView acquire(const HandleBlob& blob, const AcquireOptions& options = {});
    /// A result for each blob, in their order: what is wrong with one stops no other. Imports are made one after the
    /// other, since the driver makes them no faster side by side; each has its deadline, and one that takes long holds
    /// up none of the others for more than 100 ms, up to 8 at once. A handle that can't be imported is tried once, and
    /// all its blobs have that error. Throws what is no Error of one blob alone: closed, unsupported in a forked
    /// child, std::bad_alloc.
    [[nodiscard]] std::vector<AcquireResult> acquire_all(std::span<const HandleBlob> blobs,
                                                         const AcquireOptions& options = {});

    /// Retires all imports of the peer, and its ranges: nobody gets them any more, those who have views keep them.
    /// Returns how many imports there were.
    std::size_t evict(const Id128& peer);
    /// The same for an allocation, whoever exported it, as when its exporter says that it is freed.
    std::size_t invalidate(const Id128& allocation_id);

    /// Ends imports that are idle for as long as they may be at `now`: idle time counts from the last time that a view
    /// was acquired or let go. Asks those that retire_after() keeps whether they are done. Returns how many imports
    /// were retired. A `now` that lies ahead is when what is used from then on was used, so it is idle no sooner.
    std::size_t collect(std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now());

    /// For transports that exchange raw addresses: `blob`'s range is at `remote_address` in the peer's address space.
    /// Acquires it, and keeps it acquired: it is neither evicted for room nor idle until remove_range(), evict(),
    /// invalidate() or a newer generation of the peer, which this call may be the first to bring. Ranges of this peer
    /// that it overlaps, and which are of another allocation, are forgotten: their memory is gone. Throws as acquire(),
    /// and bad_argument for a range that no address space has.
    void add_range(const Id128& peer, std::uint64_t remote_address, const HandleBlob& blob);
    /// The range that begins there. False where there is none.
    bool remove_range(const Id128& peer, std::uint64_t remote_address);
    /// `bytes` at an address of the peer's, in this process. Ranges that lie side by side in one allocation are one.
    ///
    /// Throws Error{bad_argument}: 0 bytes; an address that is in no range; more bytes than the range has; bytes of two
    /// allocations, which it names.
    [[nodiscard]] ImportView translate(const Id128& peer, std::uint64_t remote_address, std::uint64_t bytes) const;

    [[nodiscard]] ImportCacheStatistics statistics() const;
    /// Whether all ends of imports have come back; waits for them until the deadline.
    [[nodiscard]] bool wait_until_torn_down(std::chrono::steady_clock::time_point deadline);

    /// Retires all, and waits as long as the end of one import may take. Throws Error{conflict} that counts the views
    /// where some are live: the cache stays open then, and has its imports, but no ranges. Closed all the same:
    /// timed_out where imports have not ended, which go on; conflict, system and std::bad_alloc where no thread can be
    /// had to end them, which the next one does that the driver's calls with a timeout get. A second call does nothing.
    void close();
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    [[nodiscard]] std::shared_ptr<Driver> driver() const noexcept;

private:
    [[nodiscard]] detail::CacheCore& core_of_this_process() const;

    std::unique_ptr<detail::CacheCore, detail::CacheRelease> core_;
};

}  // namespace fabricmem
