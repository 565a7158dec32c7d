// SPDX-License-Identifier: Apache-2.0
#include "cache/cache_table.hpp"

#include <bit>

namespace fabricmem::detail {
namespace {

constexpr std::uint64_t kHashHalf = 0xffffffff00000000U;
// Chains have less than one slot in the middle. A reader that is led in circles gives up.
constexpr int kStepsMost = 16;

}  // namespace

CacheTable::CacheTable(CacheCore& core, std::uint32_t slots)
    : size_(slots),
      mask_(std::bit_ceil(std::uint64_t{2} * slots) - 1),
      slots_(std::make_unique<CacheSlot[]>(slots)),
      buckets_(std::make_unique<std::atomic<Word>[]>(mask_ + 1)) {
    free_.reserve(slots);
    for (std::uint32_t i = slots; i-- > 0;) {
        slots_[i].core = &core;
        free_.push_back(&slots_[i]);
    }
}

CacheTable::Word CacheTable::word_for(const CacheSlot& slot) const noexcept {
    return (slot.key.hash() & kHashHalf) | static_cast<Word>(&slot - slots_.get() + 1);
}

CacheSlot* CacheTable::find(const CacheKey& key, std::uint32_t stripe) noexcept {
    const std::uint64_t hash = key.hash();
    // Acquire, as for `next` below: the slot's own `next` was written before the word that leads to it.
    Word word = bucket(hash).load(std::memory_order_acquire);
    for (int step = 0; word != 0 && step < kStepsMost; ++step) {
        CacheSlot& slot = slot_of(word);
        slot.prefetch();
        if (((word ^ hash) & kHashHalf) == 0 && slot.refs.try_take(stripe, StripedRefs::As::hit)) {
            if (slot.key == key) return &slot;
            let_go(slot, stripe);  // the slot is another import's by now, or half of the hash is the same
        }
        word = slot.next.load(std::memory_order_acquire);
    }
    return nullptr;
}

CacheSlot* CacheTable::look_up(const CacheKey& key) noexcept {
    Word word = bucket(key.hash()).load(std::memory_order_relaxed);
    while (word != 0) {
        CacheSlot& slot = slot_of(word);
        if (slot.key == key) return &slot;
        word = slot.next.load(std::memory_order_relaxed);
    }
    return nullptr;
}

void CacheTable::link(CacheSlot& slot) noexcept {
    std::atomic<Word>& first = bucket(slot.key.hash());
    slot.next.store(first.load(std::memory_order_relaxed), std::memory_order_relaxed);
    first.store(word_for(slot), std::memory_order_release);
}

// The slot's own `next` stays, for readers that are there.
void CacheTable::unlink(CacheSlot& slot) noexcept {
    const Word word = word_for(slot);
    std::atomic<Word>* before = &bucket(slot.key.hash());
    while (before->load(std::memory_order_relaxed) != word)
        before = &slot_of(before->load(std::memory_order_relaxed)).next;
    before->store(slot.next.load(std::memory_order_relaxed), std::memory_order_release);
}

CacheSlot* CacheTable::take_free() noexcept {
    if (free_.empty()) return nullptr;
    CacheSlot* const slot = free_.back();
    free_.pop_back();
    const auto number = static_cast<std::size_t>(slot - slots_.get());
    if (number >= used_) used_ = number + 1;
    return slot;
}

}  // namespace fabricmem::detail
