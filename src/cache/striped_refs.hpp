// SPDX-License-Identifier: Apache-2.0
// A reference counter for something that many threads take and give back all the time, in memory that is never freed
// under them. Knows not what is counted.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace fabricmem::detail {

/// Which stripe this thread counts in. Threads are numbered as they come, so those made together have one each.
[[nodiscard]] inline std::uint32_t stripe_of_thread() noexcept;

/// Open or closed. While open, a thread counts in a stripe, which is a cache line of its own: threads do not wait for
/// each other's. Closing moves what the stripes hold to one counter for all; a closed one takes no new references, and
/// whoever gives the last one back is told so, once.
///
/// Each stripe is one word: whether it is open, its references, and how often it was taken. All changes of a word are
/// read-modify-writes, which see the last value whatever the memory order. So a reference is taken either before the
/// close of its stripe, which then moves it, or not at all: there is no window between "is it open" and "count", and
/// nothing here needs more than acquire and release.
///
/// - open() is a release store, and taking is an acquire: who takes sees what was written before the opening, which the
///   later changes of the word (read-modify-writes, so in its release sequence) hand on. It need not be the same thing
///   that the thread was looking for: it looks at the key while it holds the reference.
/// - Giving back is a release, and closing an acquire: what is done after the last reference is gone comes after all
///   that was done with one. Those that are given back after the closing are ordered by `moved_` (acquire and release).
/// - Copies of a reference count in its own stripe. So a stripe that has none gets none but by try_take(), which a
///   closed one refuses, and close_if_unused() can look at one stripe after the other.
class StripedRefs {
public:
    static constexpr std::uint32_t kStripes = 16;

    enum class As : std::uint8_t { reference, hit };

    /// False where closed. A hit is counted, in the same instruction.
    [[nodiscard]] bool try_take(std::uint32_t stripe, As as) noexcept {
        std::atomic<std::uint64_t>& word = stripes_[stripe].word;
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        for (;;) {
            if ((seen & kOpen) == 0) return false;
            std::uint64_t next = seen + kRef;
            if (as == As::hit) {
                if ((seen & kManyHits) != 0) [[unlikely]]
                    next -= kManyHits;
                next += kHit;
            }
            if (word.compare_exchange_weak(seen, next, std::memory_order_acquire, std::memory_order_relaxed)) break;
        }
        if (as == As::hit && (seen & kManyHits) != 0) [[unlikely]]
            carried_hits_.fetch_add(kManyHits / kHit, std::memory_order_relaxed);
        return true;
    }

    /// By who has a reference in that stripe.
    void take_another(std::uint32_t stripe) noexcept {
        std::atomic<std::uint64_t>& word = stripes_[stripe].word;
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        while ((seen & kOpen) != 0) {
            if (word.compare_exchange_weak(seen, seen + kRef, std::memory_order_relaxed)) return;
        }
        // Closed, so the one that is held is in `moved_`, or about to be: it can't get to zero meanwhile.
        moved_.fetch_add(1, std::memory_order_relaxed);
    }

    /// True where it was the last of a closed one. Else this must not be touched any more: its owner may be gone.
    [[nodiscard]] bool give_back(std::uint32_t stripe) noexcept {
        std::atomic<std::uint64_t>& word = stripes_[stripe].word;
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        while ((seen & kOpen) != 0) {
            if (word.compare_exchange_weak(seen, seen - kRef, std::memory_order_release, std::memory_order_relaxed))
                return false;
        }
        return moved_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    }

    // What follows is for one thread at a time.

    /// With one reference, in `stripe`. Nobody has one, and all is closed.
    void open(std::uint32_t stripe) noexcept {
        for (std::uint32_t i = 0; i < kStripes; ++i)
            stripes_[i].word.store(i == stripe ? kOpen + kRef : kOpen, std::memory_order_release);
    }

    /// True where nobody had a reference: then nobody gets one any more, and all is as after close().
    [[nodiscard]] bool close_if_unused() noexcept {
        if (count() != 0) return false;  // nearly always right, and cheaper than to take it back
        std::uint64_t words[kStripes];
        const Moving moving(moves_);
        for (std::uint32_t i = 0; i < kStripes; ++i) {
            if (close_stripe_if_unused(i, &words[i])) continue;
            // Nobody changes a closed word, so they can be put back as they were.
            while (i-- > 0) stripes_[i].word.store(words[i], std::memory_order_release);
            return false;
        }
        for (const std::uint64_t word : words) carried_hits_.fetch_add(word / kHit, std::memory_order_relaxed);
        return true;
    }

    /// True where nobody has a reference; else the last give_back() says so.
    [[nodiscard]] bool close() noexcept {
        // While stripes are moved one by one the counter can't get to zero.
        constexpr std::int64_t kUntilMoved = std::int64_t{1} << 62;
        moved_.fetch_add(kUntilMoved, std::memory_order_relaxed);
        std::int64_t references = 0;
        const Moving moving(moves_);
        for (Stripe& stripe : stripes_) {
            const std::uint64_t word = stripe.word.exchange(0, std::memory_order_acq_rel);
            references += references_of(word);
            carried_hits_.fetch_add(word / kHit, std::memory_order_relaxed);
        }
        const std::int64_t change = references - kUntilMoved;
        return moved_.fetch_add(change, std::memory_order_acq_rel) + change == 0;
    }

    // Any thread; of a moment that may be over.

    [[nodiscard]] std::int64_t count() const noexcept {
        std::int64_t references = moved_.load(std::memory_order_relaxed);
        for (const Stripe& stripe : stripes_) references += references_of(stripe.word.load(std::memory_order_relaxed));
        return references;
    }
    /// Over all times that it was open. Never less than before, so not while hits are moved from stripes.
    [[nodiscard]] std::uint64_t hits() const noexcept {
        for (;;) {
            const std::uint32_t moves = moves_.load(std::memory_order_acquire);
            // Acquire: what is read next is not read before.
            std::uint64_t hits = carried_hits_.load(std::memory_order_acquire);
            for (const Stripe& stripe : stripes_) hits += stripe.word.load(std::memory_order_acquire) / kHit;
            if (moves % 2 == 0 && moves_.load(std::memory_order_relaxed) == moves) return hits;
        }
    }

private:
    // 32 bits of references: as many views need 128 GiB of memory. 31 bits of hits, of which the highest is carried
    // away when it is seen.
    static constexpr std::uint64_t kOpen = 1;
    static constexpr std::uint64_t kRef = 2;
    static constexpr std::uint64_t kHit = std::uint64_t{1} << 33;
    static constexpr std::uint64_t kManyHits = std::uint64_t{1} << 63;

    // While there is one the number is odd.
    class Moving {
    public:
        explicit Moving(std::atomic<std::uint32_t>& moves) noexcept : moves_(moves) {
            moves_.fetch_add(1, std::memory_order_acq_rel);
        }
        Moving(const Moving&) = delete;
        Moving& operator=(const Moving&) = delete;
        ~Moving() { moves_.fetch_add(1, std::memory_order_release); }

    private:
        std::atomic<std::uint32_t>& moves_;
    };

    struct alignas(64) Stripe {
        std::atomic<std::uint64_t> word{0};
    };

    [[nodiscard]] static std::int64_t references_of(std::uint64_t word) noexcept {
        return static_cast<std::int64_t>((word % kHit) / kRef);
    }
    [[nodiscard]] bool close_stripe_if_unused(std::uint32_t stripe, std::uint64_t* seen) noexcept {
        std::atomic<std::uint64_t>& word = stripes_[stripe].word;
        *seen = word.load(std::memory_order_relaxed);
        while (references_of(*seen) == 0) {
            if (word.compare_exchange_weak(*seen, 0, std::memory_order_acquire, std::memory_order_relaxed)) return true;
        }
        return false;
    }

    std::array<Stripe, kStripes> stripes_;
    std::atomic<std::int64_t> moved_{0};
    std::atomic<std::uint64_t> carried_hits_{0};
    std::atomic<std::uint32_t> moves_{0};
};

inline std::uint32_t stripe_of_thread() noexcept {
    static constinit std::atomic<std::uint32_t> last{0};
    static constinit thread_local std::uint32_t number = 0;
    if (number == 0) number = last.fetch_add(1, std::memory_order_relaxed) % StripedRefs::kStripes + 1;
    return number - 1;
}

}  // namespace fabricmem::detail
