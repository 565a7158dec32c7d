// SPDX-License-Identifier: Apache-2.0
// How imports leave a cache: for room, by time, by name, by a newer generation, at its end.
#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "cache/cache_core.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

// A tick is a time in milliseconds with a number behind it, so that ticks of the same time have an order.
constexpr int kTickBits = 16;

}  // namespace

void let_go(CacheSlot& slot, std::uint32_t stripe) noexcept {
    CacheCore* const core = slot.core;  // before: afterwards the slot may be gone
    if (slot.refs.give_back(stripe)) core->finish(slot);
}

bool CacheCore::forked() const noexcept { return fork_epoch() != made_in_; }

std::uint64_t CacheCore::ms_of(Clock::time_point time) const noexcept {
    if (time <= made_at_) return 0;  // before, since the difference may be none that there is a number for
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(time - made_at_).count());
}

void CacheCore::count(Retire why) noexcept {
    switch (why) {
        case Retire::for_room: ++counts_.evicted_for_room; break;
        case Retire::idle: ++counts_.evicted_idle; break;
        case Retire::by_peer: ++counts_.evicted_by_peer; break;
        case Retire::invalidated: ++counts_.invalidated; break;
        case Retire::outdated: ++counts_.outdated; break;
        case Retire::at_end: break;
    }
}

void CacheCore::give_slot_back(CacheSlot& slot) noexcept {
    if (const auto peer = peers_.find(slot.peer); peer != peers_.end()) --peer->second.imports;
    counts_.bytes -= slot.mapped_bytes;
    slot.state = CacheSlot::State::free;
    table_.give_free(slot);
    counts_.entries = table_.taken();
}

void CacheCore::take_out(CacheSlot& slot, ImportList& imports) noexcept {
    imports.push(std::move(slot.import));
    give_slot_back(slot);
}

void CacheCore::retire(CacheSlot& slot, Retire why, Doomed& doomed) noexcept {
    count(why);
    table_.unlink(slot);
    if (slot.refs.close()) {
        take_out(slot, doomed.imports);
    } else {
        slot.state = CacheSlot::State::retired;
        ++counts_.retired;
    }
}

bool CacheCore::retire_if_unused(CacheSlot& slot, Retire why, Doomed& doomed) noexcept {
    if (!slot.refs.close_if_unused()) return false;
    count(why);
    table_.unlink(slot);
    take_out(slot, doomed.imports);
    return true;
}

// The last reference: whoever ends the cache meanwhile has counted this import among the retired ones.
void CacheCore::finish(CacheSlot& slot) noexcept {
    if (forked()) return;
    ImportList ending;
    std::shared_ptr<Reaper> reaper;
    bool orphaned = false;
    {
        const std::lock_guard lock(mutex_);
        --counts_.retired;
        take_out(slot, ending);
        reaper = reaper_;
        orphaned = orphaned_;
    }
    reaper->add(ending);
    if (orphaned) drop_owner();  // else this may be gone by now
}

template <typename IsIt>
std::size_t CacheCore::retire_all_under_lock(Retire why, Doomed& doomed, IsIt is_it) noexcept {
    std::size_t retired = 0;
    for (CacheSlot& slot : table_) {
        if (slot.state != CacheSlot::State::live || !is_it(slot)) continue;
        retire(slot, why, doomed);
        ++retired;
    }
    for (const auto& [key, pending] : pending_) {
        if (pending->slot != nullptr && is_it(*pending->slot)) pending->retired = why;
    }
    return retired;
}

std::size_t CacheCore::retire_peer(const Id128& peer) {
    std::size_t retired = 0;
    {
        Doomed doomed(reaper_);
        const Lock lock(mutex_);
        retired =
            retire_all_under_lock(Retire::by_peer, doomed, [&](const CacheSlot& slot) { return slot.peer == peer; });
    }
    ranges_.drop([&](const Id128& of, const RangeRecord& record) { return of == peer || !is_live(*record.slot); });
    return retired;
}

std::size_t CacheCore::retire_allocation(const Id128& allocation_id) {
    std::size_t retired = 0;
    {
        Doomed doomed(reaper_);
        const Lock lock(mutex_);
        retired = retire_all_under_lock(Retire::invalidated, doomed, [&](const CacheSlot& slot) {
            return slot.key.allocation_id() == allocation_id;
        });
    }
    drop_dead_ranges();
    return retired;
}

void CacheCore::retire_older(const Id128& peer, std::uint64_t generation, Doomed& doomed) noexcept {
    retire_all_under_lock(Retire::outdated, doomed,
                          [&](const CacheSlot& slot) { return slot.peer == peer && slot.generation < generation; });
}

std::size_t CacheCore::collect(Clock::time_point now) {
    ask_deferred();
    std::size_t retired = 0;
    {
        Doomed doomed(reaper_);
        const Lock lock(mutex_);
        retired = collect_idle(now, doomed);
    }
    reaper_->look();
    return retired;
}

// What was used since the last time has the tick of then, and may have been used just now: that is when its idle time
// begins. The tick of what is used from here on is another one again.
std::size_t CacheCore::collect_idle(Clock::time_point now, Doomed& doomed) noexcept {
    const std::uint64_t before = tick();
    const std::uint64_t now_ms = ms_of(now);
    const std::uint64_t stamp = std::max(before + 1, now_ms << kTickBits);
    std::size_t retired = 0;
    for (CacheSlot& slot : table_) {
        if (slot.state != CacheSlot::State::live) continue;
        std::uint64_t used = slot.last_used.load(std::memory_order_relaxed);
        if (used == before) {
            used = stamp;
            slot.last_used.store(stamp, std::memory_order_relaxed);
        }
        const std::uint64_t used_ms = used >> kTickBits;
        const std::uint64_t idle_ms = now_ms > used_ms ? now_ms - used_ms : 0;
        const auto limit_ms = static_cast<std::uint64_t>(slot.idle_ms.load(std::memory_order_relaxed));
        if (idle_ms < limit_ms || limit_ms == static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
            continue;
        if (retire_if_unused(slot, Retire::idle, doomed)) {
            ++retired;
        } else {
            slot.last_used.store(stamp, std::memory_order_relaxed);  // in use
        }
    }
    tick_.store(stamp + 1, std::memory_order_relaxed);
    return retired;
}

bool CacheCore::is_live(const CacheSlot& slot) const {
    const std::lock_guard lock(mutex_);
    return slot.state == CacheSlot::State::live;
}

void CacheCore::drop_dead_ranges() {
    ranges_.drop([this](const Id128&, const RangeRecord& record) { return !is_live(*record.slot); });
}

// Also those whose import was made for another peer, or for nobody, and stays.
void CacheCore::drop_older_ranges(const Id128& peer, std::uint64_t generation) {
    try {
        ranges_.drop([&](const Id128& of, const RangeRecord& record) {
            return (of == peer && record.generation < generation) || !is_live(*record.slot);
        });
    } catch (...) {  // no memory: the next one who comes with this generation tries again
        const Lock lock(mutex_);
        const auto known = peers_.find(peer);
        if (known != peers_.end() && known->second.generation == generation) --known->second.generation;
        throw;
    }
}

bool CacheCore::is_outdated(const Id128& peer, std::uint64_t generation) const {
    const std::lock_guard lock(mutex_);
    const auto known = peers_.find(peer);
    return known != peers_.end() && generation < known->second.generation;
}

std::size_t CacheCore::live_references() const noexcept {
    std::int64_t references = 0;
    for (const CacheSlot& slot : table_) references += slot.refs.count();
    return static_cast<std::size_t>(references);
}

void CacheCore::close() {
    ask_deferred();
    ranges_.drop([](const Id128&, const RangeRecord&) { return true; });
    Doomed doomed(reaper_);
    const Lock lock(mutex_);
    if (const std::size_t live = live_references(); live != 0) {
        throw Error({.kind = ErrorKind::conflict,
                     .subject = formatted("{} views of the import cache are live, {} of them kept by retire_after()",
                                          live, deferred_count_),
                     .cure = "let them go first; where the cache is destroyed instead, imports stay until the last of "
                             "their views is gone"});
    }
    retire_all_under_lock(Retire::at_end, doomed, [](const CacheSlot&) { return true; });
}

void CacheCore::end_cache() noexcept {
    if (forked()) {
        leave();
        return;
    }
    DeferredList abandoned;
    try {
        ask_deferred();
        ranges_.drop([](const Id128&, const RangeRecord&) { return true; });
    } catch (const std::exception& error) {  // no memory: ranges end with the last view, then
        log(LogLevel::error, "an import cache ends without some of its ranges: {}", error.what());
    }
    {
        Doomed doomed(reaper_);
        const Lock lock(mutex_);
        abandoned.swap(deferred_);
        retire_all_under_lock(Retire::at_end, doomed, [](const CacheSlot&) { return true; });
        owners_ = counts_.retired + 1;  // this call too, until it has unlocked
        orphaned_ = true;
    }
    keep_for_ever(abandoned);
    threads_.reset();
    drop_owner();
}

void CacheCore::drop_owner() noexcept {
    if (owners_.fetch_sub(1) == 1) delete this;
}

// Of a child's copy it can't be known how many have a share in it, and what is kept for ever keeps this.
void CacheCore::leave() noexcept {
    if (!left_.exchange(true)) leave_to_parent(this);
}

ImportCacheStatistics CacheCore::statistics() const {
    const std::size_t ranges = ranges_.count();
    const Reaper::Backlog backlog = reaper_->backlog();
    ImportCacheStatistics now;
    const CacheSlot* slots_end = nullptr;
    {
        const std::lock_guard lock(mutex_);
        now = counts_;
        now.deferred = deferred_count_;
        slots_end = table_.end();
    }
    // As many cache lines as there are stripes: nobody waits for that.
    for (const CacheSlot* slot = table_.begin(); slot != slots_end; ++slot) now.hits += slot->refs.hits();
    now.ranges = ranges;
    now.backlog = backlog.imports;
    now.backlog_bytes = backlog.bytes;
    return now;
}

CacheCounters CacheCore::counted() const noexcept {
    const ImportCacheStatistics now = statistics();
    return {.hits = now.hits,
            .misses = now.misses,
            .waits = now.waits,
            .imports = now.imports,
            .failed_imports = now.failed_imports,
            .evicted_for_room = now.evicted_for_room,
            .evicted_idle = now.evicted_idle,
            .evicted_by_peer = now.evicted_by_peer,
            .invalidated = now.invalidated,
            .outdated = now.outdated,
            .entries = now.entries,
            .bytes = now.bytes,
            .retired = now.retired,
            .deferred = now.deferred,
            .ranges = now.ranges};
}

}  // namespace fabricmem::detail
