// SPDX-License-Identifier: Apache-2.0
// Where peers' address ranges lie in their allocations. Readers look at what writers do not change meanwhile, or see
// that they did; writers wait for no reader.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <fabricmem/import_cache.hpp>

#include "cache/cache_slot.hpp"

namespace fabricmem::detail {

/// A range that was announced. Its view keeps the import.
struct RangeRecord {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t allocation_begin = 0;  // in the peer's addresses
    std::uint64_t generation = 0;        // the peer's
    CacheSlot* slot = nullptr;
    ImportView view;
};

/// Two tables take turns: one is looked at while the other one is filled. A reader whose table is filled anew meanwhile
/// reads what is wrong, but nothing that is not there: tables are not freed before the map, and are as large as they
/// were made. It is told by the version, which has moved on by then:
///
/// - A table is filled again only after the version that took it out of use, and each word of it is stored by a release
///   and loaded by an acquire. So who reads one new word sees that version too, where it looks at the version
///   afterwards.
/// - While a version stands the views of its ranges are kept. So a slot that was found under it, and the version looked
///   at again after a reference was taken there, is the slot of that range.
class RangeMap {
public:
    /// Ranges of one allocation, in one piece.
    struct Span {
        std::uint64_t begin = 0;
        std::uint64_t end = 0;
        std::uint64_t allocation_begin = 0;
        CacheSlot* slot = nullptr;  // null: there is none

        [[nodiscard]] bool has(std::uint64_t address, std::uint64_t bytes) const noexcept {
            return slot != nullptr && bytes != 0 && address < end && bytes <= end - address;
        }
    };

    RangeMap();
    RangeMap(const RangeMap&) = delete;
    RangeMap& operator=(const RangeMap&) = delete;
    /// Nobody reads.
    ~RangeMap();

    // Any thread.

    /// The last span that begins at the address or before it. Under hold(), or to be held to a version() of before.
    [[nodiscard]] Span find(const Id128& peer, std::uint64_t address) const noexcept;
    [[nodiscard]] std::uint64_t version() const noexcept { return version_.load(std::memory_order_acquire); }
    /// While it lives nothing changes.
    [[nodiscard]] std::unique_lock<std::mutex> hold() const { return std::unique_lock(mutex_); }

    // Views that are dropped end under no lock of this.
    void add(const Id128& peer, RangeRecord record);
    /// Those for which `is_over` says so; it is called under the lock. Returns how many.
    std::size_t drop(const std::function<bool(const Id128& peer, const RangeRecord& record)>& is_over);
    [[nodiscard]] std::size_t count() const;

private:
    struct Table;
    using Records = std::vector<std::shared_ptr<const RangeRecord>>;
    using Peers = std::map<Id128, Records, IdLess>;  // by begin, without overlaps

    void replace(Peers& next);
    [[nodiscard]] Table& table_for(const Peers& peers);

    mutable std::mutex mutex_;  // guards what follows, but for the atomics
    Peers peers_;
    std::vector<std::unique_ptr<Table>> all_;  // those that became too small, too
    Table* unused_ = nullptr;
    std::atomic<Table*> current_{nullptr};
    std::atomic<std::uint64_t> version_{0};
};

}  // namespace fabricmem::detail
