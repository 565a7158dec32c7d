// SPDX-License-Identifier: Apache-2.0
// What a driver object has done so far, in numbers.
#include <fabricmem/counters.hpp>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <fabricmem/fault_driver.hpp>
#include <fabricmem/import_cache.hpp>

#include "buffer/deadline.hpp"
#include "driver/driver_state.hpp"
#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

CallCounters counted(const Counters& all, std::string_view call) {
    for (const CallCounters& one : all.calls) {
        if (one.call == call) return one;
    }
    return {};
}

std::uint64_t sum_of(const CallCounters& call) {
    std::uint64_t sum = 0;
    for (const std::uint64_t bucket : call.histogram) sum += bucket;
    return sum;
}

}  // namespace

TEST_CASE("Buffers and imports are counted, with the most bytes that there were", "[counters][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver_under_test);
    const auto driver = std::make_shared<FaultDriver>(driver_under_test);  // one that has done nothing yet
    std::optional<FabricBuffer> first(std::in_place, driver, 3 * kMiB);
    {
        const FabricBuffer second(driver, 1);
        const ImportedFabricBuffer imported(driver, first->blob());
        const Counters now = counters(*driver);
        CHECK(now.buffers.live == 2);
        CHECK(now.buffers.live_bytes == 6 * kMiB);
        CHECK(now.imports.live == 1);
        CHECK(now.imports.live_bytes == 4 * kMiB);
    }
    first.reset();
    const FabricBuffer third(driver, 1);
    const Counters later = counters(*driver);
    CHECK(later.buffers.made == 3);
    CHECK(later.buffers.live == 1);
    CHECK(later.buffers.live_bytes == 2 * kMiB);
    CHECK(later.buffers.peak_bytes == 6 * kMiB);
    CHECK(later.imports.made == 1);
    CHECK(later.imports.live_bytes == 0);
    CHECK(later.imports.peak_bytes == 4 * kMiB);
    CHECK_FALSE(later.has_calls);
    CHECK(later.calls.empty());
}

TEST_CASE("Caches are counted together, those that are gone too", "[counters][cache]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    const FabricBuffer own(emulated, 1);
    const FabricBuffer other(emulated, 1, {.peer = Id128{{1}}});
    std::optional<ImportCache> first(std::in_place, driver, ImportCacheOptions{.max_entries = 1});
    ImportCache second(driver);
    for (int i = 0; i < 3; ++i) static_cast<void>(first->acquire(own.blob()));
    static_cast<void>(first->acquire(other.blob()));
    ImportView view = second.acquire(other.blob());
    second.add_range(Id128{{1}}, 0x10000, own.blob());
    CacheCounters now = counters(*driver).caches;
    CHECK(now.caches == 2);
    CHECK(now.hits == 2);
    CHECK(now.misses == 4);
    CHECK(now.imports == 4);
    CHECK(now.evicted_for_room == 1);
    CHECK(now.entries == 3);
    CHECK(now.bytes == 6 * kMiB);
    CHECK(now.ranges == 1);
    CHECK(counters(*driver).imports.made == 4);
    CHECK(counters(*emulated).caches.caches == 0);

    // One that ends, and whose import can't.
    REQUIRE(first->wait_until_torn_down(std::chrono::steady_clock::now() + std::chrono::seconds(60)));
    driver->add({.effect = Fault::Effect::hang, .call = "mem_unmap", .number = 1});
    first.reset();
    REQUIRE(driver->wait_until_hanging(1, std::chrono::seconds(60)));
    now = counters(*driver).caches;
    CHECK(now.caches == 1);
    CHECK(now.hits == 2);
    CHECK(now.evicted_for_room == 1);
    CHECK(now.entries == 2);
    CHECK(now.backlog == 1);
    CHECK(now.backlog_bytes == 2 * kMiB);
    driver->end_hangs();
    CHECK(detail::wait_until_stuck(*driver, 0, std::chrono::seconds(60)));
    CHECK(counters(*driver).caches.backlog == 0);
    CHECK(counters(*driver).caches.backlog_bytes == 0);

    CHECK(second.evict(Id128{{1}}) == 2);
    bool done = false;
    view.retire_after([&] { return done; });
    now = counters(*driver).caches;
    CHECK(now.evicted_by_peer == 2);
    CHECK(now.retired == 1);
    CHECK(now.deferred == 1);
    CHECK(now.ranges == 0);
    done = true;
    second.collect();
    CHECK(counters(*driver).caches.deferred == 0);
}

TEST_CASE("Caches come and go while they are counted", "[counters][cache][threads]") {
    const auto driver = make_emulated_driver();
    const FabricBuffer own(driver, 1);
    std::atomic<bool> over{false};
    std::atomic<int> wrong{0};
    std::thread reader([&] {
        for (std::uint64_t hits = 0; !over;) {
            const CacheCounters now = counters(*driver).caches;
            if (now.hits < hits || now.caches > 2) ++wrong;
            hits = now.hits;
        }
    });
    constexpr int kRounds = 100;
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < kRounds; ++round) {
                ImportView view;
                ImportCache cache(driver, {.max_entries = 4});
                for (int hit = 0; hit < 10; ++hit) view = cache.acquire(own.blob());
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    over = true;
    reader.join();
    CHECK(wrong == 0);
    CHECK(counters(*driver).caches.hits == 2 * kRounds * 9);
    CHECK(counters(*driver).caches.caches == 0);
}

TEST_CASE("Every call of the seam is counted under its own name, and handed on", "[counters]") {
    // Each function of the seam in order of driver.hpp, with arguments that do nothing: what a driver without any
    // answers, NOT_SUPPORTED, is a failure.
    class Nothing : public Driver {
    public:
        [[nodiscard]] std::string_view name() const noexcept override { return "nothing"; }
        [[nodiscard]] const Platform& platform() const noexcept override { return inner->platform(); }
        std::shared_ptr<Driver> inner = make_emulated_driver();
    };
    const auto counting = make_counting_driver(std::make_shared<Nothing>());
    CHECK(counting->name() == "nothing");
    CHECK(counters(*counting).has_calls);
    CHECK(counters(*counting).calls.empty());
    Driver& d = *counting;
    const std::vector<CUresult> results{
        d.init(0),
        d.driver_get_version(nullptr),
        d.get_error_name(CUDA_SUCCESS, nullptr),
        d.get_error_string(CUDA_SUCCESS, nullptr),
        d.device_get_count(nullptr),
        d.device_get(nullptr, 0),
        d.device_get_name(nullptr, 0, 0),
        d.device_get_uuid(nullptr, 0),
        d.device_get_pci_bus_id(nullptr, 0, 0),
        d.device_get_attribute(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0),
        d.device_total_mem(nullptr, 0),
        d.device_can_access_peer(nullptr, 0, 0),
        d.device_primary_ctx_retain(nullptr, 0),
        d.device_primary_ctx_release(0),
        d.device_primary_ctx_get_state(0, nullptr, nullptr),
        d.ctx_get_current(nullptr),
        d.ctx_set_current(nullptr),
        d.ctx_push_current(nullptr),
        d.ctx_pop_current(nullptr),
        d.ctx_get_device(nullptr),
        d.ctx_synchronize(),
        d.mem_get_allocation_granularity(nullptr, nullptr, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
        d.mem_create(nullptr, 0, nullptr, 0),
        d.mem_release(0),
        d.mem_retain_allocation_handle(nullptr, nullptr),
        d.mem_get_allocation_properties_from_handle(nullptr, 0),
        d.mem_export_to_shareable_handle(nullptr, 0, CU_MEM_HANDLE_TYPE_NONE, 0),
        d.mem_import_from_shareable_handle(nullptr, nullptr, CU_MEM_HANDLE_TYPE_NONE),
        d.mem_address_reserve(nullptr, 0, 0, 0, 0),
        d.mem_address_free(0, 0),
        d.mem_map(0, 0, 0, 0, 0),
        d.mem_unmap(0, 0),
        d.mem_set_access(0, 0, nullptr, 0),
        d.mem_get_access(nullptr, nullptr, 0),
        d.mem_get_address_range(nullptr, nullptr, 0),
        d.mem_get_handle_for_address_range(nullptr, 0, 0, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0),
        d.mem_alloc(nullptr, 0),
        d.mem_free(0),
        d.mem_alloc_host(nullptr, 0),
        d.mem_free_host(nullptr),
        d.ipc_get_mem_handle(nullptr, 0),
        d.pointer_get_attribute(nullptr, CU_POINTER_ATTRIBUTE_CONTEXT, 0),
        d.pointer_get_attributes(0, nullptr, nullptr, 0),
        d.memcpy(0, 0, 0),
        d.memcpy_htod(0, nullptr, 0),
        d.memcpy_dtoh(nullptr, 0, 0),
        d.memcpy_dtod(0, 0, 0),
        d.memcpy_async(0, 0, 0, nullptr),
        d.memcpy_batch_async(nullptr, nullptr, nullptr, 0, nullptr),
        d.memset_d8(0, 0, 0),
        d.memset_d8_async(0, 0, 0, nullptr),
        d.stream_create(nullptr, 0),
        d.stream_destroy(nullptr),
        d.stream_query(nullptr),
        d.stream_synchronize(nullptr),
        d.stream_write_value32(nullptr, 0, 0, 0),
        d.stream_wait_value32(nullptr, 0, 0, 0),
        d.stream_write_value64(nullptr, 0, 0, 0),
        d.stream_wait_value64(nullptr, 0, 0, 0),
        d.stream_begin_capture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL),
        d.stream_end_capture(nullptr, nullptr),
        d.stream_is_capturing(nullptr, nullptr),
        d.thread_exchange_stream_capture_mode(nullptr),
        d.graph_destroy(nullptr)};
    for (const CUresult result : results) CHECK(result == CUDA_ERROR_NOT_SUPPORTED);
    std::vector<std::string> names;
    for (const CallCounters& call : counters(*counting).calls) {
        CAPTURE(call.call);
        names.emplace_back(call.call);
        CHECK(call.calls == 1);
        CHECK(call.failures == 1);
        CHECK(call.max_ns == call.total_ns);
        CHECK(sum_of(call) == 1);
    }
    CHECK(names == FaultDriver::call_names());
}

TEST_CASE("A counting driver makes the same buffers, and counts each of their calls once", "[counters][each]") {
    FABRICMEM_DRIVER_OR_SKIP(inner);
    const auto driver = make_counting_driver(std::make_shared<FaultDriver>(inner));
    FabricBuffer own(driver, 1);
    const ImportedFabricBuffer imported(driver, own.blob());
    const Counters now = counters(*driver);
    CHECK(counted(now, "mem_create").calls == 1);
    CHECK(counted(now, "mem_address_reserve").calls == 2);
    CHECK(counted(now, "mem_import_from_shareable_handle").calls == 1);
    CHECK(counted(now, "mem_create").failures == 0);
    CHECK(counted(now, "mem_unmap").calls == 0);
    CHECK(now.buffers.live == 1);
    // In a wrapper the calls are found, and what is counted of buffers is the wrapper's.
    const auto wrapper = std::make_shared<FaultDriver>(driver);
    CHECK(counted(counters(*wrapper), "mem_create").calls == 1);
    CHECK(counters(*wrapper).buffers.live == 0);
}

TEST_CASE("The time of a call is in the bucket of its power of two", "[counters]") {
    // Takes as long as the clock is made to go on: nothing sleeps.
    class Slow : public ForwardingDriver {
    public:
        using ForwardingDriver::ForwardingDriver;
        CUresult ctx_synchronize() noexcept override {
            timespec begin{};
            timespec now{};
            ::clock_gettime(CLOCK_MONOTONIC, &begin);
            do {
                ::clock_gettime(CLOCK_MONOTONIC, &now);
            } while ((now.tv_sec - begin.tv_sec) * 1'000'000'000 + now.tv_nsec - begin.tv_nsec < 70'000);
            return CUDA_SUCCESS;
        }
    };
    const auto driver = make_counting_driver(std::make_shared<Slow>(make_emulated_driver()));
    for (int i = 0; i < 5; ++i) REQUIRE(driver->ctx_synchronize() == CUDA_SUCCESS);
    const CallCounters call = counted(counters(*driver), "ctx_synchronize");
    CHECK(call.calls == 5);
    CHECK(call.failures == 0);
    CHECK(call.total_ns >= 350'000);
    CHECK(call.max_ns >= 70'000);
    CHECK(call.max_ns <= call.total_ns);
    std::uint64_t at_least = 0;
    std::uint64_t at_most = 0;
    for (std::size_t i = 0; i < CallCounters::kBuckets; ++i) {
        at_least += call.histogram[i] << i;
        at_most += call.histogram[i] << (i + 1);
        if (i < 16) CHECK(call.histogram[i] == 0);  // 2^16 ns is less than each took
    }
    CHECK(at_least <= call.total_ns);
    CHECK(call.total_ns < at_most);
}

TEST_CASE("Calls of many threads are all counted", "[counters][threads]") {
    const auto driver = make_counting_driver(make_emulated_driver());
    constexpr int kThreads = 4;
    constexpr int kCalls = 2000;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            for (int call = 0; call < kCalls; ++call) {
                int number = 0;
                driver->device_get_count(&number);
                static_cast<void>(counters(*driver));
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(counted(counters(*driver), "device_get_count").calls == std::uint64_t{kThreads} * kCalls);
}

TEST_CASE("What is done without is counted by its cause, once for a buffer", "[counters][fault]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver({.devices = 3}));
    const QuietLog quiet;
    const auto make = [&](std::vector<std::uint64_t> refused, const Location& location) {
        driver->clear();
        for (const std::uint64_t number : refused)
            driver->add({.call = "mem_set_access", .number = number, .result = CUDA_ERROR_NOT_SUPPORTED});
        const FabricBuffer buffer(driver, 1, {.location = location});
        driver->clear();
        return counters(*driver).fallbacks;
    };
    FallbackCounters now = make({}, Location::host_numa(0));
    CHECK(now.access_refused + now.host_access_refused + now.access_one_by_one + now.rdma_not_granted == 0);
    now = make({1, 2, 3}, Location::host_numa(0));  // all at once, device 0, device 1
    CHECK(now.access_refused == 1);
    CHECK(now.host_access_refused == 0);
    now = make({1, 5}, Location::host_numa(0));  // the host is asked last
    CHECK(now.access_refused == 1);
    CHECK(now.host_access_refused == 1);
    CHECK(now.access_one_by_one == 0);
    now = make({1}, Location::host_numa(0));
    CHECK(now.access_refused == 1);
    CHECK(now.access_one_by_one == 1);
    CHECK(now.rdma_not_granted == 0);
}

TEST_CASE("RDMA that was asked for and not granted is counted, not what was never asked for", "[counters]") {
    // Grants no RDMA.
    class NoRdma : public ForwardingDriver {
    public:
        using ForwardingDriver::ForwardingDriver;
        CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                            const CUmemAllocationProp* properties, unsigned long long flags) noexcept override {
            CUmemAllocationProp without = *properties;
            without.allocFlags.gpuDirectRDMACapable = 0;
            return ForwardingDriver::mem_create(handle, bytes, &without, flags);
        }
    };
    const auto driver = std::make_shared<NoRdma>(make_emulated_driver());
    { const FabricBuffer buffer(driver, 1, {.rdma = Rdma::off}); }
    { const FabricBuffer buffer(driver, 1, {.location = Location::host_numa(0)}); }
    CHECK(counters(*driver).fallbacks.rdma_not_granted == 0);
    { const FabricBuffer buffer(driver, 1); }
    CHECK(counters(*driver).fallbacks.rdma_not_granted == 1);
}

TEST_CASE("Waits are counted, and those that were given up", "[counters][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    const QuietLog quiet;
    { const FabricBuffer zeroed(driver, 1, {.zeroing = Zeroing::memset}); }
    CHECK(counters(*driver).waits.gpu == 1);
    CHECK(counters(*driver).waits.gpu_timed_out == 0);
    detail::DriverState::of(*driver).patience.zeroing = std::chrono::milliseconds(0);
    driver->add({.call = "stream_query", .result = CUDA_ERROR_NOT_READY});
    CHECK(kind_of([&] { FabricBuffer(driver, 1, {.zeroing = Zeroing::memset}); }) == ErrorKind::timed_out);
    driver->clear();
    CHECK(counters(*driver).waits.gpu == 2);
    CHECK(counters(*driver).waits.gpu_timed_out == 1);
    CHECK(counters(*driver).given_up == 1);

    const FabricBuffer own(emulated, 1);
    { const ImportedFabricBuffer imported(driver, own.blob(), {.timeout = std::chrono::minutes(10)}); }
    CHECK(counters(*driver).waits.calls_with_deadline == 2);  // the import and its end
    CHECK(counters(*driver).waits.calls_given_up == 0);
    driver->add({.effect = Fault::Effect::hang, .call = "mem_import_from_shareable_handle"});
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.timeout = std::chrono::milliseconds(1)}); }) ==
          ErrorKind::timed_out);
    CHECK(counters(*driver).waits.calls_with_deadline == 3);
    CHECK(counters(*driver).waits.calls_given_up == 1);
    CHECK(counters(*driver).stuck_calls == 1);
    driver->clear();
    CHECK(detail::wait_until_stuck(*driver, 0, std::chrono::seconds(60)));
    CHECK(counters(*driver).stuck_calls == 0);
}

TEST_CASE("The JSON has every number under its name, and docs/counters.md has every name", "[counters]") {
    const auto driver = make_counting_driver(make_emulated_driver());
    const FabricBuffer own(driver, 1, {.retire_address = RetireAddress::yes});
    Counters now = counters(*driver);
    now.fallbacks = {1, 2, 3, 4};
    now.waits = {5, 6, 7, 8};
    now.given_up = 9;
    now.failed_tear_downs = 10;
    now.retired_ranges = 11;
    now.stuck_calls = 12;
    now.buffers = {13, 14, 15, 16};
    now.imports = {17, 18, 19, 20};
    now.caches = {21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38};
    const nlohmann::json json = nlohmann::json::parse(now.to_json());
    CHECK(json["schema"] == 1);
    CHECK(json["driver"] == "emulated");
    CHECK(json["calls"]["mem_create"]["calls"] == 1);
    CHECK(json["calls"]["mem_create"]["failures"] == 0);
    CHECK(json["calls"]["mem_create"]["total_ns"] == counted(now, "mem_create").total_ns);
    CHECK(json["calls"]["mem_create"]["max_ns"] == counted(now, "mem_create").max_ns);
    const auto& histogram = json["calls"]["mem_create"]["histogram_log2_ns"];
    REQUIRE(histogram.size() > 1);
    CHECK(histogram.back() == 1);
    CHECK_FALSE(json["calls"].contains("mem_unmap"));
    std::vector<std::uint64_t> numbers;
    for (const char* const group : {"fallbacks", "waits", "caches"}) {
        for (const auto& number : json[group]) numbers.push_back(number);
    }
    for (const char* const one : {"given_up", "failed_tear_downs", "retired_ranges", "stuck_calls"})
        numbers.push_back(json[one]);
    for (const char* const group : {"buffers", "imports"}) {
        for (const char* const one : {"made", "live", "live_bytes", "peak_bytes"}) numbers.push_back(json[group][one]);
    }
    std::sort(numbers.begin(), numbers.end());
    REQUIRE(numbers.size() == 38);
    CHECK(json["caches"]["hits"] == 22);
    CHECK(json["caches"]["backlog_bytes"] == 38);
    for (std::size_t i = 0; i < numbers.size(); ++i) CHECK(numbers[i] == i + 1);

    std::ifstream page(FABRICMEM_SOURCE_DIR "/docs/counters.md");
    std::ostringstream text;
    text << page.rdbuf();
    for (const auto& [name, value] : json.items()) {
        CAPTURE(name);
        CHECK(contains(text.str(), "`" + name));
        if (!value.is_object()) continue;
        for (const auto& [inner, ignored] : (name == "calls" ? value.begin().value() : value).items()) {
            CAPTURE(inner);
            CHECK(contains(text.str(), "`" + inner + "`"));
        }
    }
    now.has_calls = false;
    CHECK_FALSE(nlohmann::json::parse(now.to_json()).contains("calls"));
}

TEST_CASE("A forked child has done nothing", "[counters][fork]") {
    const auto driver = make_counting_driver(make_emulated_driver());
    const FabricBuffer own(driver, 1);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(counters(*driver).buffers.live == 0 && counters(*driver).calls.empty() ? 0 : 1);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    FABRICMEM_CHECK_ERROR(make_counting_driver(nullptr), bad_argument, "driver");
}
