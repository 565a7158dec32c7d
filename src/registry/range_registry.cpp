// SPDX-License-Identifier: Apache-2.0
#include "registry/range_registry.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <new>
#include <utility>

#include "error/refuse.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

std::uintptr_t base_of(const BufferInfo& buffer) noexcept { return reinterpret_cast<std::uintptr_t>(buffer.address); }

void check_buffer(const BufferInfo& buffer) {
    buffer.blob.validate();
    if (!buffer.blob.allocation_id.has_value()) refuse("a buffer whose blob has no allocation id");
    if (buffer.bytes == 0 || buffer.bytes > buffer.mapped_bytes || buffer.bytes > buffer.blob.bytes)
        refuse(formatted("a buffer of {} bytes, of which {} are mapped and {} in the blob", buffer.bytes,
                         buffer.mapped_bytes, buffer.blob.bytes));
    if (buffer.mapped_bytes > std::numeric_limits<std::uintptr_t>::max() - base_of(buffer))
        refuse(formatted("a buffer of {} bytes at {}", buffer.mapped_bytes, buffer.address));
}

}  // namespace

RangeRegistry::RangeRegistry() : made_in_(fork_epoch()), current_(new Snapshot) {}
RangeRegistry::~RangeRegistry() { delete current_.load(std::memory_order_relaxed); }

RangeRegistry::Buffer* RangeRegistry::find(const BufferInfo& buffer) const noexcept {
    for (const Slot& slot : *current_.load(std::memory_order_relaxed)) {
        if (slot.base == base_of(buffer) && slot.buffer->blob.allocation_id == buffer.blob.allocation_id)
            return slot.buffer.get();
    }
    return nullptr;
}

void RangeRegistry::publish(std::unique_ptr<const Snapshot> next) noexcept {
    const std::unique_ptr<const Snapshot> old(current_.exchange(next.release(), std::memory_order_seq_cst));
    gate_.wait_for_readers();
}

void RangeRegistry::add(const BufferInfo& buffer) {
    if (fork_epoch() != made_in_) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = "the ranges were made before this process was forked",
                     .cause = "CUDA does not survive fork()",
                     .cure = "start the child with exec"});
    }
    check_buffer(buffer);
    const std::uintptr_t base = base_of(buffer);
    auto entry = std::make_shared<Buffer>();
    entry->location = buffer.location;
    entry->blob = buffer.blob;
    auto next = std::make_unique<Snapshot>();
    const std::lock_guard lock(mutex_);
    const Snapshot& now = *current_.load(std::memory_order_relaxed);
    next->reserve(now.size() + 1);
    for (const Slot& slot : now) {
        if (slot.buffer->blob.allocation_id == buffer.blob.allocation_id)
            refuse(formatted("the allocation {} is known already", to_string(*buffer.blob.allocation_id)));
        if (slot.buffer->ended) continue;
        const bool overlaps = slot.base < base + buffer.mapped_bytes && base < slot.base + slot.mapped_bytes;
        if (!overlaps) {
            next->push_back(slot);
        } else if (!slot.buffer->tearing_down.load(std::memory_order_relaxed)) {
            throw Error({.kind = ErrorKind::conflict,
                         .bytes = buffer.bytes,
                         .subject = formatted("another buffer of {} bytes is at {}", slot.bytes, buffer.address),
                         .cause = "its tear-down was not told"});
        }  // else the driver has given its addresses away: its tear-down is over
    }
    const auto at = std::find_if(next->begin(), next->end(), [&](const Slot& slot) { return slot.base > base; });
    next->insert(at, Slot{base, buffer.bytes, buffer.mapped_bytes, std::move(entry)});
    publish(std::move(next));
}

void RangeRegistry::begin_tear_down(const BufferInfo& buffer) noexcept {
    if (fork_epoch() != made_in_) return;
    const std::lock_guard lock(mutex_);
    if (Buffer* const entry = find(buffer); entry != nullptr)
        entry->tearing_down.store(true, std::memory_order_release);
}

void RangeRegistry::end_tear_down(const BufferInfo& buffer) noexcept {
    if (fork_epoch() != made_in_) return;
    const std::lock_guard lock(mutex_);
    Buffer* const entry = find(buffer);
    if (entry == nullptr) return;
    entry->tearing_down.store(true, std::memory_order_release);
    entry->ended = true;
    try {
        auto next = std::make_unique<Snapshot>();
        const Snapshot& now = *current_.load(std::memory_order_relaxed);
        next->reserve(now.size());
        std::copy_if(now.begin(), now.end(), std::back_inserter(*next),
                     [](const Slot& slot) { return !slot.buffer->ended; });
        publish(std::move(next));
    } catch (const std::bad_alloc&) {
        return;  // left out of the next snapshot
    }
}

OwnedRange RangeRegistry::look_up(std::uintptr_t address, std::uint64_t bytes) const noexcept {
    const ReadGate::Reading reading(gate_);
    const Snapshot& now = *current_.load(std::memory_order_seq_cst);
    OwnedRange range;
    const auto after = std::upper_bound(now.begin(), now.end(), address,
                                        [](std::uintptr_t wanted, const Slot& slot) { return wanted < slot.base; });
    if (after == now.begin()) return range;
    const Slot& slot = *std::prev(after);
    const std::uint64_t offset = address - slot.base;
    if (offset >= slot.bytes) return range;
    range.base = reinterpret_cast<void*>(slot.base);  // NOLINT(performance-no-int-to-ptr)
    range.buffer_bytes = slot.bytes;
    range.location = slot.buffer->location;
    range.offset = offset;
    if (slot.buffer->tearing_down.load(std::memory_order_acquire)) {
        range.state = OwnedState::tearing_down;
    } else if (bytes > slot.bytes - offset) {
        const bool reaches_next = after != now.end() && after->base - address < bytes;
        range.state = reaches_next ? OwnedState::crosses_buffers : OwnedState::beyond_end;
    } else {
        range.state = OwnedState::owned;
        range.blob = slot.buffer->blob;
        range.blob.offset += offset;
        range.blob.bytes = std::max<std::uint64_t>(bytes, 1);
    }
    return range;
}

std::size_t RangeRegistry::size() const noexcept {
    const ReadGate::Reading reading(gate_);
    return current_.load(std::memory_order_seq_cst)->size();
}

}  // namespace fabricmem::detail
