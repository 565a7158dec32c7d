// SPDX-License-Identifier: Apache-2.0
// Imports and their ends that hang: who waits for what, and how long. And children of fork().
#include <fabricmem/import_cache.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/counters.hpp>
#include <fabricmem/forwarding_driver.hpp>

#include "buffer/deadline.hpp"
#include "support/cache_kit.hpp"
#include "support/captured_process.hpp"
#include "support/fabric_kit.hpp"
#include "support/threads.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// Notes which thread makes each import.
class NotesThreads final : public ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override {
        {
            const std::lock_guard lock(mutex_);
            seen_.insert(::gettid());
        }
        return ForwardingDriver::mem_import_from_shareable_handle(handle, shareable, type);
    }
    [[nodiscard]] std::size_t seen() const {
        const std::lock_guard lock(mutex_);
        return seen_.size();
    }

private:
    mutable std::mutex mutex_;
    std::set<pid_t> seen_;
};

Fault hang(const char* call, std::uint64_t number = 0) {
    return {.effect = Fault::Effect::hang, .call = call, .number = number};
}

ImportCacheOptions with_limits(milliseconds import, milliseconds tear_down) {
    ImportCacheOptions options;
    options.import.timeout = import;
    options.import.tear_down_timeout = tear_down;
    return options;
}

constexpr milliseconds kShort{20};
constexpr milliseconds kNever{600'000};

template <typename Function>
auto in_thread(Function function) {
    return std::async(std::launch::async, std::move(function));
}

}  // namespace

TEST_CASE("An import that hangs holds up nobody who wants another allocation, nor a hit", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    const FabricBuffer slow = kit.make(), other = kit.make();
    const ImportView there = kit.cache.acquire(other.blob());
    kit.driver->add(hang("mem_map", 1));
    auto hung = in_thread([&] { return kit.cache.acquire(slow.blob()); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    const FabricBuffer third = kit.make();
    CHECK(kit.cache.acquire(third.blob()).is_open());
    CHECK(kit.cache.acquire(other.blob()).address() == there.address());
    CHECK(kit.cache.invalidate(*other.blob().allocation_id) == 1);
    kit.cache.collect();
    CHECK(kit.now().imports == 2);
    kit.driver->end_hangs();
    CHECK(hung.get().is_open());
}

TEST_CASE("While there is a cache two threads are kept for its imports and their ends, and none after it", "[cache]") {
    const auto driver = std::make_shared<NotesThreads>(make_emulated_driver());
    const auto kept = [] { return threads_called("fabricmem-call"); };
    std::vector<FabricBuffer> own;
    for (int i = 0; i < 8; ++i) own.emplace_back(driver, 1);
    const ImportOptions with_timeout{.timeout = kNever};
    { const ImportedFabricBuffer without_cache(driver, own[0].blob(), with_timeout); }
    CHECK(comes_true([&] { return kept() == 0; }));
    const std::size_t before = driver->seen();
    ImportCache cache(driver);
    CHECK(comes_true([&] { return kept() >= 1; }));
    for (const FabricBuffer& buffer : own) static_cast<void>(cache.acquire(buffer.blob()));
    CHECK(driver->seen() == before + 1);
    std::optional<ImportCache> other(std::in_place, driver);
    // Any number of threads at once, and two of them stay.
    for (const FabricBuffer& buffer : own) cache.invalidate(*buffer.blob().allocation_id);
    std::vector<std::future<void>> threads;
    for (const FabricBuffer& buffer : own)
        threads.push_back(in_thread([&] { static_cast<void>(cache.acquire(buffer.blob())); }));
    for (auto& thread : threads) thread.get();
    CHECK(cache.wait_until_torn_down(std::chrono::steady_clock::now() + kCachePatience));
    CHECK(comes_true([&] { return kept() <= 2; }));
    CHECK(kept() >= 1);
    const ImportView view = other->acquire(own[0].blob());
    cache.close();
    CHECK(kept() >= 1);
    other.reset();
    CHECK(comes_true([&] { return kept() == 0; }));
}

TEST_CASE("Threads that want what is being imported wait for that one import, and share what comes of it",
          "[cache][fault]") {
    for (const bool fails : {false, true}) {
        CacheKit kit(with_limits(kNever, kNever));
        const FabricBuffer own = kit.make();
        kit.driver->add(hang("mem_map", 1));
        if (fails) kit.driver->add({.call = "mem_set_access", .number = 1, .result = CUDA_ERROR_UNKNOWN});
        std::vector<std::future<std::optional<Error>>> threads;
        for (int i = 0; i < 4; ++i) {
            threads.push_back(
                in_thread([&] { return error_of([&] { static_cast<void>(kit.cache.acquire(own.blob())); }); }));
        }
        REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
        REQUIRE(comes_true([&] { return kit.now().waits == 3; }));
        kit.driver->end_hangs();
        for (auto& thread : threads) {
            const std::optional<Error> error = thread.get();
            CHECK(error.has_value() == fails);
            if (fails) CHECK(error->details().call == "cuMemSetAccess");
        }
        CHECK(kit.imports() == 1);
        CHECK(kit.now().failed_imports == (fails ? 1 : 0));
        CHECK(kit.cache.acquire(own.blob()).is_open());
        CHECK(kit.imports() == (fails ? 2 : 1));
    }
}

TEST_CASE("Who waits for another thread's import has a say in its idle time", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    const FabricBuffer own = kit.make();
    kit.driver->add(hang("mem_map", 1));
    auto first = in_thread([&] { static_cast<void>(kit.cache.acquire(own.blob())); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    auto second =
        in_thread([&] { static_cast<void>(kit.cache.acquire(own.blob(), {.idle_timeout = milliseconds(0)})); });
    REQUIRE(comes_true([&] { return kit.now().waits == 1; }));
    kit.driver->end_hangs();
    first.get();
    second.get();
    CHECK(kit.cache.collect() == 1);
}

TEST_CASE("A range whose peer starts anew while it waits for its import is not there afterwards", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    const Id128 peer = id_of(1);
    const FabricBuffer own = kit.make(0, 1), newer = kit.make(1, 2);
    kit.driver->add(hang("mem_map", 1));
    auto first = in_thread([&] { return kit.cache.acquire(own.blob()); });  // for nobody
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    auto second = in_thread([&] { kit.cache.add_range(peer, 0x10000, own.blob()); });
    REQUIRE(comes_true([&] { return kit.now().waits == 1; }));
    kit.cache.add_range(peer, kMiB * kMiB, newer.blob());
    kit.driver->end_hangs();
    second.get();
    CHECK(first.get().is_open());
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, 0x10000, 1), bad_argument, "in no range");
    CHECK(kit.now().ranges == 1);
}

TEST_CASE("An import that is given up is an error for all who wait, and is tried anew", "[cache][fault]") {
    CacheKit kit(with_limits(milliseconds(500), kNever));
    const FabricBuffer own = kit.make();
    static_cast<void>(kit.cache.acquire(kit.make().blob()));  // the driver is known
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    kit.driver->add(hang("mem_import_from_shareable_handle"));
    std::vector<std::future<ErrorKind>> threads;
    for (int i = 0; i < 3; ++i) {
        threads.push_back(
            in_thread([&] { return error_of([&] { static_cast<void>(kit.cache.acquire(own.blob())); })->kind(); }));
    }
    for (auto& thread : threads) CHECK(thread.get() == ErrorKind::timed_out);
    CHECK(stuck_calls(*kit.driver) >= 1);
    kit.driver->clear();
    CHECK(detail::wait_until_stuck(*kit.driver, 0, kCachePatience));
    CHECK(emulated_counts(*kit.emulated) == before);
    CHECK(kit.now().entries == 1);
    CHECK(kit.cache.acquire(own.blob()).is_open());
}

TEST_CASE("What is retired while it is imported goes to who asked before, and to nobody after", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    const FabricBuffer own = kit.make(1);
    kit.driver->add(hang("mem_map", 1));
    auto first = in_thread([&] { return kit.cache.acquire(own.blob()); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    CHECK(kit.cache.evict(id_of(1)) == 0);
    kit.driver->end_hangs();
    const ImportView early = first.get();
    CHECK(early.buffer().is_open());
    CHECK(kit.now().retired == 1);
    CHECK(kit.cache.acquire(own.blob()).address() != early.address());
    CHECK(kit.imports() == 2);
}

TEST_CASE("A tear-down that hangs holds up nobody, is in the backlog, and is given up for the next one",
          "[cache][fault]") {
    const QuietLog quiet;
    CacheKit kit(with_limits(kNever, kShort));
    std::vector<FabricBuffer> own;
    for (int i = 0; i < 4; ++i) own.push_back(kit.make(1));
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    std::vector<ImportView> views;
    for (const FabricBuffer& buffer : own) views.push_back(kit.cache.acquire(buffer.blob()));
    CHECK(kit.cache.evict(id_of(1)) == 4);
    kit.driver->add(hang("mem_unmap", 1));
    views.pop_back();
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    views.clear();
    CHECK(kit.now().entries == 0);
    // The other three end on another thread.
    CHECK(comes_true([&] {
        kit.cache.collect();
        return kit.now().backlog == 1;
    }));
    CHECK(kit.now().backlog_bytes == 2 * kMiB);
    CHECK(comes_true([&] {
        kit.cache.collect();
        return stuck_calls(*kit.driver) == 1;
    }));
    CHECK(kit.cache.acquire(own[0].blob()).is_open());
    const std::optional<Error> late = error_of([&] { kit.cache.close(); });
    REQUIRE(late.has_value());
    CHECK(late->kind() == ErrorKind::timed_out);
    CHECK(contains(late->what(), "1 cached imports, 0 of them of other nodes,"));
    CHECK(late->details().check == "FM-DRIVER-008");
    CHECK_FALSE(kit.cache.is_open());
    kit.driver->end_hangs();
    CHECK(detail::wait_until_stuck(*kit.driver, 0, kCachePatience));
    CHECK(comes_back(kit.emulated, before));
}

TEST_CASE("Where the end of another node's memory hangs close() says that the IMEX daemon may be why",
          "[cache][fault]") {
    const QuietLog quiet;
    const Fabric fabric = ready_made("gb200-nvl72");
    const FabricBuffer other(driver_on(fabric, "node0"), 1);
    const auto driver = std::make_shared<FaultDriver>(driver_on(fabric, "node1"));
    ImportCache cache(driver, with_limits(kNever, kShort));
    static_cast<void>(cache.acquire(other.blob()));
    driver->add(hang("mem_unmap", 1));
    const std::optional<Error> late = error_of([&] { cache.close(); });
    REQUIRE(late.has_value());
    CHECK(late->kind() == ErrorKind::timed_out);
    CHECK(contains(late->what(), "1 cached imports, 1 of them of other nodes,"));
    CHECK(late->details().check == "FM-IMEX-004");
    driver->end_hangs();
    CHECK(detail::wait_until_stuck(*driver, 0, kCachePatience));
}

TEST_CASE("A cache and views that end under a tear-down that hangs do not wait for it", "[cache][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    const FabricBuffer own(emulated, 1), other(emulated, 1);
    const EmulatedCounts before = emulated_counts(*emulated);
    {
        std::optional<ImportCache> cache(std::in_place, driver);
        ImportView view = cache->acquire(own.blob());
        static_cast<void>(cache->acquire(other.blob()));
        driver->add(hang("mem_release", 1));
        cache.reset();
    }
    REQUIRE(driver->wait_until_hanging(1, kCachePatience));
    driver->end_hangs();
    CHECK(comes_back(emulated, before));
    CHECK(detail::wait_until_stuck(*driver, 0, kCachePatience));
}

TEST_CASE("One blob that hangs does not keep acquire_all from the others", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    std::vector<FabricBuffer> own;
    std::vector<HandleBlob> blobs;
    for (int i = 0; i < 6; ++i) {
        own.push_back(kit.make());
        blobs.push_back(own.back().blob());
    }
    kit.driver->add(hang("mem_import_from_shareable_handle", 1));
    auto all = in_thread([&] { return kit.cache.acquire_all(blobs); });
    REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
    REQUIRE(comes_true([&] { return kit.now().imports == 5; }));
    CHECK(kit.driver->hanging() == 1);
    kit.driver->end_hangs();
    for (const AcquireResult& result : all.get()) CHECK(result.view.is_open());
}

TEST_CASE("acquire_all imports on one thread, and tries an allocation that fails once", "[cache][fault]") {
    CacheKit kit(with_limits(kNever, kNever));
    std::vector<FabricBuffer> own;
    std::vector<HandleBlob> blobs;
    for (int i = 0; i < 5; ++i) {
        own.push_back(kit.make());
        for (std::uint64_t part = 0; part < 3; ++part) blobs.push_back(own.back().blob().sub_range(part * kMiB / 2, 1));
    }
    own.erase(own.begin() + 1);
    const std::uint64_t before = counters(*kit.driver).waits.calls_with_deadline;
    const std::vector<AcquireResult> results = kit.cache.acquire_all(blobs);
    for (std::size_t i = 0; i < blobs.size(); ++i) {
        CHECK(results[i].view.is_open() == (i / 3 != 1));
        CHECK((i / 3 != 1 || results[i].error->kind() == ErrorKind::peer_gone));
    }
    CHECK(counters(*kit.driver).waits.calls_with_deadline == before + 1);
    CHECK(kit.now().failed_imports == 1);
    CHECK(kit.imports() == 5);
}

TEST_CASE("What acquire_all gives up is an error for all regions of that allocation, and comes back",
          "[cache][fault]") {
    CacheKit kit(with_limits(milliseconds(500), kNever));
    const FabricBuffer slow = kit.make(), other = kit.make(), third = kit.make();
    static_cast<void>(kit.cache.acquire(kit.make().blob()));  // the driver is known
    const std::vector<HandleBlob> blobs{slow.blob(), other.blob(), slow.blob().sub_range(4096, 1), third.blob(),
                                        slow.blob()};
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    kit.driver->add(hang("mem_import_from_shareable_handle", 1));
    {
        const std::vector<AcquireResult> results = kit.cache.acquire_all(blobs);
        for (const std::size_t late : {0U, 2U, 4U}) {
            REQUIRE(results[late].error.has_value());
            CHECK(results[late].error->kind() == ErrorKind::timed_out);
            CHECK(results[late].error->details().call == "cuMemImportFromShareableHandle");
        }
        CHECK(results[1].view.is_open());
        CHECK(results[3].view.is_open());
    }
    CHECK(kit.imports() == 1 + 3);
    CHECK(kit.now().failed_imports == 1);
    CHECK(stuck_calls(*kit.driver) == 1);
    kit.driver->clear();
    CHECK(detail::wait_until_stuck(*kit.driver, 0, kCachePatience));
    CHECK(kit.cache.invalidate(*other.blob().allocation_id) == 1);
    CHECK(kit.cache.invalidate(*third.blob().allocation_id) == 1);
    CHECK(kit.settled() == before);
    CHECK(kit.cache.acquire_all(blobs)[2].view.is_open());
}

TEST_CASE("acquire_all shares what another thread imports, and makes its own meanwhile", "[cache][fault]") {
    for (const bool fails : {false, true}) {
        CacheKit kit(with_limits(kNever, kNever));
        const FabricBuffer shared = kit.make(), own = kit.make();
        const std::vector<HandleBlob> blobs{shared.blob(), own.blob(), shared.blob()};
        kit.driver->add(hang("mem_map", 1));
        if (fails) kit.driver->add({.call = "mem_set_access", .number = 2, .result = CUDA_ERROR_UNKNOWN});
        auto first = in_thread([&] { return error_of([&] { static_cast<void>(kit.cache.acquire(shared.blob())); }); });
        REQUIRE(kit.driver->wait_until_hanging(1, kCachePatience));
        auto all = in_thread([&] { return kit.cache.acquire_all(blobs); });
        REQUIRE(comes_true([&] { return kit.now().waits == 1 && kit.now().imports == 1; }));
        kit.driver->end_hangs();
        const std::vector<AcquireResult> results = all.get();
        CHECK(first.get().has_value() == fails);
        CHECK(results[0].view.is_open() == !fails);
        CHECK(results[1].view.is_open());
        CHECK(results[2].view.address() == results[0].view.address());
        CHECK(kit.imports() == 2);
    }
}

TEST_CASE("Where no thread can be had acquire_all says so for each blob that it does not have", "[cache][fault]") {
    const QuietLog quiet;
    CacheKit kit(with_limits(kShort, kShort));
    const FabricBuffer there = kit.make(), own = kit.make();
    const ImportView view = kit.cache.acquire(there.blob());
    kit.driver->add(hang("mem_import_from_shareable_handle"));
    HandleBlob blob = own.blob();
    for (std::uint64_t i = 0; i < detail::Workers::kStuckMax; ++i) {
        blob.allocation_id = id_of(i + 1);
        static_cast<void>(error_of([&] { static_cast<void>(kit.cache.acquire(blob)); }));
    }
    REQUIRE(stuck_calls(*kit.driver) == detail::Workers::kStuckMax);
    const std::vector<HandleBlob> blobs{own.blob(), there.blob(), own.blob()};
    const std::vector<AcquireResult> results = kit.cache.acquire_all(blobs);
    CHECK(results[0].error->kind() == ErrorKind::conflict);
    CHECK(results[1].view.address() == view.address());
    CHECK(results[2].error->kind() == ErrorKind::conflict);
    kit.driver->clear();
    CHECK(detail::wait_until_stuck(*kit.driver, 0, kCachePatience));
    CHECK(kit.cache.acquire_all(blobs)[2].view.is_open());
}

TEST_CASE("Imports end by the next miss where no thread could be had at first", "[cache][fault]") {
    const QuietLog quiet;
    CacheKit kit(with_limits(kShort, kShort));
    const FabricBuffer own = kit.make();
    ImportView view = kit.cache.acquire(own.blob());
    const EmulatedCounts with_one = emulated_counts(*kit.emulated);
    // As many calls as may hang.
    kit.driver->add(hang("mem_import_from_shareable_handle"));
    HandleBlob blob = own.blob();
    for (std::uint64_t i = 0; i < detail::Workers::kStuckMax + 8; ++i) {
        blob.allocation_id = id_of(i + 1);
        static_cast<void>(error_of([&] { static_cast<void>(kit.cache.acquire(blob)); }));
    }
    CHECK(stuck_calls(*kit.driver) == detail::Workers::kStuckMax);
    CHECK(kit.cache.invalidate(*own.blob().allocation_id) == 1);
    view.let_go();
    CHECK(kit.now().backlog == 1);
    kit.driver->clear();
    CHECK(detail::wait_until_stuck(*kit.driver, 0, kCachePatience));
    kit.cache.collect();
    CHECK(comes_true([&] { return kit.now().backlog == 0; }));
    CHECK(emulated_counts(*kit.emulated) != with_one);
    kit.cache.close();
}

namespace {

constexpr int kWell = 0;
constexpr int kNotRefused = 12;

template <typename Action>
bool refused_in_child(Action&& action) {
    const auto error = error_of(action);
    return error.has_value() && error->kind() == ErrorKind::unsupported && contains(error->what(), "fork");
}

int child_of_cache(std::optional<ImportCache>& cache, ImportCache& closed, const std::shared_ptr<Driver>& driver,
                   const HandleBlob& blob, ImportView& view, ImportView& retired) {
    const std::vector<HandleBlob> blobs{blob};
    if (!refused_in_child([&] { static_cast<void>(cache->acquire(blob)); })) return kNotRefused;
    if (!refused_in_child([&] { static_cast<void>(cache->acquire_all(blobs)); })) return kNotRefused;
    if (!refused_in_child([&] { static_cast<void>(cache->translate(Id128(), 0, 1)); })) return kNotRefused;
    if (!refused_in_child([&] { cache->add_range(Id128(), 0, blob); })) return kNotRefused;
    if (!refused_in_child([&] { cache->collect(); })) return kNotRefused;
    if (!refused_in_child([&] { cache->evict(Id128()); })) return kNotRefused;
    if (!refused_in_child([&] { static_cast<void>(cache->statistics()); })) return kNotRefused;
    if (!refused_in_child([&] { closed.close(); }) || closed.is_open()) return kNotRefused;
    if (!refused_in_child([&] { ImportCache foreign(driver); })) return kNotRefused;
    if (!refused_in_child([&] { view.retire_after([] { return true; }); }) || !view.is_open()) return kNotRefused;
    const ImportView copy = view;
    view.let_go();
    retired.let_go();
    cache.reset();
    return kWell;
}

}  // namespace

TEST_CASE("After fork a child's cache and views do nothing, also while the parent holds the lock", "[cache][fork]") {
    const auto driver = make_emulated_driver();
    const FabricBuffer own(driver, 1), other(driver, 1), third(driver, 1);
    const EmulatedCounts before = emulated_counts(*driver);
    std::optional<ImportCache> cache(std::in_place, driver);
    ImportCache closed(driver);
    ImportView view = cache->acquire(own.blob());
    ImportView retired = cache->acquire(other.blob());
    cache->invalidate(*other.blob().allocation_id);
    {
        std::jthread busy([&](const std::stop_token& stop) {
            while (!stop.stop_requested()) cache->collect();
        });
        std::jthread importing([&](const std::stop_token& stop) {
            const std::vector<HandleBlob> blobs{own.blob(), third.blob()};
            while (!stop.stop_requested()) {
                static_cast<void>(cache->acquire_all(blobs));
                cache->invalidate(*third.blob().allocation_id);
            }
        });
        for (int i = 0; i < 20; ++i) {
            const pid_t child = ::fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                ::alarm(60);  // a child that hangs ends
                ::_exit(child_of_cache(cache, closed, driver, own.blob(), view, retired));
            }
            int status = 0;
            REQUIRE(::waitpid(child, &status, 0) == child);
            CHECK(status == kWell);
        }
    }
    CHECK(view.buffer().is_open());
    CHECK(cache->acquire(own.blob()).address() == view.address());
    view.let_go();
    retired.let_go();
    cache->close();
    closed.close();
    CHECK(emulated_counts(*driver) == before);
}

TEST_CASE("A process ends while caches, views and ends that hang are alive, and prints nothing", "[cache][exit]") {
    for (const char* const how : {"return", "exit"}) {
        CAPTURE(how);
        CapturedProcess process({FABRICMEM_TEST_EXIT, how, "caches"});
        CHECK(process.finish(60) == 0);
        CHECK(process.out().empty());
        CHECK(contains(process.err(), "at exit the driver \"emulated\" holds"));  // the log's place
    }
}
