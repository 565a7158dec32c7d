// SPDX-License-Identifier: Apache-2.0
// What an import cache's counting of a hit takes: a table on stdout, no assertions, no driver. A benchmark, not a test;
// build it optimised. What a whole hit takes: fabricmem-bench --only cache.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "cache/striped_refs.hpp"

namespace {

using namespace fabricmem;
using Clock = std::chrono::steady_clock;

constexpr int kRounds = 15;
constexpr std::size_t kEach = 100'000;  // by one thread, in one round

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void print(const char* what, const std::vector<double>& ns, const char* goal) {
    std::printf("| %-58s | %8.1f | %8.1f | %-24s |\n", what, median(ns), *std::min_element(ns.begin(), ns.end()), goal);
    std::fflush(stdout);
}

// A hit counts itself in the instruction that takes the reference, so there is no cache without: the same reference
// beside it, in turns, and what a counter of its own would take.
void counting() {
    using detail::StripedRefs;
    StripedRefs refs;
    refs.open(0);
    std::atomic<std::uint64_t> apart{0};
    const auto take = [&](StripedRefs::As as, bool count_apart) {
        return [&refs, &apart, as, count_apart](std::size_t count) {
            for (std::size_t i = 0; i < count; ++i) {
                if (!refs.try_take(0, as)) std::abort();
                if (count_apart) apart.fetch_add(1, std::memory_order_relaxed);
                static_cast<void>(refs.give_back(0));
            }
        };
    };
    const std::vector<std::function<void(std::size_t)>> ways{take(StripedRefs::As::reference, false),
                                                             take(StripedRefs::As::hit, false),
                                                             take(StripedRefs::As::reference, true)};
    std::vector<std::vector<double>> ns(ways.size());
    for (int round = -1; round < kRounds; ++round) {
        for (std::size_t way = 0; way < ways.size(); ++way) {
            const Clock::time_point start = Clock::now();
            ways[way](kEach);
            if (round >= 0)
                ns[way].push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count() / kEach);
        }
    }
    print("take a reference and give it back, not counted", ns[0], "");
    print("the same, counted as a hit", ns[1], "");
    std::vector<double> more;
    for (std::size_t i = 0; i < ns[0].size(); ++i) more.push_back(ns[1][i] - ns[0][i]);
    print("what counting a hit takes", more, "median 5");
    print("the same with a counter of its own", ns[2], "");
}

}  // namespace

int main() {
    std::printf("ns each\n| %-58s | %8s | %8s | %-24s |\n| --- | --- | --- | --- |\n", "what", "median", "least",
                "goal");
    counting();
}
