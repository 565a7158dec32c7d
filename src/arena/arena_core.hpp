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
/// Pool 0 has the whole range, and all blocks for as long as one thread allocates. Threads that share a pool wait for
/// one another's cache lines at the least, so a large arena has pools for the smaller blocks of other threads beside
/// it. They lease chunks of pool 0 and give those back that are free as a whole, but what is free at their ends can't
/// be joined meanwhile. Where a pool has no room, and gets no chunk, all are looked through.
///
/// A block that ends in a thread of another pool is left on a string of its pool's, without its lock, and counts as
/// live until the pool takes it in: a few at a time, all of them before a block is refused or figures are told.
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

    /// The end of a block: of the core too where it was the last owner. In a forked child nothing, and false.
    bool give_back(std::uint32_t pool, std::uint32_t piece, std::uint64_t asked_bytes) noexcept;
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
    // Aligned so that what other threads write to does not share a cache line with what the pool's own does.
    struct alignas(64) Pool {
        explicit Pool(std::uint64_t used_max) : pieces(used_max) {}

        // How many pieces were left by other threads, and the last of them in the lower half; any thread.
        std::atomic<std::uint64_t> left{0};
        std::atomic<std::uint32_t> donor{0};  // the pool that had room when this one had none; any thread

        alignas(64) ArenaLock lock;     // guards all below; pool 0's is the last to be taken
        bool orphaned = false;          // the arena is gone, and nothing is left any more
        std::uint32_t string = 0;       // pieces to take in, which were left before
        std::uint32_t until_look = 0;   // takes until `left` is looked at
        std::uint32_t until_lease = 0;  // takes without room until pool 0 is asked for a chunk again
        std::uint32_t credit = 0;       // blocks that may still be made here; pool 0's is what no other pool has
        std::uint64_t asked_bytes = 0;
        std::uint64_t reserved_units = 0;  // by blocks
        std::uint64_t leased_units = 0;    // from pool 0
        Pieces pieces;
    };
    class AllLocks;

    ~ArenaCore() = default;

    void make_pools();
    [[nodiscard]] Pool& main() const noexcept { return *pools_.front(); }
    [[nodiscard]] std::uint32_t pool_of_thread() noexcept;
    [[nodiscard]] std::uint32_t pool_for(const Request& request) noexcept;
    [[nodiscard]] bool locks_to_give_back(std::uint32_t number) noexcept;
    [[nodiscard]] static bool leave_to(Pool& pool, std::uint32_t piece, std::uint64_t asked_bytes) noexcept;
    [[nodiscard]] bool take_from_another(Pool& own, const Request& request, Grant& grant) noexcept;
    // With the pool's lock; those that say "main" take pool 0's too where it is another.
    static void free_piece(Pool& pool, std::uint32_t piece, std::uint64_t slack_bytes) noexcept;
    static void take_in_some(Pool& pool) noexcept;
    static void take_in_all(Pool& pool) noexcept;
    static void take_in_string(Pool& pool, std::uint32_t most) noexcept;
    [[nodiscard]] bool take_from_own(std::uint32_t number, const Request& request, Grant& grant) noexcept;
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
    std::atomic<std::uint32_t> first_thread_{0};  // whose pool is pool 0

    std::vector<std::uint32_t> leases_;     // pool 0's piece by the chunk's number; guarded by pool 0's lock
    std::atomic<std::uint64_t> owners_{0};  // counted once the arena is gone
    std::atomic<bool> left_{false};
};

}  // namespace fabricmem::detail
