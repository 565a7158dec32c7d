// SPDX-License-Identifier: Apache-2.0
// Where peers' address ranges lie in their allocations. Readers look into a snapshot that nobody changes; writers put
// another one in its place.
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

class RangeMap {
public:
    /// Ranges of one allocation, in one piece.
    struct Span {
        std::uint64_t begin;
        std::uint64_t end;
        std::uint64_t allocation_begin;
        CacheSlot* slot;
    };
    struct Snapshot;

    /// What a reader holds while it looks.
    class Reading {
    public:
        explicit Reading(const RangeMap& map) noexcept;
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;
        ~Reading();

        /// The last span that begins at the address or before it, and the one after that; null: none.
        struct Found {
            const Span* at = nullptr;
            const Span* next = nullptr;
        };
        [[nodiscard]] Found find(const Id128& peer, std::uint64_t address) const noexcept;
        [[nodiscard]] std::uint32_t stripe() const noexcept { return stripe_; }

    private:
        const RangeMap& map_;
        std::uint32_t stripe_;
        Snapshot* snapshot_ = nullptr;
    };

    RangeMap();
    RangeMap(const RangeMap&) = delete;
    RangeMap& operator=(const RangeMap&) = delete;
    /// Nobody reads.
    ~RangeMap();

    // Any thread. Views that are dropped end under no lock of this.
    void add(const Id128& peer, RangeRecord record);
    /// Those for which `is_over` says so; it is called under the lock. Returns how many.
    std::size_t drop(const std::function<bool(const Id128& peer, const RangeRecord& record)>& is_over);
    [[nodiscard]] std::size_t count() const;

private:
    using Records = std::vector<std::shared_ptr<const RangeRecord>>;
    using Peers = std::map<Id128, Records, IdLess>;  // by begin, without overlaps

    void replace(Peers& next, Records& over);
    static void fill(Snapshot& snapshot, const Peers& peers);
    void clear(Snapshot& snapshot) const noexcept;

    mutable std::mutex mutex_;  // guards what follows, but for current_
    Peers peers_;
    std::vector<std::unique_ptr<Snapshot>> all_;
    mutable std::vector<Snapshot*> unused_;  // room for all
    std::atomic<Snapshot*> current_{nullptr};
};

}  // namespace fabricmem::detail
