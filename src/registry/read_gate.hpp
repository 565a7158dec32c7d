// SPDX-License-Identifier: Apache-2.0
// Lets readers use what a writer has published without a lock, and lets the writer wait until nobody uses the old.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace fabricmem::detail {

/// Counts readers, in several places so that they don't meet in one cache line. Why it is enough, also where memory is
/// weakly ordered: a reader counts itself and then loads the pointer; the writer replaces the pointer and then looks at
/// the counts; all four are sequentially consistent. So a reader that got the old pointer loaded it before the writer
/// replaced it, and had counted itself before that: the writer sees the count. It goes down by a release that the
/// writer's look acquires, so all reads of the old are over before the old is freed.
///
/// There are two counts, in turns, so that readers who keep coming don't keep the writer waiting: it turns new ones to
/// the other count before it waits for one to become 0.
class ReadGate {
    struct alignas(64) Shard {
        std::array<std::atomic<std::uint64_t>, 2> inside{};
    };

public:
    /// A reader, for the scope. Taken before the pointer is loaded.
    class Reading {
    public:
        explicit Reading(ReadGate& gate) noexcept
            : inside_(gate.shards_[shard_of_thread()].inside[gate.turn_.load(std::memory_order_relaxed) & 1U]) {
            inside_.fetch_add(1, std::memory_order_seq_cst);
        }
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;
        ~Reading() { inside_.fetch_sub(1, std::memory_order_release); }

    private:
        std::atomic<std::uint64_t>& inside_;
    };

    /// Waits for those who may have what was published before. One writer at a time, with no reading of its own; takes
    /// as long as a look-up does, or as a reader is off its CPU.
    void wait_for_readers() noexcept {
        for (int side = 0; side < 2; ++side) {
            const unsigned old = turn_.fetch_add(1, std::memory_order_relaxed) & 1U;
            for (Shard& shard : shards_) {
                while (shard.inside[old].load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
            }
        }
    }

private:
    static constexpr std::size_t kShards = 16;

    static std::size_t shard_of_thread() noexcept {
        static std::atomic<std::size_t> threads{0};
        static thread_local const std::size_t shard = threads.fetch_add(1, std::memory_order_relaxed) % kShards;
        return shard;
    }

    std::atomic<unsigned> turn_{0};
    std::array<Shard, kShards> shards_{};
};

}  // namespace fabricmem::detail
