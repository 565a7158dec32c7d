// SPDX-License-Identifier: Apache-2.0
// What a cache and its views share, for as long as there is one of them: imports by key, who may have which of them,
// and what is to end. Under its mutex there is no call of the driver's, no log line and no call of a user's.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/import_cache.hpp>

#include "cache/cache_slot.hpp"
#include "cache/cache_table.hpp"
#include "cache/range_map.hpp"
#include "cache/reaper.hpp"
#include "driver/cache_book.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {

/// On the heap, and deletes itself: with the cache, or with the last view where that comes later. Any thread.
class CacheCore final : public CountedCache {
public:
    using Clock = std::chrono::steady_clock;

    static constexpr std::uint32_t kEntriesMax = std::uint32_t{1} << 20;

    // An import that is being made.
    struct Pending {
        CacheSlot* slot = nullptr;
        bool done = false;              // what follows is said
        std::optional<Retire> retired;  // meanwhile: nobody else gets it
        std::optional<Error> error;
    };
    // What an acquire is counted as once, however often it looks.
    struct Counted {
        bool missed = false;
        bool waited = false;
    };
    struct Begun {
        ImportView view{};                   // found; else:
        std::shared_ptr<Pending> pending{};  // to be finished by who began it, or another thread's
        bool own = false;
    };

    /// Throws as ImportCache's constructor.
    CacheCore(std::shared_ptr<Driver> driver, const ImportCacheOptions& options);

    // As ImportCache's. Not in a forked child, where a thread of the parent's may hold a lock for ever.
    [[nodiscard]] ImportView acquire(const HandleBlob& blob, const AcquireOptions& options);
    /// Without an import, a lock or a wait: empty where the import is not found so.
    [[nodiscard]] ImportView find(const HandleBlob& blob, const AcquireOptions& options) noexcept;
    /// What can be told from these alone. Throws as acquire().
    static void check(const HandleBlob& blob, const AcquireOptions& options);
    // The steps of an acquire that does not find its import, after a collect(); they wait for nothing, but for
    // wait_for().
    /// Throws as acquire(), but for what the driver says. An own import has to be finished.
    [[nodiscard]] Begun begin_acquire(const HandleBlob& blob, const AcquireOptions& options, Counted& counted);
    /// `made` null: `failure` is why, and is thrown. Those who wait get it too, where it is an Error.
    [[nodiscard]] ImportView finish_import(Pending& pending, std::unique_ptr<CachedImport> made,
                                           const std::exception_ptr& failure, const HandleBlob& blob);
    /// Throws what that import threw, and Error{timed_out}.
    void wait_for(const Pending& other, const HandleBlob& blob, Clock::time_point deadline);
    std::size_t retire_peer(const Id128& peer);
    std::size_t retire_allocation(const Id128& allocation_id);
    std::size_t collect(Clock::time_point now);
    void add_range(const Id128& peer, std::uint64_t remote_address, const HandleBlob& blob);
    bool remove_range(const Id128& peer, std::uint64_t remote_address);
    [[nodiscard]] ImportView translate(const Id128& peer, std::uint64_t remote_address, std::uint64_t bytes) const;
    [[nodiscard]] ImportCacheStatistics statistics() const;
    [[nodiscard]] CacheCounters counted() const noexcept override;
    [[nodiscard]] bool wait_until_torn_down(Clock::time_point deadline) { return reaper_->wait_until_idle(deadline); }
    [[nodiscard]] Reaper::Backlog backlog() const noexcept { return reaper_->backlog(); }
    [[nodiscard]] std::exception_ptr stalled() { return reaper_->stalled(); }

    /// Forgets ranges; then throws Error{conflict} where views are live, and else retires all.
    void close();
    /// The end of the cache: of the core too where there is no view. In a forked child nothing.
    void end_cache() noexcept;

    // For views, whose reference keeps the core:
    /// The last reference of a retired import is gone. In a forked child nothing.
    void finish(CacheSlot& slot) noexcept;
    /// Takes the view over; it stays where this throws.
    void defer(ImportView& view, std::function<bool()> done);

    [[nodiscard]] bool forked() const noexcept;
    [[nodiscard]] std::uint64_t tick() const noexcept { return tick_.load(std::memory_order_relaxed); }
    [[nodiscard]] const std::shared_ptr<Driver>& driver() const noexcept { return driver_; }
    [[nodiscard]] std::chrono::milliseconds tear_down_timeout() const noexcept { return tear_down_timeout_; }
    [[nodiscard]] const ImportOptions& import_options() const noexcept { return import_options_; }

private:
    struct Peer {
        std::uint64_t generation = 0;
        std::size_t imports = 0;
    };
    struct Deferred {
        ImportView view;
        std::function<bool()> done;
        bool told = false;
    };
    using DeferredList = std::list<Deferred>;  // so that moving one can't fail
    // What is to end, once no lock is held any more: declared before one.
    class Doomed {
    public:
        explicit Doomed(std::shared_ptr<Reaper> reaper) noexcept : reaper_(std::move(reaper)) {}
        Doomed(const Doomed&) = delete;
        Doomed& operator=(const Doomed&) = delete;
        ~Doomed() { reaper_->add(imports); }
        ImportList imports;

    private:
        std::shared_ptr<Reaper> reaper_;
    };
    using Lock = std::unique_lock<std::mutex>;

    ~CacheCore() override;

    [[nodiscard]] ImportView view_of(CacheSlot& slot, std::uint32_t stripe, const HandleBlob& blob) const noexcept;
    /// Notes the blob's generation of the peer, as a miss does.
    void meet(const Id128& peer, const HandleBlob& blob);
    [[nodiscard]] bool is_outdated(const Id128& peer, std::uint64_t generation) const;
    void use(CacheSlot& slot, const AcquireOptions& options) const noexcept;
    [[nodiscard]] ImportView acquire_slowly(const HandleBlob& blob, const AcquireOptions& options);
    [[nodiscard]] ImportView import(const HandleBlob& blob, Pending& pending);
    // Under the lock:
    [[nodiscard]] std::optional<ImportView> look_up(const CacheKey& key, const HandleBlob& blob,
                                                    const AcquireOptions& options);
    [[nodiscard]] std::shared_ptr<Pending> begin_import(const CacheKey& key, const HandleBlob& blob,
                                                        const AcquireOptions& options, Doomed& doomed);
    /// Than the one that was known, which it is from now on; its older imports are retired then, and the caller drops
    /// its older ranges, under no lock. Throws Error{peer_gone} where a newer one is known.
    [[nodiscard]] bool is_newer_generation(const Id128& peer, std::uint64_t generation, Doomed& doomed);
    void retire_older(const Id128& peer, std::uint64_t generation, Doomed& doomed) noexcept;
    void publish(CacheSlot& slot, std::unique_ptr<CachedImport> import, std::uint32_t stripe) noexcept;
    void make_room_for(const HandleBlob& blob, Doomed& doomed);
    [[nodiscard]] bool is_room_for(std::uint64_t bytes) const noexcept;
    std::size_t collect_idle(Clock::time_point now, Doomed& doomed) noexcept;
    void retire(CacheSlot& slot, Retire why, Doomed& doomed) noexcept;
    [[nodiscard]] bool retire_if_unused(CacheSlot& slot, Retire why, Doomed& doomed) noexcept;
    void count(Retire why) noexcept;
    void take_out(CacheSlot& slot, ImportList& imports) noexcept;
    void give_slot_back(CacheSlot& slot) noexcept;
    [[nodiscard]] std::size_t live_references() const noexcept;

    template <typename IsIt>
    std::size_t retire_all_under_lock(Retire why, Doomed& doomed, IsIt is_it) noexcept;
    [[nodiscard]] static bool is_done(Deferred& deferred) noexcept;
    void ask_deferred();
    void keep_for_ever(DeferredList& abandoned) noexcept;
    void drop_dead_ranges();
    void drop_older_ranges(const Id128& peer, std::uint64_t generation);
    [[nodiscard]] bool is_live(const CacheSlot& slot) const;
    [[nodiscard]] ImportView translate_slowly(const Id128& peer, std::uint64_t remote_address,
                                              std::uint64_t bytes) const;
    [[nodiscard]] std::uint64_t ms_of(Clock::time_point time) const noexcept;
    void drop_owner() noexcept;
    void leave() noexcept;

    // Nobody changes these.
    std::shared_ptr<Driver> driver_;
    ImportOptions import_options_;
    std::chrono::milliseconds tear_down_timeout_;
    std::chrono::milliseconds idle_timeout_;
    std::uint32_t max_entries_;
    std::uint64_t max_bytes_;
    std::uint64_t made_in_;
    Clock::time_point made_at_ = Clock::now();
    std::shared_ptr<Reaper> reaper_;
    std::optional<KeepThreads> threads_;  // while there is a cache

    // Read by each hit, written by each miss.
    alignas(64) std::atomic<std::uint64_t> tick_{1};

    alignas(64) mutable std::mutex mutex_;  // guards all below, but for what finds in table_, and ranges_
    std::condition_variable changed_;       // an import is done
    std::map<CacheKey, std::shared_ptr<Pending>> pending_;
    std::map<Id128, Peer, IdLess> peers_;
    DeferredList deferred_;
    std::uint64_t deferred_count_ = 0;                                          // those that are being asked, too
    std::vector<std::tuple<std::uint64_t, std::uint64_t, CacheSlot*>> by_use_;  // last used, serial
    ImportCacheStatistics counts_;
    std::uint64_t serial_ = 0;
    bool orphaned_ = false;  // the cache is gone

    CacheTable table_;
    RangeMap ranges_;

    std::atomic<std::uint64_t> owners_{0};  // counted once the cache is gone
    std::atomic<bool> left_{false};
};

}  // namespace fabricmem::detail
