// SPDX-License-Identifier: Apache-2.0
// Which import caches there are of a driver, and what those have counted that are gone. Knows no cache by itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include <fabricmem/counters.hpp>

namespace fabricmem::detail {

/// A cache's place in the book: part of the cache, so that entering it can't fail.
class CountedCache {
public:
    CountedCache(const CountedCache&) = delete;
    CountedCache& operator=(const CountedCache&) = delete;

    /// Of this moment; all but `caches`, `backlog` and `backlog_bytes`. Called under the book's lock: no view ends in
    /// it, and none of the cache's own locks is held where the book is asked.
    [[nodiscard]] virtual CacheCounters counted() const noexcept = 0;

protected:
    CountedCache() = default;
    virtual ~CountedCache() = default;

private:
    friend class CacheBook;
    CountedCache* previous_ = nullptr;
    CountedCache* next_ = nullptr;
};

/// Thread-safe. Not for forked children, where the lock may be held by a thread that there is not.
class CacheBook {
public:
    CacheBook() = default;
    CacheBook(const CacheBook&) = delete;
    CacheBook& operator=(const CacheBook&) = delete;

    void enter(CountedCache& cache) noexcept;
    /// Keeps what it has counted over all its life.
    void leave(CountedCache& cache) noexcept;
    [[nodiscard]] CacheCounters totals() const noexcept;

    /// Imports whose end begins, and has come back: that may be after the cache is gone.
    void add_to_backlog(std::uint64_t imports, std::uint64_t bytes) noexcept;
    void take_from_backlog(std::uint64_t imports, std::uint64_t bytes) noexcept;

private:
    std::atomic<std::uint64_t> backlog_{0};
    std::atomic<std::uint64_t> backlog_bytes_{0};
    mutable std::mutex mutex_;  // guards all below
    CountedCache* first_ = nullptr;
    CacheCounters gone_;
};

}  // namespace fabricmem::detail
