// SPDX-License-Identifier: Apache-2.0
// What an arena and its blocks share, for as long as there is one of them: the buffer, and which piece of it is whose.
// Under its locks there is no call of the driver's, no log line and no allocation.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include <fabricmem/arena.hpp>

#include "arena/arena_lock.hpp"
#include "arena/pieces.hpp"

namespace fabricmem::detail {

/// On the heap, and deletes itself: with the arena, or with the last block where that comes later. Members may be
/// called from any thread.
///
/// Pool 0 has the whole range, and all blocks for as long as threads do not meet at its lock. Those that do wait for
/// one another's cache lines at the least, so a large arena has pools for smaller blocks beside it: a thread that finds
/// pool 0 locked turns to one for a while. It leases chunks of pool 0 and gives those back that are free as a whole,
/// but what is free at their ends can't be joined meanwhile. Where a pool has no room, and gets no chunk, the others
/// are tried whose locks are free, and then all are looked through.
class ArenaCore {
public:
    static constexpr std::uint64_t kUnitBytes = 64;
    static constexpr std::uint32_t kBlocksMax = std::uint32_t{1} << 24;

    enum class Outcome : std::uint8_t { taken, no_room, too_many };
    struct Grant {
        Outcome outcome = Outcome::no_room;
        std::uint32_t pool = 0;
        std::uint32_t piece = 0;
        std::uint64_t offset = 0;  // bytes
    };

    /// Throws as Arena's constructor.
    ArenaCore(FabricBuffer buffer, const ArenaOptions& options);
    ArenaCore(const ArenaCore&) = delete;
    ArenaCore& operator=(const ArenaCore&) = delete;

    // Not in a forked child, where a thread of the parent's may hold a lock for ever.
    /// Sizes were checked. `if_refused`, where not null, gets the figures of the moment of a refusal.
    [[nodiscard]] Grant take(std::uint64_t bytes, std::uint64_t alignment_bytes, ArenaStatistics* if_refused) noexcept;
    [[nodiscard]] ArenaStatistics statistics() noexcept;

    /// The end of a block: of the core too where it was the last owner. In a forked child nothing.
    void give_back(std::uint32_t pool, std::uint32_t piece, std::uint64_t asked_bytes) noexcept;
    /// The end of the arena, likewise.
    void end_arena() noexcept;

    [[nodiscard]] bool forked() const noexcept;
    /// Moved from by Arena::close(), which ends the core next.
    [[nodiscard]] FabricBuffer& buffer() noexcept { return buffer_; }
    [[nodiscard]] const FabricBuffer& buffer() const noexcept { return buffer_; }
    [[nodiscard]] const HandleBlob& blob() const noexcept { return blob_; }
    [[nodiscard]] void* at(std::uint64_t offset) const noexcept { return static_cast<std::byte*>(base_) + offset; }
    [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return blob_.bytes; }
    [[nodiscard]] std::uint64_t granularity() const noexcept { return granularity_; }
    [[nodiscard]] std::uint32_t max_blocks() const noexcept { return max_blocks_; }

private:
    struct Request {
        std::uint64_t bytes;
        std::uint64_t units;
        std::uint64_t alignment;  // units
    };
    struct Pool {
        explicit Pool(std::uint64_t used_max) : pieces(used_max) {}

        std::atomic<std::uint32_t> turns{0};  // for how many blocks pool 0 is not tried; any thread
        ArenaLock lock;                       // guards all below; pool 0's is the last to be taken
        bool orphaned = false;                // the arena is gone
        std::uint32_t credit = 0;             // blocks that may still be made here; pool 0's is what no other pool has
        std::uint64_t asked_bytes = 0;
        std::uint64_t reserved_units = 0;  // by blocks
        std::uint64_t leased_units = 0;    // from pool 0
        Pieces pieces;
    };
    class AllLocks;

    ~ArenaCore() = default;

    void make_pools();
    [[nodiscard]] Pool& main() const noexcept { return *pools_.front(); }
    [[nodiscard]] std::uint32_t pool_for(const Request& request) const noexcept;
    [[nodiscard]] bool take_without_wait(Pool& own, const Request& request, Grant& grant) noexcept;
    [[nodiscard]] bool take_from_others(std::uint32_t own, const Request& request, Grant& grant) noexcept;
    // With the pool's lock; those that say "main" take pool 0's too where it is another.
    [[nodiscard]] bool take_from(std::uint32_t number, const Request& request, Grant& grant) noexcept;
    [[nodiscard]] bool has_credit_of_main(Pool& pool) noexcept;
    [[nodiscard]] bool leases_from_main(Pool& pool) noexcept;
    void return_surplus_to_main(Pool& pool) noexcept;
    // With the pool's lock and pool 0's.
    [[nodiscard]] bool return_chunk(Pool& pool) noexcept;
    // With all locks.
    [[nodiscard]] Grant take_from_any(std::uint32_t first, const Request& request,
                                      ArenaStatistics* if_refused) noexcept;
    void gather() noexcept;
    [[nodiscard]] ArenaStatistics figures() const noexcept;

    void drop_owner() noexcept;
    void leave() noexcept;

    // Nobody changes these.
    void* base_;
    std::uint64_t granularity_;
    std::uint64_t made_in_;
    std::uint32_t max_blocks_;
    std::uint64_t chunk_units_ = 0;  // 0: there is pool 0 alone
    HandleBlob blob_;                // of all that is mapped
    FabricBuffer buffer_;
    std::vector<std::unique_ptr<Pool>> pools_;

    std::vector<std::uint32_t> leases_;     // pool 0's piece by the chunk's number; guarded by pool 0's lock
    std::atomic<std::uint64_t> owners_{0};  // counted once the arena is gone
    std::atomic<bool> left_{false};
};

}  // namespace fabricmem::detail
