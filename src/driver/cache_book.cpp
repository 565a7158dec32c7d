// SPDX-License-Identifier: Apache-2.0
#include "driver/cache_book.hpp"

namespace fabricmem::detail {
namespace {

void add_life(CacheCounters& sum, const CacheCounters& one) noexcept {
    sum.hits += one.hits;
    sum.misses += one.misses;
    sum.waits += one.waits;
    sum.imports += one.imports;
    sum.failed_imports += one.failed_imports;
    sum.evicted_for_room += one.evicted_for_room;
    sum.evicted_idle += one.evicted_idle;
    sum.evicted_by_peer += one.evicted_by_peer;
    sum.invalidated += one.invalidated;
    sum.outdated += one.outdated;
}

void add_moment(CacheCounters& sum, const CacheCounters& one) noexcept {
    ++sum.caches;
    sum.entries += one.entries;
    sum.bytes += one.bytes;
    sum.retired += one.retired;
    sum.deferred += one.deferred;
    sum.ranges += one.ranges;
}

}  // namespace

void CacheBook::enter(CountedCache& cache) noexcept {
    const std::lock_guard lock(mutex_);
    cache.next_ = first_;
    if (first_ != nullptr) first_->previous_ = &cache;
    first_ = &cache;
}

void CacheBook::leave(CountedCache& cache) noexcept {
    const std::lock_guard lock(mutex_);
    add_life(gone_, cache.counted());
    (cache.previous_ == nullptr ? first_ : cache.previous_->next_) = cache.next_;
    if (cache.next_ != nullptr) cache.next_->previous_ = cache.previous_;
}

CacheCounters CacheBook::totals() const noexcept {
    const std::lock_guard lock(mutex_);
    CacheCounters totals = gone_;
    for (const CountedCache* cache = first_; cache != nullptr; cache = cache->next_) {
        const CacheCounters counted = cache->counted();
        add_life(totals, counted);
        add_moment(totals, counted);
    }
    totals.backlog = backlog_.load(std::memory_order_relaxed);
    totals.backlog_bytes = backlog_bytes_.load(std::memory_order_relaxed);
    return totals;
}

void CacheBook::add_to_backlog(std::uint64_t imports, std::uint64_t bytes) noexcept {
    backlog_.fetch_add(imports, std::memory_order_relaxed);
    backlog_bytes_.fetch_add(bytes, std::memory_order_relaxed);
}

void CacheBook::take_from_backlog(std::uint64_t imports, std::uint64_t bytes) noexcept {
    backlog_.fetch_sub(imports, std::memory_order_relaxed);
    backlog_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

}  // namespace fabricmem::detail
