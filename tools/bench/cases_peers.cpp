// SPDX-License-Identifier: Apache-2.0
// The memory of many peers at once, through a cache and by bare imports. On one machine a peer is an allocation of the
// second process's under an id of its own: an import costs the same.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "common/text.hpp"
#include "counting_driver.hpp"
#include "numbered_ids.hpp"
#include "raw_memory.hpp"
#include "timing_driver.hpp"

namespace bench {
namespace {

constexpr std::uint64_t kPeerBytes = 2 << 20;
constexpr std::uint64_t kRegions = 8;  // of each peer
constexpr std::array<std::size_t, 4> kPeerCounts{1, 8, 72, 512};
constexpr std::size_t kRackPeers = 72;  // of an NVL72, for which there are goals

fabricmem::FabricBufferOptions peer_memory(const Options& options) {
    fabricmem::FabricBufferOptions wanted;
    wanted.location = fabricmem::Location::device(options.device);
    return wanted;
}

/// What the second process had room for.
std::vector<fabricmem::HandleBlob> receive_blobs(pingpong::Control& control) {
    const std::vector<std::byte> text = control.receive(pingpong::Message::hello, "how many peers there are");
    const char* const begin = reinterpret_cast<const char*>(text.data());
    std::size_t count = 0;
    (void)std::from_chars(begin, begin + text.size(), count);
    std::vector<fabricmem::HandleBlob> blobs;
    for (std::size_t i = 0; i < count; ++i) {
        blobs.push_back(
            fabricmem::HandleBlob::from_bytes(control.receive(pingpong::Message::blob, "the blob of a peer")));
    }
    return blobs;
}

std::vector<fabricmem::HandleBlob> regions_of(const std::vector<fabricmem::HandleBlob>& peers, std::size_t count) {
    std::vector<fabricmem::HandleBlob> regions;
    for (std::size_t peer = 0; peer < count; ++peer) {
        for (std::uint64_t region = 0; region < kRegions; ++region) {
            regions.push_back(peers[peer].sub_range(region * (kPeerBytes / kRegions), kPeerBytes / kRegions));
        }
    }
    return regions;
}

/// The imports alone are timed, not their end.
class PeerImports {
public:
    PeerImports(std::shared_ptr<fabricmem::Driver> driver, const Options& options,
                const std::vector<fabricmem::HandleBlob>& peers, std::size_t count)
        : timing_(std::make_shared<TimingDriver>(std::move(driver))),
          driver_(std::make_shared<CountingDriver>(timing_)),
          regions_(regions_of(peers, count)) {
        for (std::size_t peer = 0; peer < count; ++peer) handles_.push_back(raw_handle_of(peers[peer]));
        plan_ = plan_like(fabricmem::FabricBuffer(driver_, kPeerBytes, peer_memory(options)));
        plan_.bytes = peers.front().mapped_bytes;
    }

    double time_cache() {
        fabricmem::ImportCache cache(driver_);
        std::vector<fabricmem::AcquireResult> results;
        auto acquire = [&] { results = cache.acquire_all(regions_); };
        const CallCounts before = driver_->counts();
        const double inside_before = timing_->inside_us();
        const double us = time_us(acquire);
        own_of_cache_.push_back(us - (timing_->inside_us() - inside_before));
        by_cache_ = since(before);
        for (const fabricmem::AcquireResult& result : results) {
            if (result.error) throw *result.error;
        }
        results.clear();
        cache.close();
        return us;
    }

    /// `times` imports of each.
    double time_raw(std::uint64_t times) {
        std::vector<std::unique_ptr<RawMemory>> imported;
        imported.reserve(handles_.size() * times);
        auto import_all = [&] {
            for (const RawHandle& handle : handles_) {
                for (std::uint64_t i = 0; i < times; ++i) {
                    imported.push_back(std::make_unique<RawMemory>(*driver_, plan_, handle));
                }
            }
        };
        const CallCounts before = driver_->counts();
        const double inside_before = timing_->inside_us();
        const double us = time_us(import_all);
        if (times != 1) return us;
        own_of_raw_.push_back(us - (timing_->inside_us() - inside_before));
        by_raw_ = since(before);
        return us;
    }

    /// Of the last time.
    [[nodiscard]] const CallCounts& by_cache() const noexcept { return by_cache_; }
    [[nodiscard]] const CallCounts& by_raw() const noexcept { return by_raw_; }
    /// Medians of microseconds outside the driver's calls.
    [[nodiscard]] double own_us_of_cache() const { return median_of(own_of_cache_); }
    [[nodiscard]] double own_us_of_raw() const { return median_of(own_of_raw_); }

private:
    [[nodiscard]] CallCounts since(const CallCounts& before) const noexcept {
        const CallCounts now = driver_->counts();
        return {.imports = now.imports - before.imports, .all = now.all - before.all};
    }

    // Timing is for one thread: the cache's importer is another one, which has ended when its caller looks.
    std::shared_ptr<TimingDriver> timing_;
    std::shared_ptr<CountingDriver> driver_;
    std::vector<fabricmem::HandleBlob> regions_;
    std::vector<RawHandle> handles_{};
    RawPlan plan_{};
    CallCounts by_cache_{};
    CallCounts by_raw_{};
    std::vector<double> own_of_cache_{};
    std::vector<double> own_of_raw_{};
};

void add_goals(Comparison& comparison, const PeerImports& imports, std::size_t count, bool real) {
    const auto number = [](std::uint64_t value) { return static_cast<double>(value); };
    comparison.figures = {{"imports", number(imports.by_cache().imports)},
                          {"driver calls", number(imports.by_cache().all)},
                          {"driver calls, raw", number(imports.by_raw().all)},
                          {"us outside of them", imports.own_us_of_cache()},
                          {"us outside of them, raw", imports.own_us_of_raw()}};
    comparison.goals.push_back({.what = examples::formatted("imports of {} peers x {} regions", count, kRegions),
                                .measured = number(imports.by_cache().imports),
                                .limit = number(count)});
    comparison.goals.push_back({.what = "driver calls, of the raw imports'",
                                .measured = number(imports.by_cache().all) / number(imports.by_raw().all),
                                .limit = 1});
    if (count != kRackPeers || !real) return;  // a stand-in's imports take no time to compare with
    comparison.goals.push_back({.what = examples::formatted("time of {} imports, of the raw ones'", count),
                                .measured = comparison.library.median() / comparison.raw->median(),
                                .limit = 1.1});
}

Comparison compare_peers(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                         const std::vector<fabricmem::HandleBlob>& peers, std::size_t count) {
    Comparison comparison{
        .name = examples::formatted("peers {} x {} regions", count, kRegions),
        .what =
            "import the memory of that many peers, 2 MiB each in 8 regions: acquire_all() of an empty cache, and raw "
            "imports of the allocations; beside: a raw import of each region; its end is not timed"};
    if (peers.size() < count) {
        comparison.skipped =
            examples::formatted("the second process had room for the memory of {} peers", peers.size());
        return comparison;
    }
    PeerImports imports(driver, options, peers, count);
    std::vector<Way> ways{{.name = "library", .time_us = [&] { return imports.time_cache(); }},
                          {.name = "raw", .time_us = [&] { return imports.time_raw(1); }}};
    if (count <= kRackPeers) {
        ways.push_back({.name = "raw, each region", .time_us = [&] { return imports.time_raw(kRegions); }});
    }
    const auto share = static_cast<std::uint32_t>(std::max<std::size_t>(10, count / 2));
    const Amount amount{.rounds = std::max(options.rounds / share, std::min(options.rounds, 5U)), .runs = options.runs};
    measure_ways(amount, comparison, ways, Second::raw);
    add_goals(comparison, imports, count, driver->name() == "cuda");
    return comparison;
}

}  // namespace

void bench_peers(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control,
                 const Take& take) {
    const std::vector<fabricmem::HandleBlob> peers = receive_blobs(control);
    for (const std::size_t count : kPeerCounts) take(compare_peers(driver, options, peers, count));
    control.send(pingpong::Message::done, "");
}

void serve_peers(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control) {
    std::vector<fabricmem::FabricBuffer> made;
    try {
        while (made.size() < kPeerCounts.back()) {
            fabricmem::FabricBufferOptions wanted = peer_memory(options);
            wanted.peer = numbered_id(made.size());
            made.emplace_back(driver, kPeerBytes, wanted);
        }
    } catch (const fabricmem::Error& error) {
        if (error.kind() != fabricmem::ErrorKind::out_of_memory) throw;
    }
    control.send(pingpong::Message::hello, std::to_string(made.size()));
    for (const fabricmem::FabricBuffer& buffer : made) control.send(pingpong::Message::blob, buffer.blob().to_bytes());
    (void)control.receive(pingpong::Message::done, "the end of the importing");
}

}  // namespace bench
