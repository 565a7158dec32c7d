// SPDX-License-Identifier: Apache-2.0
// What finding an import in a cache takes, by one thread and by many at once, beside the goals: a table on stdout, no
// assertions. Always the emulated driver. A benchmark, not a test; build it optimised.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/import_cache.hpp>

#include "cache/striped_refs.hpp"

namespace {

using namespace fabricmem;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::size_t kLive = 1000;
constexpr int kRounds = 15;
constexpr std::size_t kEach = 100'000;  // by one thread, in one round

Id128 id_of(std::uint64_t number) {
    Id128 id;
    for (std::size_t i = 0; i < 8; ++i) id.bytes[i] = static_cast<std::uint8_t>(number >> (8 * i));
    id.bytes[15] = 1;
    return id;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void print(const char* what, const std::vector<double>& ns, const char* goal) {
    std::printf("| %-58s | %8.1f | %8.1f | %-24s |\n", what, median(ns), *std::min_element(ns.begin(), ns.end()), goal);
    std::fflush(stdout);
}

/// ns each of kEach calls, in kRounds rounds.
std::vector<double> time_each(const std::function<void(std::size_t)>& many) {
    std::vector<double> ns;
    many(kEach);
    for (int round = 0; round < kRounds; ++round) {
        const Clock::time_point start = Clock::now();
        many(kEach);
        ns.push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count() / kEach);
    }
    return ns;
}

// One allocation under many names: an import of each, without as much memory.
struct Site {
    explicit Site(std::size_t count) : cache(driver) {
        for (std::size_t i = 0; i < count; ++i) {
            HandleBlob blob = own.blob();
            std::mt19937_64 random(i);
            blob.allocation_id = id_of(random());
            blobs.push_back(blob);
            static_cast<void>(cache.acquire(blob));
        }
    }

    std::shared_ptr<Driver> driver = make_emulated_driver();
    FabricBuffer own{driver, 2 * kMiB};
    ImportCache cache;
    std::vector<HandleBlob> blobs;
};

void by_one_thread() {
    Site site(kLive);
    std::vector<std::uint32_t> order(kLive);
    for (std::uint32_t i = 0; i < kLive; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    print("acquire and let go, the same entry of 1,000", time_each([&](std::size_t count) {
              for (std::size_t i = 0; i < count; ++i) static_cast<void>(site.cache.acquire(site.blobs[17]));
          }),
          "median 50");
    print("acquire and let go, 1,000 entries in random order", time_each([&](std::size_t count) {
              for (std::size_t i = 0; i < count; ++i)
                  static_cast<void>(site.cache.acquire(site.blobs[order[i % kLive]]));
          }),
          "median 50");
    std::vector<ImportView> views(kEach);
    print("acquire alone, 1,000 entries in random order", time_each([&](std::size_t count) {
              for (std::size_t i = 0; i < count; ++i) views[i] = ImportView();
              for (std::size_t i = 0; i < count; ++i) views[i] = site.cache.acquire(site.blobs[order[i % kLive]]);
          }),
          "with the last one's end");
    const ImportView view = site.cache.acquire(site.blobs[0]);
    print("copy a view and let it go", time_each([&](std::size_t count) {
              for (std::size_t i = 0; i < count; ++i) const ImportView copy = view;
          }),
          "");
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

void translate() {
    constexpr std::uint64_t kPeers = 72, kRanges = 8;
    Site site(kPeers * kRanges);
    std::vector<std::pair<Id128, std::uint64_t>> wanted;
    for (std::uint64_t peer = 0; peer < kPeers; ++peer) {
        for (std::uint64_t range = 0; range < kRanges; ++range) {
            const std::uint64_t address = (range + 1) << 32;
            site.cache.add_range(id_of(peer), address, site.blobs[peer * kRanges + range]);
            wanted.emplace_back(id_of(peer), address + 4096 * range);
        }
    }
    std::shuffle(wanted.begin(), wanted.end(), std::mt19937(1));
    print("translate and let go, 72 peers of 8 ranges, random order", time_each([&](std::size_t count) {
              for (std::size_t i = 0; i < count; ++i) {
                  const auto& [peer, address] = wanted[i % wanted.size()];
                  static_cast<void>(site.cache.translate(peer, address, 64));
              }
          }),
          "median 50");
}

// All threads together, in acquires a microsecond.
double rate_of(Site& site, std::size_t count, bool same) {
    std::barrier<> all(static_cast<std::ptrdiff_t>(count) + 1);
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < count; ++t) {
        threads.emplace_back([&, t] {
            const HandleBlob& blob = site.blobs[same ? 0 : t];
            all.arrive_and_wait();
            for (std::size_t i = 0; i < 10 * kEach; ++i) static_cast<void>(site.cache.acquire(blob));
            all.arrive_and_wait();
        });
    }
    all.arrive_and_wait();
    const Clock::time_point start = Clock::now();
    all.arrive_and_wait();
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    return static_cast<double>(count) * 10 * kEach / us;
}

void by_threads() {
    Site site(kLive);
    std::printf("\n| threads | distinct entries, acquires/us | the same entry | goal |\n| --- | --- | --- | --- |\n");
    for (const std::size_t count : {1U, 2U, 4U, 8U, 16U}) {
        std::vector<double> distinct, same;
        for (int round = 0; round < 5; ++round) {
            distinct.push_back(rate_of(site, count, false));
            same.push_back(rate_of(site, count, true));
        }
        std::printf("| %zu | %.1f | %.1f | %s |\n", count, median(distinct), median(same),
                    count == 16 ? "distinct: 0.6 x cores x one thread's; same: one thread's" : "");
        std::fflush(stdout);
    }
}

}  // namespace

int main() {
    std::printf("ns each, %u CPUs\n| %-58s | %8s | %8s | %-24s |\n| --- | --- | --- | --- |\n",
                std::thread::hardware_concurrency(), "what", "median", "least", "goal");
    by_one_thread();
    counting();
    translate();
    by_threads();
}
