// SPDX-License-Identifier: Apache-2.0
// acquire_all() beside all that others do at the same time, and with blobs of every kind in one call.
#include <fabricmem/import_cache.hpp>

#include <algorithm>
#include <atomic>
#include <future>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "buffer/deadline.hpp"
#include "support/build.hpp"
#include "support/cache_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr milliseconds kNever{600'000};

ImportCacheOptions with_limits(milliseconds import, milliseconds tear_down) {
    ImportCacheOptions options;
    options.import.timeout = import;
    options.import.tear_down_timeout = tear_down;
    return options;
}

Fault hang(const char* call, std::uint64_t number) {
    return {.effect = Fault::Effect::hang, .call = call, .number = number};
}

template <typename Function>
auto in_thread(Function function) {
    return std::async(std::launch::async, std::move(function));
}

// A sink that does not return from that line until it may.
class StuckSink {
public:
    explicit StuckSink(const char* line) {
        set_log_sink([this, line](LogLevel, std::string_view text) {
            if (!contains(text, line)) return;
            entered_ = true;
            open_.wait();
        });
    }
    StuckSink(const StuckSink&) = delete;
    StuckSink& operator=(const StuckSink&) = delete;
    ~StuckSink() { set_log_sink({}); }
    [[nodiscard]] bool entered() const { return entered_; }
    void let_go() { opens_.set_value(); }

private:
    std::promise<void> opens_;
    std::shared_future<void> open_ = opens_.get_future().share();
    std::atomic<bool> entered_{false};
};

}  // namespace

TEST_CASE("A log sink that waits does not keep acquire_all from giving up what is late", "[cache][fault]") {
    CacheKit kit(with_limits(milliseconds(500), milliseconds(1)));
    const FabricBuffer slow = kit.make(), ended = kit.make(), older = kit.make(1, 1), newer = kit.make(1, 2);
    ImportView view = kit.cache.acquire(ended.blob());
    static_cast<void>(kit.cache.acquire(older.blob()));
    const std::vector<HandleBlob> blobs{slow.blob(), newer.blob()};
    StuckSink sink("tear-down of a cached import is given up");
    kit.driver->add(hang("mem_import_from_shareable_handle", 1));
    auto all = in_thread([&] { return kit.cache.acquire_all(blobs); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    kit.driver->add(hang("mem_unmap", 1));
    kit.cache.invalidate(*ended.blob().allocation_id);
    view.let_go();
    // The end of `older`, which the newer generation retires, finds the one before late: unless all this was too slow.
    CHECK(comes_true([&] { return sink.entered() || kit.now().imports == 3; }));
    CHECK(comes_true([&] { return kit.now().failed_imports >= 1; }));
    sink.let_go();
    const std::vector<AcquireResult> results = all.get();
    REQUIRE(results[0].error.has_value());
    CHECK(results[0].error->kind() == ErrorKind::timed_out);
    kit.driver->clear();
    CHECK(detail::wait_until_stuck(*kit.driver, 0, kCachePatience));
}

TEST_CASE("A handle that is wrong is no error of another blob of that allocation", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    HandleBlob wrong_handle = own.blob(), wrong_size = own.blob();
    wrong_handle.handle[8] ^= 1;
    wrong_size.mapped_bytes *= 2;
    const std::vector<AcquireResult> results =
        kit.cache.acquire_all(std::vector<HandleBlob>{wrong_handle, wrong_size, wrong_handle, own.blob()});
    for (std::size_t i = 0; i < 3; ++i) CHECK(results[i].error.has_value());
    CHECK(results[3].view.is_open());
    CHECK(kit.now().failed_imports == 2);
}

TEST_CASE("acquire_all takes blobs of every kind, more than there is room for, and the longest time limit", "[cache]") {
    ImportCacheOptions options = with_limits(milliseconds::max(), milliseconds::max());
    options.max_entries = 2;
    CacheKit kit(options);
    const FabricBuffer first = kit.make(), second = kit.make(), third = kit.make();
    std::vector<HandleBlob> blobs{
        first.blob(),
        HandleBlob::from_bare(first.blob().bare_hex(), first.mapped_bytes(), first.location()),
        second.blob(),
        third.blob(),
        {}};
    blobs.resize(200, first.blob());
    const std::vector<AcquireResult> results = kit.cache.acquire_all(blobs);
    CHECK(results[1].error->kind() == ErrorKind::bad_argument);
    CHECK(results[3].error->kind() == ErrorKind::out_of_memory);
    CHECK(results[4].error->kind() == ErrorKind::bad_blob);
    CHECK(std::count_if(results.begin(), results.end(), [](const auto& result) { return result.view.is_open(); }) ==
          197);
    CHECK(kit.imports() == 2);
    for (const AcquireResult& result : kit.cache.acquire_all(blobs, {.peer = {}, .idle_timeout = milliseconds(-1)}))
        CHECK(result.error.has_value());
}

TEST_CASE("Two acquire_all that want each other's allocations both have them, by one import each", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    const FabricBuffer one = kit.make(), two = kit.make();
    kit.driver->add(hang("mem_map", 1));
    kit.driver->add(hang("mem_map", 2));
    const auto acquire = [&](const FabricBuffer& first, const FabricBuffer& second) {
        return kit.cache.acquire_all(std::vector<HandleBlob>{first.blob(), second.blob(), first.blob()});
    };
    auto there = in_thread([&] { return acquire(one, two); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    auto back = in_thread([&] { return acquire(two, one); });
    REQUIRE(kit.driver->wait_until_hanging(2, kCachePatience));
    kit.driver->end_hangs();
    const std::vector<AcquireResult> theirs = there.get(), ours = back.get();
    CHECK(theirs[0].view.address() == ours[1].view.address());
    CHECK(theirs[1].view.address() == ours[0].view.address());
    CHECK(ours[2].view.address() == ours[0].view.address());
    CHECK(kit.imports() == 2);
}

TEST_CASE("What acquire_all imports while its peer starts anew goes to the blob that was first, and to no other one",
          "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    const FabricBuffer old = kit.make(1, 1), other = kit.make(), newer = kit.make(1, 2);
    const std::vector<HandleBlob> blobs{old.blob(), other.blob(), old.blob().sub_range(5, 1)};
    kit.driver->add(hang("mem_map", 1));
    auto all = in_thread([&] { return kit.cache.acquire_all(blobs); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    CHECK(kit.cache.acquire(newer.blob()).is_open());
    kit.driver->end_hangs();
    const std::vector<AcquireResult> results = all.get();
    CHECK(results[0].view.is_open());
    CHECK(results[1].view.is_open());
    REQUIRE(results[2].error.has_value());
    CHECK(results[2].error->kind() == ErrorKind::peer_gone);
    CHECK(kit.now().retired == 1);
}

TEST_CASE("Imports that come back around their deadline, in caches that end meanwhile, are had or given back",
          "[cache][fault][threads]") {
    const QuietLog quiet;
    const auto emulated = make_emulated_driver();
    std::vector<FabricBuffer> own;
    std::vector<HandleBlob> blobs;
    for (int i = 0; i < 12; ++i) {
        own.emplace_back(emulated, 1);
        blobs.push_back(own.back().blob());
        blobs.push_back(own.back().blob().sub_range(0, 1));
    }
    const std::vector<HandleBlob> backwards(blobs.rbegin(), blobs.rend());
    const EmulatedCounts before = emulated_counts(*emulated);
    const auto driver = std::make_shared<FaultDriver>(emulated);
    { const ImportedFabricBuffer known(driver, blobs[0]); }
    for (const int microseconds : {1'600, 1'900, 2'000, 2'100, 2'400}) {
        driver->add({.effect = Fault::Effect::delay,
                     .call = "mem_set_access",
                     .probability = 0.1,
                     .delay = std::chrono::microseconds(microseconds)});
    }
    std::atomic<int> had{0}, late{0}, wrong{0};
    const int rounds = kSlowBuild ? 20 : 100;
    for (int round = 0; round < rounds; ++round) {
        const auto cache = std::make_unique<ImportCache>(driver, with_limits(milliseconds(2), milliseconds(2)));
        std::vector<std::jthread> threads;
        for (const auto* wanted : {&std::as_const(blobs), &backwards}) {
            threads.emplace_back([&, wanted] {
                for (const AcquireResult& result : cache->acquire_all(*wanted)) {
                    if (result.view.is_open() == result.error.has_value()) ++wrong;
                    if (result.view.is_open()) {
                        ++had;
                    } else {
                        ++late;
                        if (result.error->kind() != ErrorKind::timed_out && result.error->kind() != ErrorKind::conflict)
                            ++wrong;
                    }
                }
            });
        }
        if (round % 2 == 0) cache->evict(Id128());
    }
    CHECK(wrong == 0);
    CHECK(had > rounds);
    CHECK(late > rounds / 10);
    CHECK(detail::wait_until_stuck(*driver, 0, kCachePatience));
    CHECK(comes_back(emulated, before));
}
