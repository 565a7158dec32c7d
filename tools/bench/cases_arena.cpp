// SPDX-License-Identifier: Apache-2.0
// A block of an arena, freed and allocated by one thread; many threads are arena_bench's.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <fabricmem/arena.hpp>

#include "cases.hpp"

namespace bench {
namespace {

constexpr std::uint64_t kLeastBlock = 64;
constexpr std::uint64_t kMostBlock = 256 << 10;
constexpr std::size_t kLiveBlocks = 10'000;
constexpr std::uint64_t kArenaBytes = std::uint64_t{384} << 20;  // the blocks take four fifths of it
constexpr std::size_t kPairsAtOnce = 100;                        // one is too short for the clock

std::uint64_t size_by_magnitude(std::mt19937_64& random) {
    std::uniform_real_distribution<double> magnitude(std::log2(kLeastBlock), std::log2(kMostBlock));
    return static_cast<std::uint64_t>(std::exp2(magnitude(random)));
}

/// Frees a random one of the blocks and allocates another one, again and again.
class BlockExchange {
public:
    BlockExchange(const std::shared_ptr<fabricmem::Driver>& driver, const fabricmem::FabricBufferOptions& wanted)
        : arena_(driver, kArenaBytes, wanted), blocks_(kLiveBlocks) {
        for (fabricmem::Block& block : blocks_) block = arena_.allocate(size_by_magnitude(random_));
    }

    /// Microseconds of one pair.
    double time_pair() {
        std::vector<std::pair<std::size_t, std::uint64_t>> steps(kPairsAtOnce);
        for (auto& [victim, bytes] : steps) {
            victim = random_() % kLiveBlocks;
            bytes = size_by_magnitude(random_);
        }
        auto exchange = [&] {
            for (const auto& [victim, bytes] : steps) {
                blocks_[victim].free();
                blocks_[victim] = arena_.allocate(bytes);
            }
        };
        return time_us(exchange) / static_cast<double>(kPairsAtOnce);
    }

private:
    fabricmem::Arena arena_;
    std::vector<fabricmem::Block> blocks_;
    std::mt19937_64 random_{1};
};

}  // namespace

void bench_arena(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take) {
    Comparison comparison{
        .name = "arena block",
        .what =
            "free a block of an arena and allocate another one, 64 B to 256 KiB, random order, 10,000 "
            "live, one thread; means of 100"};
    fabricmem::FabricBufferOptions wanted;
    wanted.location = fabricmem::Location::device(options.device);
    BlockExchange blocks(driver, wanted);
    const std::vector<Way> ways{{.name = "library", .time_us = [&] { return blocks.time_pair(); }}};
    measure_ways({.rounds = options.rounds, .runs = options.runs}, comparison, ways, Second::beside);
    comparison.goals.push_back(
        {.what = "a free and an allocate of a block, in us,", .measured = comparison.library.median(), .limit = 0.1});
    take(comparison);
}

}  // namespace bench
