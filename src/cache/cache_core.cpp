// SPDX-License-Identifier: Apache-2.0
// Finds an import, or makes it.
#include "cache/cache_core.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "buffer/buffer_parts.hpp"
#include "buffer/deadline.hpp"
#include "buffer/import.hpp"
#include "driver/driver_state.hpp"
#include "error/refuse.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {
namespace {

void check_cache_options(const std::shared_ptr<Driver>& driver, const ImportCacheOptions& options) {
    check_driver(driver);
    if (options.max_entries == 0 || options.max_entries > CacheCore::kEntriesMax)
        refuse(formatted("max_entries is {}: 1 to 2^20 are taken", options.max_entries));
    if (options.max_bytes == 0) refuse("max_bytes is 0");
    if (options.idle_timeout.count() < 0) refuse(formatted("an idle_timeout of {} ms", options.idle_timeout.count()));
    if (options.import.timeout.count() <= 0 ||
        options.import.tear_down_timeout.value_or(options.import.timeout).count() <= 0)
        refuse("imports of a cache need a timeout and a tear_down_timeout: without one a lost peer would block it");
}

// The reaper has the deadline of an import's end.
ImportOptions without_tear_down_timeout(ImportOptions options) {
    options.tear_down_timeout = std::chrono::milliseconds(0);
    return options;
}

[[noreturn]] void refuse_sizes(const CacheSlot& slot, const HandleBlob& blob) {
    throw Error({.kind = ErrorKind::bad_blob,
                 .subject = formatted("allocation {} has {} mapped bytes by this blob, and was imported with {}",
                                      to_string(slot.key.allocation_id()), blob.mapped_bytes, slot.mapped_bytes)});
}

}  // namespace

CacheCore::CacheCore(std::shared_ptr<Driver> driver, const ImportCacheOptions& options)
    : driver_((check_cache_options(driver, options), std::move(driver))),
      import_options_(without_tear_down_timeout(options.import)),
      tear_down_timeout_(options.import.tear_down_timeout.value_or(options.import.timeout)),
      idle_timeout_(options.idle_timeout),
      max_entries_(options.max_entries),
      max_bytes_(options.max_bytes),
      made_in_(fork_epoch()),
      reaper_(std::make_shared<Reaper>(driver_, tear_down_timeout_)),
      table_(*this, options.max_entries) {
    by_use_.reserve(max_entries_);
    threads_.emplace(DriverState::of(*driver_).workers());
    DriverState::of(*driver_).caches.enter(*this);  // last: it may be asked from now on
}
CacheCore::~CacheCore() { DriverState::of(*driver_).caches.leave(*this); }

void CacheCore::check(const HandleBlob& blob, const AcquireOptions& options) {
    check_blob(blob);
    if (options.idle_timeout.has_value() && options.idle_timeout->count() < 0)
        refuse(formatted("an idle_timeout of {} ms", options.idle_timeout->count()));
    if (blob.allocation_id.has_value()) return;
    throw Error({.kind = ErrorKind::bad_argument,
                 .subject = "the blob has no allocation id, by which a cache could tell its memory from other memory",
                 .cause = "it is that of a bare handle",
                 .cure = "import it as an ImportedFabricBuffer, without a cache"});
}

ImportView CacheCore::view_of(CacheSlot& slot, std::uint32_t stripe, const HandleBlob& blob) const noexcept {
    return {slot, stripe, slot.base + blob.offset, blob.bytes};
}

ImportView CacheCore::find(const HandleBlob& blob, const AcquireOptions& options) noexcept {
    const bool refused = options.idle_timeout.has_value() && options.idle_timeout->count() < 0;
    if (!blob.allocation_id.has_value() || refused) [[unlikely]]
        return {};  // to be said in words
    const std::uint32_t stripe = stripe_of_thread();
    CacheSlot* const slot = table_.find(CacheKey(blob), stripe);
    if (slot == nullptr) return {};
    if (slot->mapped_bytes != blob.mapped_bytes || !slot->has(blob.offset, blob.bytes)) [[unlikely]] {
        let_go(*slot, stripe);  // the same
        return {};
    }
    use(*slot, options);
    return view_of(*slot, stripe, blob);
}

void CacheCore::use(CacheSlot& slot, const AcquireOptions& options) const noexcept {
    slot.touch(tick());
    if (options.idle_timeout.has_value()) slot.idle_ms.store(options.idle_timeout->count(), std::memory_order_relaxed);
}

ImportView CacheCore::acquire(const HandleBlob& blob, const AcquireOptions& options) {
    ImportView view = find(blob, options);
    if (view.is_open()) [[likely]]
        return view;
    return acquire_slowly(blob, options);
}

ImportView CacheCore::acquire_slowly(const HandleBlob& blob, const AcquireOptions& options) {
    static_cast<void>(collect(Clock::now()));
    const Clock::time_point deadline = deadline_after(import_options_.timeout);
    Counted counted;
    for (;;) {
        Begun begun = begin_acquire(blob, options, counted);
        if (begun.view.is_open()) return std::move(begun.view);
        if (begun.own) return import(blob, *begun.pending);
        wait_for(*begun.pending, blob, deadline);
    }
}

CacheCore::Begun CacheCore::begin_acquire(const HandleBlob& blob, const AcquireOptions& options, Counted& counted) {
    check(blob, options);
    const CacheKey key(blob);
    const Id128 peer = options.peer.value_or(blob.peer);
    for (;;) {
        {
            Doomed doomed(reaper_);
            const Lock lock(mutex_);
            if (std::optional<ImportView> found = look_up(key, blob, options)) return {.view = std::move(*found)};
            if (const auto other = pending_.find(key); other != pending_.end()) {
                if (!std::exchange(counted.waited, true)) ++counts_.waits;
                return {.pending = other->second};
            }
            if (!std::exchange(counted.missed, true)) ++counts_.misses;
            if (!is_newer_generation(peer, blob.generation, doomed))
                return {.pending = begin_import(key, blob, options, doomed), .own = true};
        }
        // What the peer's older ranges keep has the room that may be needed.
        drop_older_ranges(peer, blob.generation);
    }
}

std::optional<ImportView> CacheCore::look_up(const CacheKey& key, const HandleBlob& blob,
                                             const AcquireOptions& options) {
    CacheSlot* const slot = table_.look_up(key);
    if (slot == nullptr) return std::nullopt;
    if (slot->mapped_bytes != blob.mapped_bytes) refuse_sizes(*slot, blob);
    const std::uint32_t stripe = stripe_of_thread();
    static_cast<void>(slot->refs.try_take(stripe, StripedRefs::As::hit));  // open while it is in the table
    use(*slot, options);
    return view_of(*slot, stripe, blob);
}

void CacheCore::wait_for(const Pending& other, const HandleBlob& blob, Clock::time_point deadline) {
    Lock lock(mutex_);
    if (!changed_.wait_until(lock, deadline, [&] { return other.done; })) {
        lock.unlock();
        throw import_timed_out(*driver_, blob, "cuMemImportFromShareableHandle", import_options_.timeout);
    }
    if (other.error.has_value()) throw Error(*other.error);
}

std::shared_ptr<CacheCore::Pending> CacheCore::begin_import(const CacheKey& key, const HandleBlob& blob,
                                                            const AcquireOptions& options, Doomed& doomed) {
    auto pending = std::make_shared<Pending>();
    const auto at = pending_.emplace(key, pending).first;
    try {
        make_room_for(blob, doomed);
    } catch (...) {
        pending_.erase(at);
        throw;
    }
    CacheSlot& slot = *table_.take_free();
    pending->slot = &slot;
    slot.state = CacheSlot::State::reserved;
    slot.key = key;
    slot.mapped_bytes = blob.mapped_bytes;
    slot.peer = options.peer.value_or(blob.peer);
    slot.generation = blob.generation;
    slot.serial = ++serial_;
    slot.idle_ms.store(options.idle_timeout.value_or(idle_timeout_).count(), std::memory_order_relaxed);
    if (const auto peer = peers_.find(slot.peer); peer != peers_.end()) ++peer->second.imports;
    counts_.entries = table_.taken();
    counts_.bytes += slot.mapped_bytes;
    counts_.entries_peak = std::max(counts_.entries_peak, counts_.entries);
    counts_.bytes_peak = std::max(counts_.bytes_peak, counts_.bytes);
    return pending;
}

ImportView CacheCore::import(const HandleBlob& blob, Pending& pending) {
    std::unique_ptr<CachedImport> made;
    std::exception_ptr failure;
    try {
        made = std::make_unique<CachedImport>(ImportedFabricBuffer(driver_, blob, import_options_));
    } catch (...) {
        failure = std::current_exception();
    }
    return finish_import(pending, std::move(made), failure, blob);
}

ImportView CacheCore::finish_import(Pending& pending, std::unique_ptr<CachedImport> made,
                                    const std::exception_ptr& failure, const HandleBlob& blob) {
    Doomed doomed(reaper_);
    const Lock lock(mutex_);
    CacheSlot& slot = *pending.slot;
    pending_.erase(slot.key);
    pending.done = true;
    changed_.notify_all();
    if (made == nullptr) {
        ++counts_.failed_imports;
        give_slot_back(slot);
        try {
            std::rethrow_exception(failure);
        } catch (const Error& error) {
            pending.error = error;
            throw;
        }  // all else is no memory: those who wait try themselves
    }
    const std::uint32_t stripe = stripe_of_thread();
    publish(slot, std::move(made), stripe);
    if (pending.retired.has_value()) retire(slot, *pending.retired, doomed);
    return view_of(slot, stripe, blob);
}

void CacheCore::publish(CacheSlot& slot, std::unique_ptr<CachedImport> made, std::uint32_t stripe) noexcept {
    ++counts_.imports;
    slot.state = CacheSlot::State::live;
    slot.base = static_cast<std::byte*>(BufferParts::of(made->buffer).base());
    slot.import = std::move(made);
    slot.last_used.store(tick(), std::memory_order_relaxed);
    slot.refs.open(stripe);
    table_.link(slot);
}

// The generation of a peer that has no imports is remembered as long as there is room, so that a blob that comes late
// is refused.
bool CacheCore::is_newer_generation(const Id128& peer, std::uint64_t generation, Doomed& doomed) {
    if (peer.is_zero()) return false;
    if (peers_.size() >= std::size_t{2} * max_entries_ && !peers_.contains(peer))
        std::erase_if(peers_, [](const auto& known) { return known.second.imports == 0; });
    Peer& known = peers_[peer];
    if (generation < known.generation) {
        throw Error({.kind = ErrorKind::peer_gone,
                     .subject = formatted("the blob is of generation {} of peer {}, which is at generation {} by now",
                                          generation, to_string(peer), known.generation),
                     .cause = "the peer has started anew",
                     .cure = "ask it for a new blob"});
    }
    if (generation == known.generation) return false;
    known.generation = generation;
    if (known.imports != 0) retire_older(peer, generation, doomed);  // it looks at all imports
    return true;
}

void CacheCore::meet(const Id128& peer, const HandleBlob& blob) {
    check(blob, {});
    bool newer = false;
    {
        Doomed doomed(reaper_);
        const Lock lock(mutex_);
        newer = is_newer_generation(peer, blob.generation, doomed);
    }
    if (newer) drop_older_ranges(peer, blob.generation);
}

bool CacheCore::is_room_for(std::uint64_t bytes) const noexcept {
    return table_.taken() < max_entries_ && bytes <= max_bytes_ - counts_.bytes;
}

void CacheCore::make_room_for(const HandleBlob& blob, Doomed& doomed) {
    if (is_room_for(blob.mapped_bytes)) return;
    if (blob.mapped_bytes <= max_bytes_) {
        by_use_.clear();
        for (CacheSlot& slot : table_) {
            if (slot.state == CacheSlot::State::live)
                by_use_.emplace_back(slot.last_used.load(std::memory_order_relaxed), slot.serial, &slot);
        }
        // A heap, since one is mostly enough.
        std::make_heap(by_use_.begin(), by_use_.end(), std::greater<>());
        while (!by_use_.empty()) {
            std::pop_heap(by_use_.begin(), by_use_.end(), std::greater<>());
            CacheSlot& oldest = *std::get<2>(by_use_.back());
            by_use_.pop_back();
            if (retire_if_unused(oldest, Retire::for_room, doomed) && is_room_for(blob.mapped_bytes)) return;
        }
    }
    throw Error(
        {.kind = ErrorKind::out_of_memory,
         .bytes = blob.mapped_bytes,
         .subject = formatted("the import cache has no room: {} of {} imports, {} of {} bytes are referenced or "
                              "being made",
                              table_.taken(), max_entries_, counts_.bytes, max_bytes_),
         .cure = "let views go, or make the cache with larger bounds"});
}

}  // namespace fabricmem::detail
