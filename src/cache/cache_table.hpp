// SPDX-License-Identifier: Apache-2.0
// Finds a key's slot without a lock. What is in the table is changed by one thread at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cache/cache_slot.hpp"

namespace fabricmem::detail {

/// Chains of slots, by hash. A word of a chain names a slot by number and has half of its key's hash, so that a slot
/// that is not the right one is seldom looked into. A reader may follow a slot into another chain where it is removed
/// and put in again meanwhile: it then misses, at worst, what it looks for, and asks again under the lock.
class CacheTable {
public:
    CacheTable(CacheCore& core, std::uint32_t slots);
    CacheTable(const CacheTable&) = delete;
    CacheTable& operator=(const CacheTable&) = delete;

    /// The slot, with a reference and a hit counted; null where it is not found. Any thread.
    [[nodiscard]] CacheSlot* find(const CacheKey& key, std::uint32_t stripe) noexcept;

    // Under the core's mutex:

    /// Null where it is not there.
    [[nodiscard]] CacheSlot* look_up(const CacheKey& key) noexcept;
    void link(CacheSlot& slot) noexcept;
    void unlink(CacheSlot& slot) noexcept;
    /// Null where all are taken.
    [[nodiscard]] CacheSlot* take_free() noexcept;
    void give_free(CacheSlot& slot) noexcept { free_.push_back(&slot); }
    [[nodiscard]] std::size_t taken() const noexcept { return size_ - free_.size(); }
    /// All that were ever taken.
    [[nodiscard]] CacheSlot* begin() noexcept { return slots_.get(); }
    [[nodiscard]] CacheSlot* end() noexcept { return slots_.get() + used_; }
    [[nodiscard]] const CacheSlot* begin() const noexcept { return slots_.get(); }
    [[nodiscard]] const CacheSlot* end() const noexcept { return slots_.get() + used_; }

private:
    using Word = std::uint64_t;  // half a hash, then the slot's number from 1; 0: none

    [[nodiscard]] std::atomic<Word>& bucket(std::uint64_t hash) noexcept { return buckets_[hash & mask_]; }
    [[nodiscard]] Word word_for(const CacheSlot& slot) const noexcept;
    [[nodiscard]] CacheSlot& slot_of(Word word) noexcept { return slots_[(word & 0xffffffffU) - 1]; }

    std::size_t size_;
    std::size_t used_ = 0;
    std::uint64_t mask_;
    std::unique_ptr<CacheSlot[]> slots_;
    std::unique_ptr<std::atomic<Word>[]> buckets_;
    std::vector<CacheSlot*> free_;
};

}  // namespace fabricmem::detail
