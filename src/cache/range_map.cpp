// SPDX-License-Identifier: Apache-2.0
#include "cache/range_map.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace fabricmem::detail {
namespace {

std::uint64_t hash_of_peer(const Id128& peer) noexcept {
    std::uint64_t words[2];
    std::memcpy(words, peer.bytes.data(), sizeof words);
    const std::uint64_t mixed = (words[0] ^ std::rotl(words[1], 31)) * 0x9e3779b97f4a7c15U;
    return mixed ^ (mixed >> 32);
}

}  // namespace

// Not freed before the map, as CacheSlots are not: a reader that comes late to one counts in it all the same, and where
// it is in use again by then, it is as good.
struct RangeMap::Snapshot {
    struct Peer {
        Id128 id;
        std::uint32_t first = 0;
        std::uint32_t count = 0;  // 0: none here
    };

    StripedRefs refs;
    // Written while nobody has a reference.
    std::vector<Peer> peers;  // by hash; a power of two, half of it empty
    std::vector<Span> spans;  // of a peer one after the other, by address
    Records records;          // keeps the slots of the spans
};

RangeMap::Reading::Reading(const RangeMap& map) noexcept : map_(map), stripe_(stripe_of_thread()) {
    do {
        // Acquire: a snapshot's counter is there before it can be seen. One that is closed was replaced just now.
        snapshot_ = map_.current_.load(std::memory_order_acquire);
    } while (snapshot_ != nullptr && !snapshot_->refs.try_take(stripe_, StripedRefs::As::reference));
}

RangeMap::Reading::~Reading() {
    if (snapshot_ != nullptr && snapshot_->refs.give_back(stripe_)) map_.clear(*snapshot_);
}

RangeMap::Reading::Found RangeMap::Reading::find(const Id128& peer, std::uint64_t address) const noexcept {
    if (snapshot_ == nullptr || snapshot_->peers.empty()) return {};
    const std::vector<Snapshot::Peer>& peers = snapshot_->peers;
    std::size_t at = hash_of_peer(peer) & (peers.size() - 1);
    while (peers[at].count != 0 && peers[at].id != peer) at = (at + 1) & (peers.size() - 1);
    const Span* const first = snapshot_->spans.data() + peers[at].first;
    const Span* const last = first + peers[at].count;
    const Span* const after = std::upper_bound(
        first, last, address, [](std::uint64_t wanted, const Span& span) { return wanted < span.begin; });
    return {after == first ? nullptr : after - 1, after == last ? nullptr : after};
}

RangeMap::RangeMap() = default;
RangeMap::~RangeMap() = default;

std::size_t RangeMap::count() const {
    const std::lock_guard lock(mutex_);
    std::size_t count = 0;
    for (const auto& [peer, records] : peers_) count += records.size();
    return count;
}

void RangeMap::add(const Id128& peer, RangeRecord record) {
    const auto made = std::make_shared<const RangeRecord>(std::move(record));
    Records over;  // before the lock: what ends, ends after it
    const std::lock_guard lock(mutex_);
    Peers next = peers_;
    Records& records = next[peer];
    const auto is_over = [&](const auto& other) {
        const bool overlaps = other->begin < made->end && made->begin < other->end;
        const bool same = other->slot == made->slot && other->allocation_begin == made->allocation_begin;
        return overlaps && (!same || other->begin == made->begin);
    };
    records.erase(std::remove_if(records.begin(), records.end(), is_over), records.end());
    records.insert(std::upper_bound(records.begin(), records.end(), made,
                                    [](const auto& one, const auto& two) { return one->begin < two->begin; }),
                   made);
    replace(next, over);
}

std::size_t RangeMap::drop(const std::function<bool(const Id128&, const RangeRecord&)>& is_over) {
    Records over;
    const std::lock_guard lock(mutex_);
    Peers next;
    std::size_t count = 0;
    for (const auto& [peer, records] : peers_) {
        Records kept;
        for (const auto& record : records) {
            if (is_over(peer, *record)) {
                ++count;
            } else {
                kept.push_back(record);
            }
        }
        if (!kept.empty()) next.emplace(peer, std::move(kept));
    }
    if (count != 0) replace(next, over);
    return count;
}

void RangeMap::fill(Snapshot& snapshot, const Peers& peers) {
    snapshot.peers.assign(std::bit_ceil(2 * peers.size()), {});
    snapshot.spans.clear();
    for (const auto& [id, records] : peers) {
        std::size_t at = hash_of_peer(id) & (snapshot.peers.size() - 1);
        while (snapshot.peers[at].count != 0) at = (at + 1) & (snapshot.peers.size() - 1);
        const std::size_t first = snapshot.spans.size();
        for (const auto& record : records) {
            Span* const last = snapshot.spans.size() == first ? nullptr : &snapshot.spans.back();
            const bool joins = last != nullptr && last->slot == record->slot &&
                               last->allocation_begin == record->allocation_begin && record->begin <= last->end;
            if (joins) {
                last->end = std::max(last->end, record->end);
            } else {
                snapshot.spans.push_back({record->begin, record->end, record->allocation_begin, record->slot});
            }
        }
        snapshot.peers[at] = {id, static_cast<std::uint32_t>(first),
                              static_cast<std::uint32_t>(snapshot.spans.size() - first)};
    }
}

// Under the lock. Nothing has changed where it throws. `over` gets what is to be dropped after the lock.
void RangeMap::replace(Peers& next, Records& over) {
    if (unused_.empty()) {
        unused_.reserve(all_.size() + 1);
        all_.push_back(std::make_unique<Snapshot>());
        unused_.push_back(all_.back().get());
    }
    Snapshot& snapshot = *unused_.back();
    fill(snapshot, next);
    Records all;
    for (const auto& [peer, records] : next) all.insert(all.end(), records.begin(), records.end());
    // Nothing can fail from here on.
    snapshot.records.swap(all);
    unused_.pop_back();
    const std::uint32_t stripe = stripe_of_thread();
    snapshot.refs.open(stripe);
    Snapshot* const before = current_.exchange(&snapshot, std::memory_order_acq_rel);
    static_cast<void>(snapshot.refs.give_back(stripe));
    peers_.swap(next);
    if (before == nullptr || !before->refs.close()) return;  // else a reader has it, and clears it
    over.swap(before->records);
    unused_.push_back(before);
}

void RangeMap::clear(Snapshot& snapshot) const noexcept {
    Records over;
    const std::lock_guard lock(mutex_);
    over.swap(snapshot.records);
    unused_.push_back(&snapshot);
}

}  // namespace fabricmem::detail
