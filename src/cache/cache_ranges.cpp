// SPDX-License-Identifier: Apache-2.0
// From a peer's addresses to this process's.
#include <utility>

#include "cache/cache_core.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

[[noreturn]] void refuse_address(const RangeMap::Reading::Found& found, const Id128& peer, std::uint64_t address,
                                 std::uint64_t bytes) {
    const std::string where = formatted("{} bytes at {:#x} of peer {}", bytes, address, to_string(peer));
    if (bytes == 0) refuse(where);
    const RangeMap::Span* const span = found.at;
    if (span == nullptr || address >= span->end) refuse(where + " are in no range that is known");
    const std::string range = formatted("range {:#x} to {:#x} of allocation {}", span->begin, span->end,
                                        to_string(span->slot->key.allocation_id()));
    if (found.next == nullptr || found.next->begin != span->end) refuse(where + " end after " + range);
    refuse(formatted("{} are of two allocations: {}, and {}, which is mapped elsewhere", where, range,
                     to_string(found.next->slot->key.allocation_id())));
}

}  // namespace

void CacheCore::add_range(const Id128& peer, std::uint64_t remote_address, const HandleBlob& blob) {
    if (remote_address < blob.offset || remote_address + blob.bytes < remote_address) {
        refuse(formatted("{} bytes, {} bytes from the start of their allocation, at {:#x}", blob.bytes, blob.offset,
                         remote_address));
    }
    meet(peer, blob);
    ImportView view = acquire(blob, {.peer = peer, .idle_timeout = {}});
    const ImportView keep = view;
    CacheSlot& slot = *view.slot_;
    ranges_.add(peer, {.begin = remote_address,
                       .end = remote_address + blob.bytes,
                       .allocation_begin = remote_address - blob.offset,
                       .generation = blob.generation,
                       .slot = &slot,
                       .view = std::move(view)});
    // By another thread, before it could find this range: retired, or its peer started anew.
    if (!is_live(slot)) drop_dead_ranges();
    if (is_outdated(peer, blob.generation)) drop_older_ranges(peer, blob.generation + 1);
}

bool CacheCore::remove_range(const Id128& peer, std::uint64_t remote_address) {
    return ranges_.drop([&](const Id128& of, const RangeRecord& record) {
        return of == peer && record.begin == remote_address;
    }) != 0;
}

ImportView CacheCore::translate(const Id128& peer, std::uint64_t remote_address, std::uint64_t bytes) const {
    const RangeMap::Reading reading(ranges_);
    const RangeMap::Reading::Found found = reading.find(peer, remote_address);
    const RangeMap::Span* const span = found.at;
    if (span == nullptr || bytes == 0 || remote_address >= span->end || bytes > span->end - remote_address) [[unlikely]]
        refuse_address(found, peer, remote_address, bytes);
    CacheSlot& slot = *span->slot;  // kept by the range, which is kept by what is read
    if (!slot.refs.try_take(reading.stripe(), StripedRefs::As::reference)) [[unlikely]]
        take_of_range(slot, reading.stripe());
    return {slot, reading.stripe(), slot.base + (remote_address - span->allocation_begin), bytes};
}

// Closed for good, or for a moment by who looks whether it is in use.
void CacheCore::take_of_range(CacheSlot& slot, std::uint32_t stripe) const {
    const std::lock_guard lock(mutex_);
    if (slot.refs.try_take(stripe, StripedRefs::As::reference)) return;
    refuse(formatted("the range is of allocation {}, which was retired a moment ago",
                     to_string(slot.key.allocation_id())));
}

}  // namespace fabricmem::detail
