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
constexpr std::uint32_t kTakenInAtOnce = 2;                  // more than one is left for each that is taken, on average
constexpr std::uint32_t kTakesPerLook = 16;                  // looking costs a cache line of another thread's
constexpr std::uint32_t kTakesPerLease = 64;                 // after one that failed
constexpr std::uint64_t kLeftMost = 256;                     // more of them wait for a pool that nobody allocates from
constexpr std::uint64_t kNothingIsLeft = ~std::uint64_t{0};  // in `left`: not any more

std::uint64_t units_for(std::uint64_t bytes) noexcept {
    return (bytes + ArenaCore::kUnitBytes - 1) / ArenaCore::kUnitBytes;
}

std::uint64_t slack_of(std::uint64_t bytes) noexcept { return units_for(bytes) * ArenaCore::kUnitBytes - bytes; }

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

// The first thread that allocates has the whole: where it stays alone nothing is cut up.
std::uint32_t ArenaCore::pool_of_thread() noexcept {
    const std::uint32_t number = thread_number();
    std::uint32_t first = first_thread_.load(std::memory_order_relaxed);
    if (first == 0 && first_thread_.compare_exchange_strong(first, number)) return 0;
    return first == number ? 0 : 1 + number % kThreadPools;
}

std::uint32_t ArenaCore::pool_for(const Request& request) noexcept {
    if (std::max(request.units, request.alignment) > chunk_units_ / kBlocksInChunkLeast) return 0;
    return pool_of_thread();
}

ArenaCore::Grant ArenaCore::take(std::uint64_t bytes, std::uint64_t alignment_bytes,
                                 ArenaStatistics* if_refused) noexcept {
    const Request request{bytes, units_for(bytes), units_for(alignment_bytes)};
    const std::uint32_t number = pool_for(request);
    Pool& pool = *pools_[number];
    Grant grant;
    {
        const std::lock_guard lock(pool.lock);
        take_in_some(pool);
        if (take_from_own(number, request, grant)) return grant;
    }
    if (take_from_another(pool, request, grant)) return grant;
    const AllLocks locks(*this);
    return take_from_any(number, request, if_refused);
}

bool ArenaCore::take_from_own(std::uint32_t number, const Request& request, Grant& grant) noexcept {
    Pool& pool = *pools_[number];
    if (has_credit_of_main(pool) && take_from(number, request, grant)) return true;
    take_in_all(pool);
    if (!has_credit_of_main(pool)) return false;
    if (take_from(number, request, grant)) return true;
    return leases_from_main(pool) && take_from(number, request, grant);
}

// One after the other, so that the rest of the threads go on.
bool ArenaCore::take_from_another(Pool& own, const Request& request, Grant& grant) noexcept {
    const auto count = static_cast<std::uint32_t>(pools_.size());
    const std::uint32_t donor = own.donor.load(std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t number = (donor + i) % count;
        Pool& other = *pools_[number];
        if (&other == &own) continue;
        const std::lock_guard lock(other.lock);
        take_in_all(other);
        if (!has_credit_of_main(other) || !take_from(number, request, grant)) continue;
        own.donor.store(number, std::memory_order_relaxed);
        return true;
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
    if (pool.until_lease != 0) {
        --pool.until_lease;
        return false;
    }
    const std::lock_guard lock(main().lock);
    take_in_all(main());
    const Pieces::Taken chunk = main().pieces.take(chunk_units_, chunk_units_);
    if (chunk.piece == Pieces::kNone) {
        pool.until_lease = kTakesPerLease;
        return false;
    }
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
    for (const auto& pool : pools_) take_in_all(*pool);
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

// The pool of another thread is not locked: it is left to it to take the piece in. Unless it does not do so.
bool ArenaCore::locks_to_give_back(std::uint32_t number) noexcept {
    Pool& pool = *pools_[number];
    if (chunk_units_ == 0 || pool.left.load(std::memory_order_relaxed) >> 32 >= kLeftMost) return pool.lock.try_lock();
    if (number != pool_of_thread()) return false;
    pool.lock.lock();
    return true;
}

bool ArenaCore::leave_to(Pool& pool, std::uint32_t piece, std::uint64_t asked_bytes) noexcept {
    std::uint64_t left = pool.left.load(std::memory_order_relaxed);
    do {
        if (left == kNothingIsLeft) return false;
        pool.pieces.string(piece, static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(slack_of(asked_bytes)));
    } while (!pool.left.compare_exchange_weak(left, ((left >> 32) + 1) << 32 | piece, std::memory_order_release,
                                              std::memory_order_relaxed));
    return true;
}

bool ArenaCore::give_back(std::uint32_t number, std::uint32_t piece, std::uint64_t asked_bytes) noexcept {
    if (forked()) {
        leave();
        return false;
    }
    Pool& pool = *pools_[number];
    pool.pieces.expect(piece);
    if (!locks_to_give_back(number)) {
        if (leave_to(pool, piece, asked_bytes)) return true;  // and the core may be gone
        pool.lock.lock();
    }
    bool orphaned = false;
    {
        const std::lock_guard lock(pool.lock, std::adopt_lock);
        free_piece(pool, piece, slack_of(asked_bytes));
        orphaned = pool.orphaned;
        if (pool.left.load(std::memory_order_relaxed) >> 32 >= kLeftMost) take_in_all(pool);
        if (number != 0) return_surplus_to_main(pool);
    }
    if (orphaned) drop_owner();
    return true;
}

void ArenaCore::free_piece(Pool& pool, std::uint32_t piece, std::uint64_t slack_bytes) noexcept {
    const std::uint64_t units = pool.pieces.give_back(piece);
    pool.reserved_units -= units;
    pool.asked_bytes -= units * kUnitBytes - slack_bytes;
    ++pool.credit;
}

void ArenaCore::take_in_string(Pool& pool, std::uint32_t most) noexcept {
    for (; pool.string != Pieces::kNone && most != 0; --most) {
        const std::uint32_t piece = std::exchange(pool.string, pool.pieces.next_on_string(pool.string));
        pool.pieces.expect(pool.string);
        free_piece(pool, piece, pool.pieces.note(piece));
    }
}

// As much as keeps up with the others without a long wait for the caller.
void ArenaCore::take_in_some(Pool& pool) noexcept {
    if (pool.string != Pieces::kNone) {
        take_in_string(pool, kTakenInAtOnce);
    } else if (pool.until_look != 0) {
        --pool.until_look;
    } else {
        pool.until_look = kTakesPerLook;
        const std::uint64_t left = pool.left.load(std::memory_order_relaxed);
        if (left != 0 && left != kNothingIsLeft)
            pool.string = static_cast<std::uint32_t>(pool.left.exchange(0, std::memory_order_acquire));
    }
}

void ArenaCore::take_in_all(Pool& pool) noexcept {
    take_in_string(pool, ~std::uint32_t{0});
    const std::uint64_t left = pool.left.load(std::memory_order_relaxed);
    if (left == 0 || left == kNothingIsLeft) return;
    pool.string = static_cast<std::uint32_t>(pool.left.exchange(0, std::memory_order_acquire));
    take_in_string(pool, ~std::uint32_t{0});
}

// Until now the blocks were counted by the pools alone.
void ArenaCore::end_arena() noexcept {
    if (forked()) {
        leave();
        return;
    }
    {
        const AllLocks locks(*this);
        for (const auto& pool : pools_) {
            pool->orphaned = true;
            take_in_string(*pool, ~std::uint32_t{0});
            pool->string = static_cast<std::uint32_t>(pool->left.exchange(kNothingIsLeft, std::memory_order_acquire));
            take_in_string(*pool, ~std::uint32_t{0});
        }
        owners_ = figures().live_blocks + 1;  // this call too, until it has unlocked
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
