// SPDX-License-Identifier: Apache-2.0
#include "cache/range_map.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

namespace fabricmem::detail {
namespace {

using PeerWords = std::array<std::uint64_t, 2>;

PeerWords words_of(const Id128& peer) noexcept {
    PeerWords words;
    std::memcpy(words.data(), peer.bytes.data(), sizeof words);
    return words;
}

std::uint64_t hash_of(const PeerWords& words) noexcept {
    const std::uint64_t mixed = (words[0] ^ std::rotl(words[1], 31)) * 0x9e3779b97f4a7c15U;
    return mixed ^ (mixed >> 32);
}

}  // namespace

// A word of a table's.
template <typename Value>
class RangeWord {
public:
    void operator=(Value value) noexcept { value_.store(value, std::memory_order_release); }
    [[nodiscard]] Value get() const noexcept { return value_.load(std::memory_order_acquire); }

private:
    std::atomic<Value> value_{};
};

struct RangeMap::Table {
    struct Peer {
        RangeWord<std::uint64_t> id[2];
        RangeWord<std::uint64_t> place;  // of its spans: the first one, and in the lower half how many; none: nobody's
    };
    struct Row {
        RangeWord<std::uint64_t> begin;
        RangeWord<std::uint64_t> end;
        RangeWord<std::uint64_t> allocation_begin;
        RangeWord<CacheSlot*> slot;
    };

    Table(std::size_t peers_most, std::size_t rows_most) : peers(peers_most), rows(rows_most) {}
    void fill(const Peers& of);
    std::size_t fill(std::size_t first, const Records& records) noexcept;

    std::vector<Peer> peers;  // by hash; a power of two, at least half of it empty
    std::vector<Row> rows;    // of a peer one after the other, by address
};

RangeMap::Span RangeMap::find(const Id128& peer, std::uint64_t address) const noexcept {
    const Table* const table = current_.load(std::memory_order_acquire);
    if (table == nullptr) return {};
    const PeerWords wanted = words_of(peer);
    const std::size_t mask = table->peers.size() - 1;
    std::size_t at = hash_of(wanted) & mask;
    std::uint64_t place = table->peers[at].place.get();
    for (std::size_t looked = 0; table->peers[at].id[0].get() != wanted[0] || table->peers[at].id[1].get() != wanted[1];
         place = table->peers[at].place.get()) {
        if (place == 0 || ++looked > mask) return {};
        at = (at + 1) & mask;
    }
    std::size_t first = place >> 32;
    std::size_t count = place & 0xffffffffU;
    if (count == 0 || first + count > table->rows.size()) return {};
    while (count > 1) {  // without a branch that could be foretold wrongly
        const std::size_t half = count / 2;
        first = table->rows[first + half].begin.get() <= address ? first + half : first;
        count -= half;
    }
    const Table::Row& row = table->rows[first];
    const Span found{row.begin.get(), row.end.get(), row.allocation_begin.get(), row.slot.get()};
    return found.begin <= address ? found : Span{};
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
    Peers next;  // before the lock: what ends, ends after it
    const std::lock_guard lock(mutex_);
    next = peers_;
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
    replace(next);
}

std::size_t RangeMap::drop(const std::function<bool(const Id128&, const RangeRecord&)>& is_over) {
    Peers next;  // before the lock, as in add()
    const std::lock_guard lock(mutex_);
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
    if (count != 0) replace(next);
    return count;
}

void RangeMap::Table::fill(const Peers& of) {
    for (Peer& peer : peers) peer.place = 0;
    std::size_t first = 0;
    for (const auto& [id, records] : of) {
        const PeerWords words = words_of(id);
        std::size_t at = hash_of(words) & (peers.size() - 1);
        while (peers[at].place.get() != 0) at = (at + 1) & (peers.size() - 1);
        const std::size_t count = fill(first, records);
        peers[at].id[0] = words[0];
        peers[at].id[1] = words[1];
        peers[at].place = (std::uint64_t{first} << 32) | count;
        first += count;
    }
}

// Returns how many rows that are.
std::size_t RangeMap::Table::fill(std::size_t first, const Records& records) noexcept {
    std::size_t count = 0;
    for (const auto& record : records) {
        Row* const last = count == 0 ? nullptr : &rows[first + count - 1];
        if (last != nullptr && last->slot.get() == record->slot &&
            last->allocation_begin.get() == record->allocation_begin && record->begin <= last->end.get()) {
            last->end = std::max(last->end.get(), record->end);
            continue;
        }
        Row& row = rows[first + count++];
        row.begin = record->begin;
        row.end = record->end;
        row.allocation_begin = record->allocation_begin;
        row.slot = record->slot;
    }
    return count;
}

// Those that are too small stay, for readers that are late: less than twice what the largest one has.
RangeMap::Table& RangeMap::table_for(const Peers& peers) {
    std::size_t records = 0;
    for (const auto& [peer, of_peer] : peers) records += of_peer.size();
    const std::size_t places = std::bit_ceil(2 * peers.size() + 1), rows = std::bit_ceil(records);
    if (unused_ == nullptr || unused_->peers.size() < places || unused_->rows.size() < rows) {
        all_.push_back(std::make_unique<Table>(places, rows));
        unused_ = all_.back().get();
    }
    return *unused_;
}

// Under the lock. Nothing has changed where it throws. `next` gets what was there, to be dropped after the lock.
void RangeMap::replace(Peers& next) {
    Table& table = table_for(next);
    table.fill(next);
    unused_ = current_.exchange(&table, std::memory_order_acq_rel);
    version_.fetch_add(1, std::memory_order_acq_rel);
    peers_.swap(next);
}

}  // namespace fabricmem::detail
