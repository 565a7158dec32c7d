// SPDX-License-Identifier: Apache-2.0
#include "arena/arena_core.hpp"

#include <algorithm>
#include <bit>
#include <mutex>
#include <utility>

#include "platform/fork_epoch.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::uint32_t kThreadPools = 8;
// A chunk is the arena's 128th or less: what a pool keeps for itself is little beside the whole.
constexpr std::uint64_t kChunksLeast = 128;
constexpr std::uint64_t kChunkUnitsLeast = (std::uint64_t{512} << 10) / ArenaCore::kUnitBytes;
constexpr std::uint64_t kChunkUnitsMost = (std::uint64_t{16} << 20) / ArenaCore::kUnitBytes;
constexpr std::uint64_t kBlocksInChunkLeast = 8;  // a larger block is pool 0's
constexpr std::uint32_t kCreditBatch = 64;
constexpr std::uint32_t kTurns = 65'536;  // turning back has threads meet again

std::uint64_t units_for(std::uint64_t bytes) noexcept {
    return (bytes + ArenaCore::kUnitBytes - 1) / ArenaCore::kUnitBytes;
}

HandleBlob of_all_that_is_mapped(HandleBlob blob) noexcept {
    blob.bytes = blob.mapped_bytes;
    return blob;
}

// Threads are numbered as they come, so that threads made together are in pools of their own.
std::uint32_t thread_number() noexcept {
    static constinit std::atomic<std::uint32_t> last{0};
    static constinit thread_local std::uint32_t number = 0;
    if (number == 0) number = last.fetch_add(1, std::memory_order_relaxed) + 1;
    return number;
}

}  // namespace

class ArenaCore::AllLocks {
public:
    explicit AllLocks(const ArenaCore& core) noexcept : pools_(core.pools_) {
        for (std::size_t i = pools_.size(); i-- > 0;) pools_[i]->lock.lock();
    }
    AllLocks(const AllLocks&) = delete;
    AllLocks& operator=(const AllLocks&) = delete;
    ~AllLocks() {
        for (const auto& pool : pools_) pool->lock.unlock();
    }

private:
    const std::vector<std::unique_ptr<Pool>>& pools_;
};

ArenaCore::ArenaCore(FabricBuffer buffer, const ArenaOptions& options)
    : base_(buffer.address()),
      granularity_(buffer.granularity()),
      made_in_(fork_epoch()),
      max_blocks_(options.max_blocks),
      blob_(of_all_that_is_mapped(buffer.blob())),
      buffer_(std::move(buffer)) {
    make_pools();
}

void ArenaCore::make_pools() {
    const std::uint64_t units = capacity_bytes() / kUnitBytes;
    const std::uint64_t chunk = std::min(std::bit_floor(units / kChunksLeast), kChunkUnitsMost);
    if (chunk >= kChunkUnitsLeast) {
        chunk_units_ = chunk;
        leases_.resize(units / chunk);
    }
    pools_.push_back(std::make_unique<Pool>(max_blocks_ + leases_.size()));
    main().credit = max_blocks_;
    main().pieces.add(0, units);
    if (chunk_units_ == 0) return;
    for (std::uint32_t i = 0; i < kThreadPools; ++i) pools_.push_back(std::make_unique<Pool>(max_blocks_));
}

std::uint32_t ArenaCore::pool_for(const Request& request) const noexcept {
    if (std::max(request.units, request.alignment) > chunk_units_ / kBlocksInChunkLeast) return 0;
    return 1 + thread_number() % kThreadPools;
}

ArenaCore::Grant ArenaCore::take(std::uint64_t bytes, std::uint64_t alignment_bytes,
                                 ArenaStatistics* if_refused) noexcept {
    const Request request{bytes, units_for(bytes), units_for(alignment_bytes)};
    const std::uint32_t number = pool_for(request);
    Pool& pool = *pools_[number];
    Grant grant;
    if (number != 0 && take_without_wait(pool, request, grant)) return grant;
    {
        const std::lock_guard lock(pool.lock);
        if (has_credit_of_main(pool)) {
            if (take_from(number, request, grant)) return grant;
            if (leases_from_main(pool) && take_from(number, request, grant)) return grant;
        }
    }
    if (take_from_others(number, request, grant)) return grant;
    const AllLocks locks(*this);
    return take_from_any(number, request, if_refused);
}

// From pool 0, unless it is locked or was shortly before. `own` is the pool that it is to be else.
bool ArenaCore::take_without_wait(Pool& own, const Request& request, Grant& grant) noexcept {
    if (const std::uint32_t turns = own.turns.load(std::memory_order_relaxed); turns != 0) {
        own.turns.store(turns - 1, std::memory_order_relaxed);
        return false;
    }
    const std::unique_lock lock(main().lock, std::try_to_lock);
    if (!lock.owns_lock()) own.turns.store(kTurns, std::memory_order_relaxed);
    return lock.owns_lock() && main().credit != 0 && take_from(0, request, grant);
}

// One lock at a time, and none that is waited for: a pool that is out of room is no rare thing where most of the arena
// is taken, and all locks at once stop everybody.
bool ArenaCore::take_from_others(std::uint32_t own, const Request& request, Grant& grant) noexcept {
    const auto count = static_cast<std::uint32_t>(pools_.size());
    for (std::uint32_t i = 1; i < count; ++i) {
        const std::uint32_t number = (own + i) % count;
        Pool& pool = *pools_[number];
        const std::unique_lock lock(pool.lock, std::try_to_lock);
        if (lock.owns_lock() && has_credit_of_main(pool) && take_from(number, request, grant)) return true;
    }
    return false;
}

bool ArenaCore::take_from(std::uint32_t number, const Request& request, Grant& grant) noexcept {
    Pool& pool = *pools_[number];
    const Pieces::Taken taken = pool.pieces.take(request.units, request.alignment);
    if (taken.piece == Pieces::kNone) return false;
    --pool.credit;
    pool.asked_bytes += request.bytes;
    pool.reserved_units += request.units;
    grant = {Outcome::taken, number, taken.piece, taken.begin * kUnitBytes};
    return true;
}

bool ArenaCore::has_credit_of_main(Pool& pool) noexcept {
    if (pool.credit != 0) return true;
    if (&pool == &main()) return false;
    const std::lock_guard lock(main().lock);
    pool.credit = std::min(main().credit, kCreditBatch);
    main().credit -= pool.credit;
    return pool.credit != 0;
}

bool ArenaCore::leases_from_main(Pool& pool) noexcept {
    if (&pool == &main()) return false;
    const std::lock_guard lock(main().lock);
    const Pieces::Taken chunk = main().pieces.take(chunk_units_, chunk_units_);
    if (chunk.piece == Pieces::kNone) return false;
    leases_[chunk.begin / chunk_units_] = chunk.piece;
    pool.leased_units += chunk_units_;
    pool.pieces.add(chunk.begin, chunk_units_);
    return true;
}

bool ArenaCore::return_chunk(Pool& pool) noexcept {
    const Pieces::Taken whole = pool.pieces.take(chunk_units_, chunk_units_);
    if (whole.piece == Pieces::kNone) return false;
    pool.pieces.remove(whole.piece);
    pool.leased_units -= chunk_units_;
    main().pieces.give_back(leases_[whole.begin / chunk_units_]);
    return true;
}

// Keeps some, so that a block made and freed again and again does not go to pool 0 each time.
void ArenaCore::return_surplus_to_main(Pool& pool) noexcept {
    const bool has_chunk =
        pool.leased_units - pool.reserved_units >= 2 * chunk_units_ && pool.pieces.largest_is(chunk_units_);
    const bool has_credit = pool.credit >= 3 * kCreditBatch;
    if (!has_chunk && !has_credit) return;
    const std::lock_guard lock(main().lock);
    if (has_chunk) static_cast<void>(return_chunk(pool));
    if (!has_credit) return;
    pool.credit -= kCreditBatch;
    main().credit += kCreditBatch;
}

void ArenaCore::gather() noexcept {
    for (const auto& pool : pools_) {
        if (pool == pools_.front()) continue;
        main().credit += std::exchange(pool->credit, 0);
        while (return_chunk(*pool)) {
        }
    }
}

ArenaCore::Grant ArenaCore::take_from_any(std::uint32_t first, const Request& request,
                                          ArenaStatistics* if_refused) noexcept {
    gather();
    Grant grant;
    if (main().credit == 0) {
        grant.outcome = Outcome::too_many;
    } else {
        const auto count = static_cast<std::uint32_t>(pools_.size());
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t number = (first + i) % count;
            --main().credit;
            ++pools_[number]->credit;
            if (take_from(number, request, grant)) return grant;
            --pools_[number]->credit;
            ++main().credit;
        }
    }
    if (if_refused != nullptr) *if_refused = figures();
    return grant;
}

void ArenaCore::give_back(std::uint32_t number, std::uint32_t piece, std::uint64_t asked_bytes) noexcept {
    if (forked()) {
        leave();
        return;
    }
    Pool& pool = *pools_[number];
    bool orphaned = false;
    {
        const std::lock_guard lock(pool.lock);
        pool.reserved_units -= pool.pieces.give_back(piece);
        pool.asked_bytes -= asked_bytes;
        ++pool.credit;
        orphaned = pool.orphaned;
        if (number != 0) return_surplus_to_main(pool);
    }
    if (orphaned) drop_owner();
}

// Until now the blocks were counted by the pools alone.
void ArenaCore::end_arena() noexcept {
    if (forked()) {
        leave();
        return;
    }
    {
        const AllLocks locks(*this);
        owners_ = figures().live_blocks + 1;  // this call too, until it has unlocked
        for (const auto& pool : pools_) pool->orphaned = true;
    }
    drop_owner();
}

void ArenaCore::drop_owner() noexcept {
    if (owners_.fetch_sub(1) == 1) delete this;
}

ArenaStatistics ArenaCore::statistics() noexcept {
    const AllLocks locks(*this);
    gather();
    return figures();
}

bool ArenaCore::forked() const noexcept { return fork_epoch() != made_in_; }

ArenaStatistics ArenaCore::figures() const noexcept {
    ArenaStatistics figures;
    figures.capacity_bytes = capacity_bytes();
    figures.live_blocks = max_blocks_;
    for (const auto& pool : pools_) {
        figures.live_blocks -= pool->credit;
        figures.asked_bytes += pool->asked_bytes;
        figures.reserved_bytes += pool->reserved_units * kUnitBytes;
        figures.largest_free_bytes = std::max(figures.largest_free_bytes, pool->pieces.largest_free() * kUnitBytes);
    }
    figures.free_bytes = figures.capacity_bytes - figures.reserved_bytes;
    return figures;
}

// How many owners a child's copy has, it can't know: another thread may have been counting at the fork.
void ArenaCore::leave() noexcept {
    if (!left_.exchange(true)) leave_to_parent(this);
}

}  // namespace fabricmem::detail
