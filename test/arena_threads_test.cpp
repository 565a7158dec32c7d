// SPDX-License-Identifier: Apache-2.0
// One arena in many threads: blocks are made here and freed there, and the memory ends with whoever is last.
#include <fabricmem/arena.hpp>

#include <atomic>
#include <barrier>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/emulated_driver.hpp>

#include "support/buffers.hpp"
#include "support/build.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr int kThreads = 8;
const int kSteps = kSlowBuild ? 2'000 : 20'000;

// Blocks that no thread holds at the moment.
class Exchange {
public:
    explicit Exchange(std::size_t slots) : slots_(slots) {}

    /// A block for another, any of which may be empty.
    [[nodiscard]] Block swap(Block block, std::size_t at) {
        const std::lock_guard lock(mutex_);
        std::swap(block, slots_[at % slots_.size()]);
        return block;
    }
    void clear() { slots_.clear(); }

private:
    std::mutex mutex_;
    std::vector<Block> slots_;
};

// Visits a byte of every unit of a block, with a number that its range tells: two owners of a unit would not agree.
template <typename Visit>
void visit_units(const Block& block, Visit visit) {
    auto* const bytes = static_cast<unsigned char*>(block.address());
    const auto number = static_cast<unsigned char>((block.offset() / 64 * 31 + block.bytes()) & 0xffU);
    for (std::uint64_t at = 0; at < block.bytes(); at += 64) visit(bytes[at], number);
    visit(bytes[block.bytes() - 1], number);
}
void mark(const Block& block) {
    visit_units(block, [](unsigned char& byte, unsigned char number) { byte = number; });
}
bool is_marked(const Block& block) {
    bool good = true;
    visit_units(block, [&](const unsigned char& byte, unsigned char number) { good = good && byte == number; });
    return good;
}

struct Crowd {
    std::uint64_t capacity;
    std::size_t slots;
    std::uint64_t most;  // bytes of a block
};

// What went wrong, and how often there was no room.
struct Outcome {
    std::atomic<int> wrong{0};
    std::atomic<int> refused{0};
};

void live_in(Arena& arena, Exchange& exchange, const Crowd& crowd, unsigned seed, Outcome& outcome) {
    std::mt19937 random(seed);
    for (int step = 0; step < kSteps; ++step) {
        const std::uint64_t bytes = 1 + random() % (random() % 8 == 0 ? crowd.most : crowd.most / 64);
        std::optional<Block> made = arena.try_allocate(bytes, std::uint64_t{1} << (random() % 13));
        if (!made.has_value()) ++outcome.refused;
        if (made.has_value()) mark(*made);
        const Block other = exchange.swap(made.has_value() ? std::move(*made) : Block(), random());
        if (other.is_open() && !is_marked(other)) ++outcome.wrong;
        if (step % 200 != 0) continue;
        const ArenaStatistics now = arena.statistics();
        if (now.free_bytes + now.reserved_bytes != now.capacity_bytes) ++outcome.wrong;
        if (now.largest_free_bytes > now.free_bytes || now.asked_bytes > now.reserved_bytes) ++outcome.wrong;
    }
}

}  // namespace

TEST_CASE("Threads that allocate, pass on and free at once never share a byte", "[arena][threads]") {
    // In the second one threads that meet have parts to themselves.
    for (const Crowd& crowd : {Crowd{2 * kMiB, 64, 200'000}, Crowd{64 * kMiB, 2500, 500'000}}) {
        CAPTURE(crowd.capacity);
        Arena arena(make_emulated_driver(), crowd.capacity, {.location = Location::host_numa(0)});
        Exchange exchange(crowd.slots);
        Outcome outcome;
        {
            std::vector<std::jthread> threads;
            threads.reserve(kThreads);
            for (unsigned i = 0; i < kThreads; ++i)
                threads.emplace_back([&, i] { live_in(arena, exchange, crowd, i, outcome); });
        }
        CHECK(outcome.wrong == 0);
        CHECK(outcome.refused > 0);  // full at times
        exchange.clear();
        // Without a look at statistics(): what threads had to themselves goes back by itself.
        Block all = arena.allocate(crowd.capacity);
        CHECK(all.offset() == 0);
        CHECK(arena.statistics().live_blocks == 1);
        all.free();
        const ArenaStatistics now = arena.statistics();
        CHECK(now.live_blocks == 0);
        CHECK(now.asked_bytes == 0);
        CHECK(now.largest_free_bytes == now.capacity_bytes);
    }
}

TEST_CASE("What another thread freed is free at once, and never counts as live", "[arena][threads]") {
    bool torn_down = false;
    std::optional<Arena> arena(std::in_place, make_emulated_driver(), 64 * kMiB,
                               FabricBufferOptions{.before_tear_down = [&](const BufferInfo&) { torn_down = true; }},
                               ArenaOptions{.max_blocks = 100});
    std::vector<Block> blocks(100);
    for (Block& block : blocks) block = arena->allocate(1000);
    std::jthread([&] { blocks.clear(); }).join();
    SECTION("for a block that needs all of it") { CHECK(arena->allocate(64 * kMiB).offset() == 0); }
    SECTION("for as many blocks again") {
        for (int i = 0; i < 100; ++i) blocks.push_back(arena->allocate(1000));
        blocks.clear();
    }
    SECTION("in figures") {
        CHECK(arena->statistics().live_blocks == 0);
        CHECK(arena->statistics().asked_bytes == 0);
    }
    SECTION("for close()") { CHECK(arena->close() == CloseResult::released); }
    arena.reset();
    CHECK(torn_down);
}

TEST_CASE("All threads together get max_blocks blocks, and not one more", "[arena][threads]") {
    constexpr std::uint32_t kMost = 1000;
    Arena arena(make_emulated_driver(), 64 * kMiB, {}, {.max_blocks = kMost});
    std::vector<std::vector<Block>> blocks(kThreads);
    {
        std::vector<std::jthread> threads;
        threads.reserve(kThreads);
        for (std::vector<Block>& mine : blocks) {
            threads.emplace_back([&arena, &mine] {
                while (std::optional<Block> block = arena.try_allocate(100)) mine.push_back(std::move(*block));
            });
        }
    }
    std::size_t made = 0;
    for (const std::vector<Block>& mine : blocks) made += mine.size();
    CHECK(made == kMost);
    CHECK(arena.statistics().live_blocks == kMost);
    CHECK(!arena.try_allocate(kMiB).has_value());
    for (std::vector<Block>& mine : blocks) {
        if (mine.empty()) continue;
        mine.pop_back();
        break;
    }
    CHECK(arena.try_allocate(kMiB).has_value());
}

TEST_CASE("Whichever of arena and blocks ends last takes the memory down, once", "[arena][threads]") {
    const auto driver = make_emulated_driver();
    const int rounds = kSlowBuild ? 50 : 300;
    std::atomic<int> torn_down{0};
    std::optional<Arena> arena;
    std::vector<Block> blocks(kThreads - 1);
    std::barrier<> all(kThreads);
    const auto end_one = [&](int who) {
        for (int round = 0; round < rounds; ++round) {
            if (who == 0) {
                arena.emplace(driver, 64 * kMiB,
                              FabricBufferOptions{.before_tear_down = [&](const BufferInfo&) { ++torn_down; }});
                for (Block& block : blocks) block = arena->allocate(1000);
            }
            all.arrive_and_wait();
            if (who == 0) {
                arena.reset();
            } else {
                blocks[static_cast<std::size_t>(who) - 1].free();
            }
            all.arrive_and_wait();
        }
    };
    {
        std::vector<std::jthread> threads;
        threads.reserve(kThreads);
        for (int i = 0; i < kThreads; ++i) threads.emplace_back(end_one, i);
    }
    CHECK(torn_down == rounds);
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}
