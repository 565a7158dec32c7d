// SPDX-License-Identifier: Apache-2.0
// What a free and an allocate of an arena's blocks take, by one thread and by many at once, beside the goals: a table
// on stdout, no assertions. Always the emulated driver. A benchmark, not a test; build it optimised.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <random>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/arena.hpp>
#include <fabricmem/emulated_driver.hpp>

namespace {

using namespace fabricmem;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kLeast = 64;
constexpr std::uint64_t kMost = 256 << 10;
constexpr std::size_t kLive = 10'000;
constexpr std::size_t kPairs = 500'000;  // by all threads together
constexpr std::size_t kWarmUp = 100'000;

enum class Sizes { uniform, by_magnitude };

// The blocks take four fifths of it.
std::uint64_t arena_bytes(Sizes sizes) { return sizes == Sizes::uniform ? 1562 * kMiB : 384 * kMiB; }

struct Step {
    std::uint32_t victim;
    std::uint32_t bytes;
};

std::uint32_t size_for(Sizes sizes, std::mt19937_64& random) {
    if (sizes == Sizes::uniform) {
        return static_cast<std::uint32_t>(std::uniform_int_distribution<std::uint64_t>(kLeast, kMost)(random));
    }
    std::uniform_real_distribution<double> magnitude(std::log2(kLeast), std::log2(kMost));
    return static_cast<std::uint32_t>(std::exp2(magnitude(random)));
}

std::vector<Step> steps_for(Sizes sizes, std::size_t live, std::size_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<Step> steps(count);
    for (Step& step : steps) step = {static_cast<std::uint32_t>(random() % live), size_for(sizes, random)};
    return steps;
}

double in_ns(Clock::duration duration) { return std::chrono::duration<double, std::nano>(duration).count(); }

// Blocks of a thread's own, or of all threads: then a thread frees mostly what another one has allocated.
enum class Owner { itself, anybody };

struct Slot {
    std::atomic_flag busy;
    Block block;
};

/// Frees a random one of the blocks and allocates another one, again and again; each pair's time with the clock's.
std::vector<float> run_one(Arena& arena, std::span<Slot> slots, const std::vector<Step>& steps, std::barrier<>& all,
                           std::atomic<std::size_t>& refused) {
    std::vector<float> took;
    took.reserve(steps.size());
    all.arrive_and_wait();
    for (std::size_t i = 0; i < steps.size(); ++i) {
        Slot& slot = slots[steps[i].victim];
        if (slot.busy.test_and_set()) continue;  // another's, at this very moment
        const bool is_pair = slot.block.is_open();
        const Clock::time_point start = Clock::now();
        if (is_pair) slot.block.free();
        std::optional<Block> made = arena.try_allocate(steps[i].bytes);
        if (made.has_value()) slot.block = std::move(*made);
        const Clock::time_point end = Clock::now();
        if (!made.has_value()) ++refused;
        slot.busy.clear();
        if (is_pair && i > steps.size() / 6) took.push_back(static_cast<float>(in_ns(end - start)));
    }
    all.arrive_and_wait();
    return took;
}

void print(const char* what, std::vector<float> ns, const char* goal) {
    std::sort(ns.begin(), ns.end());
    const auto at = [&](double share) {
        return static_cast<double>(ns[static_cast<std::size_t>(share * static_cast<double>(ns.size() - 1))]);
    };
    std::printf("| %-52s | %7.0f | %7.0f | %7.0f | %8.0f | %-20s |\n", what, at(0.5), at(0.9), at(0.99), at(0.999),
                goal);
}

void print_room(const Arena& arena, std::size_t refused) {
    const ArenaStatistics now = arena.statistics();
    std::printf("|   waste %.2f %%, fragmentation %.1f %% of %.0f MiB free, no room %zu times |\n", 100 * now.waste(),
                100 * now.fragmentation(), static_cast<double>(now.free_bytes) / static_cast<double>(kMiB), refused);
}

void threads(const char* what, Sizes sizes, std::size_t count, Owner owner, const char* goal) {
    Arena arena(make_emulated_driver(), arena_bytes(sizes));
    std::vector<Slot> slots(kLive);
    std::atomic<std::size_t> refused{0};
    std::barrier<> all(static_cast<std::ptrdiff_t>(count));
    std::vector<std::vector<float>> took(count);
    {
        std::vector<std::jthread> running;
        running.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            running.emplace_back([&, i] {
                const std::span<Slot> own = std::span(slots).subspan(i * (kLive / count), kLive / count);
                const std::vector<Step> steps =
                    steps_for(sizes, owner == Owner::itself ? own.size() : kLive, (kWarmUp + kPairs) / count, i);
                for (std::size_t k = 0; k < own.size(); ++k) own[k].block = arena.allocate(steps[k].bytes);
                took[i] = run_one(arena, owner == Owner::itself ? own : std::span(slots), steps, all, refused);
            });
        }
    }
    std::vector<float> together;
    for (const auto& one : took) together.insert(together.end(), one.begin(), one.end());
    print(what, std::move(together), goal);
    print_room(arena, refused);
}

/// Without a clock between: the mean of each 100 pairs.
void in_hundreds(const char* what, Sizes sizes, const char* goal) {
    constexpr std::size_t kTogether = 100;
    Arena arena(make_emulated_driver(), arena_bytes(sizes));
    const std::vector<Step> steps = steps_for(sizes, kLive, kWarmUp + kPairs, 1);
    std::vector<Block> blocks(kLive);
    for (std::size_t i = 0; i < kLive; ++i) blocks[i] = arena.allocate(steps[i].bytes);
    std::vector<float> took;
    for (std::size_t i = 0; i < steps.size();) {
        const Clock::time_point start = Clock::now();
        for (const std::size_t end = i + kTogether; i < end; ++i) {
            Block& block = blocks[steps[i].victim];
            block.free();
            block = arena.allocate(steps[i].bytes);
        }
        if (i > kWarmUp) took.push_back(static_cast<float>(in_ns(Clock::now() - start) / kTogether));
    }
    print(what, std::move(took), goal);
    print_room(arena, 0);
}

void clock_alone() {
    std::vector<float> took(kPairs);
    for (float& one : took) {
        const Clock::time_point start = Clock::now();
        one = static_cast<float>(in_ns(Clock::now() - start));
    }
    print("the clock alone, which the figures by pair hold", std::move(took), "");
}

}  // namespace

int main() {
    std::printf("free + allocate, 64 B to 256 KiB, random order, 10,000 blocks live; ns a pair, %u CPUs\n",
                std::thread::hardware_concurrency());
    std::printf("| %-52s | %7s | %7s | %7s | %8s | %-20s |\n", "what", "median", "90 %", "99 %", "99.9 %", "goal");
    std::printf("| --- | --- | --- | --- | --- | --- |\n");
    clock_alone();
    in_hundreds("1 thread, sizes uniform, means of 100", Sizes::uniform, "median 100");
    in_hundreds("1 thread, sizes by magnitude, means of 100", Sizes::by_magnitude, "median 100");
    threads("1 thread, sizes uniform, by pair", Sizes::uniform, 1, Owner::itself, "");
    threads("1 thread, sizes by magnitude, by pair", Sizes::by_magnitude, 1, Owner::itself, "");
    threads("2 threads, sizes by magnitude, by pair", Sizes::by_magnitude, 2, Owner::itself, "");
    threads("8 threads, sizes uniform, by pair", Sizes::uniform, 8, Owner::itself, "99 %: 1000");
    threads("8 threads, sizes by magnitude, by pair", Sizes::by_magnitude, 8, Owner::itself, "99 %: 1000");
    threads("2 threads that free each other's, by magnitude", Sizes::by_magnitude, 2, Owner::anybody, "");
    threads("8 threads that free each other's, by magnitude", Sizes::by_magnitude, 8, Owner::anybody, "99 %: 1000");
}
