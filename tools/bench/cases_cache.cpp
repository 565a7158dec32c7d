// SPDX-License-Identifier: Apache-2.0
// What finding an import in a cache takes, by one thread and by many at once.
#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "common/text.hpp"
#include "numbered_ids.hpp"

namespace bench {
namespace {

constexpr std::uint64_t kCachedBytes = 2 << 20;
constexpr std::size_t kLiveEntries = 1000;
constexpr std::uint64_t kTranslatedPeers = 72;
constexpr std::uint64_t kRangesOfPeer = 8;
constexpr std::size_t kHitsAtOnce = 1000;  // one is too short for the clock
constexpr std::array<std::size_t, 5> kThreadCounts{1, 2, 4, 8, 16};
constexpr double kMostHitUs = 0.05;

/// One allocation under many names: an import of each, without as much memory.
struct CacheSite {
    CacheSite(std::shared_ptr<fabricmem::Driver> used, const Options& options, std::size_t count)
        : own(std::move(used), kCachedBytes, on_device(options)), cache(own.driver()) {
        for (std::size_t i = 0; i < count; ++i) {
            fabricmem::HandleBlob blob = own.blob();
            std::mt19937_64 random(i);
            blob.allocation_id = numbered_id(random());
            blobs.push_back(blob);
            static_cast<void>(cache.acquire(blob));
        }
    }

    static fabricmem::FabricBufferOptions on_device(const Options& options) {
        fabricmem::FabricBufferOptions wanted;
        wanted.location = fabricmem::Location::device(options.device);
        return wanted;
    }

    fabricmem::FabricBuffer own;
    fabricmem::ImportCache cache;
    std::vector<fabricmem::HandleBlob> blobs{};
};

/// Microseconds of one of kHitsAtOnce calls.
template <class Call>
Way way_of_many(std::string name, Call call) {
    auto many = [call = std::move(call)] {
        for (std::size_t i = 0; i < kHitsAtOnce; ++i) call(i);
    };
    return {std::move(name), [many]() mutable { return time_us(many) / static_cast<double>(kHitsAtOnce); }};
}

Amount hits_of(const Options& options) {
    return {.rounds = std::max(options.rounds / 5, std::min(options.rounds, 5U)), .runs = options.runs};
}

void add_hit_goal(Comparison& comparison, std::string what) {
    comparison.goals.push_back({.what = std::move(what), .measured = comparison.library.median(), .limit = kMostHitUs});
}

Comparison measure_hits(CacheSite& site, const Options& options) {
    std::vector<std::size_t> order(kLiveEntries);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    const fabricmem::ImportView held = site.cache.acquire(site.blobs.front());
    const std::vector<Way> ways{
        way_of_many("library", [&](std::size_t i) { (void)site.cache.acquire(site.blobs[order[i % kLiveEntries]]); }),
        way_of_many("the same entry", [&](std::size_t) { (void)site.cache.acquire(site.blobs[17]); }),
        way_of_many("copy of a view", [&](std::size_t) { (void)fabricmem::ImportView(held); })};
    Comparison comparison{.name = "cache hit",
                          .what =
                              "acquire a verified blob whose import is there and let it go, 1,000 entries in random "
                              "order; beside: always the same entry; a copy of a view; means of 1,000"};
    measure_ways(hits_of(options), comparison, ways, Second::beside);
    add_hit_goal(comparison, "a hit with 1,000 entries, in us,");
    return comparison;
}

Comparison measure_translate(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options) {
    CacheSite site(driver, options, kTranslatedPeers * kRangesOfPeer);
    std::vector<std::pair<fabricmem::Id128, std::uint64_t>> wanted;
    for (std::uint64_t peer = 0; peer < kTranslatedPeers; ++peer) {
        for (std::uint64_t range = 0; range < kRangesOfPeer; ++range) {
            const std::uint64_t address = (range + 1) << 32;
            site.cache.add_range(numbered_id(peer), address, site.blobs[peer * kRangesOfPeer + range]);
            wanted.emplace_back(numbered_id(peer), address + 4096 * range);
        }
    }
    std::shuffle(wanted.begin(), wanted.end(), std::mt19937(1));
    const std::vector<Way> ways{way_of_many("library", [&](std::size_t i) {
        const auto& [peer, address] = wanted[i % wanted.size()];
        (void)site.cache.translate(peer, address, 64);
    })};
    Comparison comparison{.name = "cache translate",
                          .what =
                              "translate a peer's address and let the view go, 72 peers of 8 ranges, random order; "
                              "means of 1,000"};
    measure_ways(hits_of(options), comparison, ways, Second::beside);
    add_hit_goal(comparison, "translate with 72 peers x 8 ranges, in us,");
    return comparison;
}

enum class Entries : std::uint8_t { distinct, same };

/// From where to where a thread's hits went.
struct Span {
    examples::Clock::time_point start{};
    examples::Clock::time_point end{};
};

/// Microseconds between two hits, of all threads together, from the start of the first to the end of the last.
/// Each thread stays on a CPU of its own where there are so many, else on any.
double time_threads(CacheSite& site, const CpuList& cpus, std::size_t count, std::size_t each, Entries entries) {
    std::barrier<> all(static_cast<std::ptrdiff_t>(count));
    std::vector<Span> spans(count);
    {
        std::vector<std::jthread> threads;
        threads.reserve(count);
        for (std::size_t t = 0; t < count; ++t) {
            threads.emplace_back([&, t] {
                if (!cpus.empty()) pin_to(count <= cpus.size() ? CpuList{cpus[t]} : cpus);
                const fabricmem::HandleBlob& blob = site.blobs[entries == Entries::same ? 0 : t];
                all.arrive_and_wait();
                const examples::Clock::time_point start = examples::Clock::now();
                for (std::size_t i = 0; i < each; ++i) (void)site.cache.acquire(blob);
                spans[t] = {.start = start, .end = examples::Clock::now()};
            });
        }
    }
    const auto by_start = [](const Span& one, const Span& other) { return one.start < other.start; };
    const auto by_end = [](const Span& one, const Span& other) { return one.end < other.end; };
    const auto start = std::min_element(spans.begin(), spans.end(), by_start)->start;
    const auto end = std::max_element(spans.begin(), spans.end(), by_end)->end;
    return std::chrono::duration<double, std::micro>(end - start).count() / static_cast<double>(count * each);
}

Comparison measure_threads(CacheSite& site, const Options& options, const CpuList& cpus, std::size_t count) {
    const std::size_t each = std::size_t{options.rounds} * 500;
    const std::vector<Way> ways{
        {.name = "library", .time_us = [&] { return time_threads(site, cpus, count, each, Entries::distinct); }},
        {.name = "the same entry", .time_us = [&] { return time_threads(site, cpus, count, each, Entries::same); }}};
    Comparison comparison{.name = examples::formatted("cache hit, {} thread{}", count, count == 1 ? "" : "s"),
                          .what =
                              "time from one hit to the next, of all threads together, each on an entry of its own; "
                              "beside: all on one entry"};
    measure_ways({.rounds = std::min(options.rounds, 3U), .runs = options.runs}, comparison, ways, Second::beside);
    comparison.figures = {{"hits/us", 1 / comparison.library.median()},
                          {"hits/us, the same entry", 1 / comparison.beside.front().second.median()}};
    return comparison;
}

void add_thread_goals(Comparison& comparison, const Comparison& one_thread, const CpuList& cpus) {
    const auto cores = static_cast<double>(std::clamp<std::size_t>(count_cores(cpus), 1, kThreadCounts.back()));
    comparison.goals.push_back(
        {.what = examples::formatted("rate of 16 threads on distinct entries, of one thread's on {} cores,", cores),
         .measured = comparison.figures[0].second / one_thread.figures[0].second,
         .sense = Goal::Sense::at_least,
         .limit = 0.6 * cores});
    comparison.goals.push_back({.what = "rate of 16 threads on the same entry, of one thread's,",
                                .measured = comparison.figures[1].second / one_thread.figures[1].second,
                                .sense = Goal::Sense::at_least,
                                .limit = 1});
}

}  // namespace

void bench_cache(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const CpuList& all_cpus,
                 const Take& take) {
    const CpuList cpus = options.pin == Pin::yes ? cores_first(all_cpus) : CpuList();
    take(measure_translate(driver, options));
    CacheSite site(driver, options, kLiveEntries);
    take(measure_hits(site, options));
    Comparison one_thread;
    for (const std::size_t count : kThreadCounts) {
        Comparison comparison = measure_threads(site, options, cpus, count);
        if (count == kThreadCounts.front()) one_thread = comparison;
        if (count == kThreadCounts.back()) add_thread_goals(comparison, one_thread, all_cpus);
        take(comparison);
    }
}

}  // namespace bench
