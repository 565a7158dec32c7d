// SPDX-License-Identifier: Apache-2.0
#include "driver/memory_book.hpp"

#include <algorithm>

namespace fabricmem::detail {
namespace {

LiveMemory told(const BookEntry& entry) {
    return {.base = reinterpret_cast<const void*>(entry.base),  // NOLINT(performance-no-int-to-ptr)
            .location = entry.location,
            .kinds = entry.kinds,
            .blob = *entry.blob};
}

}  // namespace

void MemoryBook::enter(BookEntry& entry) noexcept {
    const std::lock_guard lock(mutex_);
    entry.entered = true;
    entry.previous = last_;
    entry.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &entry;
    last_ = &entry;
    BookTotals::Side& totals = side(entry.origin);
    ++totals.made;
    ++totals.live;
    totals.bytes += entry.blob->mapped_bytes;
    totals.peak_bytes = std::max(totals.peak_bytes, totals.bytes);
}

void MemoryBook::leave(BookEntry& entry) noexcept {
    const std::lock_guard lock(mutex_);
    if (!entry.entered) return;
    entry.entered = false;
    (entry.previous == nullptr ? first_ : entry.previous->next) = entry.next;
    (entry.next == nullptr ? last_ : entry.next->previous) = entry.previous;
    BookTotals::Side& totals = side(entry.origin);
    --totals.live;
    totals.bytes -= entry.blob->mapped_bytes;
}

void MemoryBook::add_given_up(std::uint64_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    ++totals_.given_up;
    totals_.given_up_bytes += bytes;
}

void MemoryBook::add_failed_tear_down(std::uint64_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    ++totals_.failed_tear_downs;
    totals_.failed_tear_down_bytes += bytes;
}

std::optional<BookAnswer> MemoryBook::find(std::uintptr_t address) const {
    const std::lock_guard lock(mutex_);
    for (const BookEntry* entry = first_; entry != nullptr; entry = entry->next) {
        // One comparison for both ends: an address below the base wraps to a large number.
        if (address - entry->base < entry->blob->mapped_bytes) return BookAnswer{entry->origin, told(*entry)};
    }
    return std::nullopt;
}

std::optional<Id128> MemoryBook::own_id_of(std::span<const std::uint8_t, HandleBlob::kHandleBytes> handle) const {
    const std::lock_guard lock(mutex_);
    for (const BookEntry* entry = first_; entry != nullptr; entry = entry->next) {
        if (entry->origin == BufferOrigin::own && std::equal(handle.begin(), handle.end(), entry->blob->handle.begin()))
            return entry->blob->allocation_id;
    }
    return std::nullopt;
}

BookTotals MemoryBook::totals() const {
    const std::lock_guard lock(mutex_);
    return totals_;
}

void MemoryBook::fill(MemoryReport& report) const {
    const std::lock_guard lock(mutex_);
    report.buffers.reserve(totals_.own.live);
    report.imports.reserve(totals_.imported.live);
    for (const BookEntry* entry = first_; entry != nullptr; entry = entry->next)
        (entry->origin == BufferOrigin::own ? report.buffers : report.imports).push_back(told(*entry));
    report.buffer_bytes = totals_.own.bytes;
    report.import_bytes = totals_.imported.bytes;
    report.given_up = totals_.given_up;
    report.given_up_bytes = totals_.given_up_bytes;
    report.failed_tear_downs = totals_.failed_tear_downs;
    report.failed_tear_down_bytes = totals_.failed_tear_down_bytes;
}

}  // namespace fabricmem::detail
