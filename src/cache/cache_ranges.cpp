// SPDX-License-Identifier: Apache-2.0
// From a peer's addresses to this process's.
#include <utility>

#include "cache/cache_core.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

// While ranges come and go without end.
constexpr int kTranslations = 4;

// Under the map's lock.
[[noreturn]] void refuse_address(const RangeMap& ranges, const Id128& peer, std::uint64_t address,
                                 std::uint64_t bytes) {
    const std::string where = formatted("{} bytes at {:#x} of peer {}", bytes, address, to_string(peer));
    if (bytes == 0) refuse(where);
    const RangeMap::Span span = ranges.find(peer, address);
    if (!span.has(address, 1)) refuse(where + " are in no range that is known");
    const std::string range = formatted("range {:#x} to {:#x} of allocation {}", span.begin, span.end,
                                        to_string(span.slot->key.allocation_id()));
    const RangeMap::Span next = ranges.find(peer, span.end);
    if (!next.has(span.end, 1)) refuse(where + " end after " + range);
    refuse(formatted("{} are of two allocations: {}, and {}, which is mapped elsewhere", where, range,
                     to_string(next.slot->key.allocation_id())));
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
    const std::uint32_t stripe = stripe_of_thread();
    for (int tries = 0; tries < kTranslations; ++tries) {
        const std::uint64_t version = ranges_.version();
        const RangeMap::Span span = ranges_.find(peer, remote_address);
        if (!span.has(remote_address, bytes) || !span.slot->refs.try_take(stripe, StripedRefs::As::reference))
            [[unlikely]]
            break;  // perhaps, and to be said in words
        if (ranges_.version() == version) [[likely]]
            return {*span.slot, stripe, span.slot->base + (remote_address - span.allocation_begin), bytes};
        let_go(*span.slot, stripe);  // of what may be another import by now
    }
    return translate_slowly(peer, remote_address, bytes);
}

// Where all is as it is, whatever others write.
ImportView CacheCore::translate_slowly(const Id128& peer, std::uint64_t remote_address, std::uint64_t bytes) const {
    const auto held = ranges_.hold();
    const RangeMap::Span span = ranges_.find(peer, remote_address);
    if (!span.has(remote_address, bytes)) refuse_address(ranges_, peer, remote_address, bytes);
    CacheSlot& slot = *span.slot;
    const std::uint32_t stripe = stripe_of_thread();
    const std::lock_guard lock(mutex_);
    // Closed for good, or was for a moment by who looked whether it is in use.
    if (!slot.refs.try_take(stripe, StripedRefs::As::reference)) {
        refuse(formatted("the range is of allocation {}, which was retired a moment ago",
                         to_string(slot.key.allocation_id())));
    }
    return {slot, stripe, slot.base + (remote_address - span.allocation_begin), bytes};
}

}  // namespace fabricmem::detail
