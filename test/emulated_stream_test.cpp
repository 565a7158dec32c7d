// SPDX-License-Identifier: Apache-2.0
// The emulated driver's streams, contexts and copies: order, threads that come and go, loss of a context, and stress.
#include <fabricmem/emulated_driver.hpp>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "support/child_process.hpp"
#include "support/driver_kit.hpp"
#include "support/test.hpp"
#include "support/threads.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

std::size_t emulator_threads() { return threads_called("fabricmem-emu"); }

template <typename Condition>
bool eventually(Condition&& condition) {
    for (const Deadline deadline = in_seconds(30); std::chrono::steady_clock::now() < deadline;) {
        if (condition()) return true;
        std::this_thread::yield();
    }
    return false;
}

CUstream make_stream(Driver& driver, unsigned int flags) {
    CUstream stream = nullptr;
    REQUIRE(driver.stream_create(&stream, flags) == CUDA_SUCCESS);
    return stream;
}

// A driver, a current context, and host memory that the test loads and stores directly.
struct Bench {
    std::shared_ptr<Driver> driver = make_emulated_driver();
    CurrentContext context{*driver};
    Mapped memory{*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)}};

    [[nodiscard]] CUdeviceptr at(std::size_t index) const { return memory.address() + 64 * index; }
    [[nodiscard]] std::atomic_ref<std::uint32_t> word(std::size_t index) const {
        return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(at(index)));
    }
    CUresult wait_for_one(CUstream stream, std::size_t index) const {
        return driver->stream_wait_value32(stream, at(index), 1, CU_STREAM_WAIT_VALUE_EQ);
    }
};

}  // namespace

TEST_CASE("Work that waits for nothing needs no thread, and a thread ends after the last that did", "[emulated]") {
    const Bench bench;
    REQUIRE(emulator_threads() == 0);
    const CUstream stream = make_stream(*bench.driver, 0);
    CHECK(bench.driver->memset_d8_async(bench.at(1), 1, 4, stream) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_write_value32(stream, bench.at(2), 1, 0) == CUDA_SUCCESS);
    CHECK(bench.wait_for_one(stream, 2) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_query(stream) == CUDA_SUCCESS);
    CHECK(emulator_threads() == 0);
    CHECK(bench.wait_for_one(stream, 0) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_query(stream) == CUDA_ERROR_NOT_READY);
    CHECK(eventually([] { return emulator_threads() == 1; }));
    bench.word(0).store(1, std::memory_order_release);
    CHECK(bench.driver->stream_synchronize(stream) == CUDA_SUCCESS);
    CHECK(eventually([] { return emulator_threads() == 0; }));
    CHECK(bench.driver->stream_destroy(stream) == CUDA_SUCCESS);
}

TEST_CASE("Work of one stream is done in order", "[emulated]") {
    const Bench bench;
    const CUstream stream = make_stream(*bench.driver, CU_STREAM_NON_BLOCKING);
    CHECK(bench.wait_for_one(stream, 0) == CUDA_SUCCESS);
    for (std::uint32_t i = 1; i <= 100; ++i) {
        CHECK(bench.driver->stream_write_value32(stream, bench.at(1), i, 0) == CUDA_SUCCESS);
        CHECK(bench.driver->memcpy_async(bench.at(i + 1), bench.at(1), 4, stream) == CUDA_SUCCESS);
    }
    CHECK(bench.word(1).load() == 0);
    bench.word(0).store(1);
    CHECK(bench.driver->stream_synchronize(stream) == CUDA_SUCCESS);
    for (std::uint32_t i = 1; i <= 100; ++i) CHECK(bench.word(i + 1).load() == i);
    CHECK(bench.driver->stream_destroy(stream) == CUDA_SUCCESS);
}

TEST_CASE("The null stream waits for blocking streams, and a synchronous copy with it", "[emulated]") {
    const Bench bench;
    const CUstream blocking = make_stream(*bench.driver, 0);
    const CUstream free_stream = make_stream(*bench.driver, CU_STREAM_NON_BLOCKING);
    CHECK(bench.wait_for_one(blocking, 0) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_query(nullptr) == CUDA_ERROR_NOT_READY);
    CHECK(bench.driver->memset_d8_async(bench.at(1), 1, 4, nullptr) == CUDA_SUCCESS);
    CHECK(bench.driver->memset_d8_async(bench.at(2), 1, 4, free_stream) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_query(free_stream) == CUDA_SUCCESS);
    CHECK(bench.word(2).load() == 0x01010101);
    CHECK(bench.word(1).load() == 0);

    // Catch2's macros are for the runner's thread alone.
    std::atomic<bool> copied{false};
    CUresult result = CUDA_ERROR_UNKNOWN;
    std::uint32_t value = 0;
    std::thread copier([&] {
        const CurrentContext context(*bench.driver);
        result = bench.driver->memcpy_dtoh(&value, bench.at(1), 4);
        copied = true;
    });
    CHECK(!copied);
    bench.word(0).store(1);
    copier.join();
    CHECK(result == CUDA_SUCCESS);
    CHECK(value == 0x01010101);
    CHECK(bench.driver->stream_destroy(blocking) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_destroy(free_stream) == CUDA_SUCCESS);
}

TEST_CASE("A destroyed stream finishes its work", "[emulated]") {
    const Bench bench;
    const CUstream stream = make_stream(*bench.driver, CU_STREAM_NON_BLOCKING);
    CHECK(bench.wait_for_one(stream, 0) == CUDA_SUCCESS);
    CHECK(bench.driver->memset_d8_async(bench.at(1), 1, 4, stream) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_destroy(stream) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_destroy(stream) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(emulated_counts(*bench.driver).streams == 0);
    CHECK(bench.word(1).load() == 0);
    bench.word(0).store(1);
    CHECK(eventually([&] { return bench.word(1).load() == 0x01010101; }));
    CHECK(bench.driver->ctx_synchronize() == CUDA_SUCCESS);
}

TEST_CASE("A driver abandons what waits when it ends", "[emulated]") {
    for (int round = 0; round < 20; ++round) {
        const Bench bench;
        CHECK(bench.wait_for_one(make_stream(*bench.driver, 0), 0) == CUDA_SUCCESS);
        CHECK(bench.wait_for_one(nullptr, 1) == CUDA_SUCCESS);
    }
}

TEST_CASE("Unmapping under queued work fails the context until it is released", "[emulated]") {
    Bench bench;
    const CUstream stream = make_stream(*bench.driver, CU_STREAM_NON_BLOCKING);
    Mapped data(*bench.driver, device_memory(kFabric), {access_for(kDevice)});
    SECTION("a set that waits its turn") {
        CHECK(bench.wait_for_one(stream, 0) == CUDA_SUCCESS);
        CHECK(bench.driver->memset_d8_async(data.address(), 1, kTwoMiB, stream) == CUDA_SUCCESS);
        CHECK(data.unmap() == CUDA_SUCCESS);
        bench.word(0).store(1);
    }
    SECTION("work on memory that is wholly gone by then") {
        CHECK(bench.wait_for_one(stream, 0) == CUDA_SUCCESS);
        Mapped gone(*bench.driver, device_memory(kFabric), {access_for(kDevice)});
        SECTION("set") { CHECK(bench.driver->memset_d8_async(gone.address(), 1, kTwoMiB, stream) == CUDA_SUCCESS); }
        SECTION("copied from") {
            CHECK(bench.driver->memcpy_async(bench.at(9), gone.address(), 4, stream) == CUDA_SUCCESS);
        }
        SECTION("copied to") {
            CHECK(bench.driver->memcpy_async(gone.address(), bench.at(9), 4, stream) == CUDA_SUCCESS);
        }
        CHECK(gone.destroy() == CUDA_SUCCESS);
        bench.word(0).store(1);
    }
    SECTION("a value that is being polled") {
        CHECK(bench.driver->stream_wait_value32(stream, data.address(), 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
        CHECK(data.unmap() == CUDA_SUCCESS);
    }
    CHECK(bench.driver->stream_synchronize(stream) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(bench.driver->stream_query(stream) == CUDA_ERROR_LAUNCH_FAILED);
    std::uint32_t value = 0;
    CHECK(bench.driver->memcpy_dtoh(&value, bench.at(0), 4) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(bench.driver->ctx_synchronize() == CUDA_ERROR_LAUNCH_FAILED);
    CUcontext again = nullptr;
    CHECK(bench.driver->device_primary_ctx_release(0) == CUDA_SUCCESS);
    CHECK(emulated_counts(*bench.driver).streams == 0);
    CHECK(bench.driver->memcpy_dtoh(&value, bench.at(0), 4) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
    REQUIRE(bench.driver->device_primary_ctx_retain(&again, 0) == CUDA_SUCCESS);
    CHECK(bench.driver->memcpy_dtoh(&value, bench.at(0), 4) == CUDA_SUCCESS);
}

TEST_CASE("Memory may be torn down under a poll at any moment", "[emulated]") {
    for (int round = 0; round < 200; ++round) {
        const auto driver = make_emulated_driver();
        const CurrentContext context(*driver);
        Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        CHECK(driver->stream_wait_value32(nullptr, memory.address(), 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
        CHECK(memory.destroy() == CUDA_SUCCESS);
        CHECK(driver->stream_synchronize(nullptr) == CUDA_ERROR_LAUNCH_FAILED);
    }
}

TEST_CASE("Memory that work is queued on is freed after the work alone", "[emulated]") {
    for (const bool pinned : {true, false}) {
        CAPTURE(pinned);
        const auto driver = make_emulated_driver();
        const CurrentContext context(*driver);
        void* host = nullptr;
        CUdeviceptr device = 0;
        REQUIRE(driver->mem_alloc_host(&host, 4096) == CUDA_SUCCESS);
        REQUIRE(driver->mem_alloc(&device, 4096) == CUDA_SUCCESS);
        auto* const word = static_cast<std::uint32_t*>(host);
        CUstream stream = nullptr;
        REQUIRE(driver->stream_create(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
        CHECK(driver->stream_wait_value32(stream, reinterpret_cast<CUdeviceptr>(word), 1, CU_STREAM_WAIT_VALUE_EQ) ==
              CUDA_SUCCESS);
        std::atomic<bool> freed{false};
        CUresult result = CUDA_ERROR_UNKNOWN;
        std::thread freeing([&] {
            const CurrentContext own(*driver);
            result = pinned ? driver->mem_free_host(host) : driver->mem_free(device);
            freed = true;
        });
        for (int i = 0; i < 2000; ++i) std::this_thread::yield();
        CHECK_FALSE(freed);  // not while the word is 0
        CHECK(driver->stream_query(stream) == CUDA_ERROR_NOT_READY);
        std::atomic_ref<std::uint32_t>(*word).store(1);
        freeing.join();
        CHECK(result == CUDA_SUCCESS);
        CHECK(driver->stream_query(stream) == CUDA_SUCCESS);
        CHECK(driver->stream_destroy(stream) == CUDA_SUCCESS);
    }
    const Bench bench;
    const auto heap = std::make_unique<std::uint32_t>(1);
    CHECK(bench.driver->stream_wait_value32(nullptr, reinterpret_cast<CUdeviceptr>(heap.get()), 1,
                                            CU_STREAM_WAIT_VALUE_EQ) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("The null stream does not wait for non-blocking streams", "[emulated]") {
    const Bench bench;
    const CUstream free_stream = make_stream(*bench.driver, CU_STREAM_NON_BLOCKING);
    CHECK(bench.wait_for_one(free_stream, 0) == CUDA_SUCCESS);
    CHECK(bench.driver->memset_d8_async(bench.at(1), 1, 4, nullptr) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_query(nullptr) == CUDA_SUCCESS);
    CHECK(bench.word(1).load() == 0x01010101);
    bench.word(0).store(1);
    CHECK(bench.driver->ctx_synchronize() == CUDA_SUCCESS);
    CHECK(bench.driver->stream_destroy(free_stream) == CUDA_SUCCESS);
}

TEST_CASE("Current contexts belong to a thread and a driver", "[emulated]") {
    EmulatedOptions options;
    options.devices = 2;
    const auto one = make_emulated_driver(options);
    const auto two = make_emulated_driver(options);
    CUcontext first = nullptr;
    CUcontext second = nullptr;
    REQUIRE(one->device_primary_ctx_retain(&first, 0) == CUDA_SUCCESS);
    REQUIRE(one->device_primary_ctx_retain(&second, 1) == CUDA_SUCCESS);
    CHECK(one->ctx_push_current(first) == CUDA_SUCCESS);
    CHECK(one->ctx_push_current(second) == CUDA_SUCCESS);
    CUdevice device = -1;
    CHECK(one->ctx_get_device(&device) == CUDA_SUCCESS);
    CHECK(device == 1);
    CHECK(two->ctx_get_device(&device) == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(two->ctx_set_current(first) == CUDA_ERROR_INVALID_CONTEXT);
    CUresult elsewhere = CUDA_SUCCESS;
    std::thread([&] { elsewhere = one->ctx_get_device(&device); }).join();
    CHECK(elsewhere == CUDA_ERROR_INVALID_CONTEXT);
    CUcontext popped = nullptr;
    CHECK(one->ctx_pop_current(&popped) == CUDA_SUCCESS);
    CHECK(popped == second);
    CHECK(one->ctx_set_current(nullptr) == CUDA_SUCCESS);
    CHECK(one->ctx_pop_current(&popped) == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(one->device_primary_ctx_release(0) == CUDA_SUCCESS);
    CHECK(one->device_primary_ctx_release(1) == CUDA_SUCCESS);
    CHECK(one->device_primary_ctx_release(1) == CUDA_ERROR_INVALID_CONTEXT);
}

TEST_CASE("A primary context takes its cuMemAlloc memory and its streams with it", "[emulated]") {
    const auto driver = make_emulated_driver();
    {
        const CurrentContext context(*driver);
        CUdeviceptr address = 0;
        REQUIRE(driver->mem_alloc(&address, kTwoMiB) == CUDA_SUCCESS);
        const CUstream stream = make_stream(*driver, 0);
        CHECK(driver->stream_wait_value32(stream, address, 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
    }
    CHECK(emulated_counts(*driver) == EmulatedCounts{});
}

TEST_CASE("Only devices with access copy, and read access does not write", "[emulated]") {
    EmulatedOptions options;
    options.devices = 2;
    const auto driver = make_emulated_driver(options);
    const CurrentContext context(*driver);
    const Mapped other(*driver, device_memory(kFabric), {access_for(kDevice, 3, 1)});
    const Mapped read_only(*driver, device_memory(kFabric), {access_for(kDevice, 1, 0)});
    std::uint32_t value = 0;
    CHECK(driver->memcpy_dtoh(&value, other.address(), 4) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memcpy_dtoh(&value, read_only.address(), 4) == CUDA_SUCCESS);
    CHECK(driver->memcpy_htod(read_only.address(), &value, 4) == CUDA_ERROR_INVALID_VALUE);
    unsigned long long flags = 99;
    const CUmemLocation location{CU_MEM_LOCATION_TYPE_DEVICE, 0};
    CHECK(driver->mem_get_access(&flags, &location, other.address()) == CUDA_SUCCESS);
    CHECK(flags == 0);
    CHECK(driver->mem_get_access(&flags, &location, read_only.address()) == CUDA_SUCCESS);
    CHECK(flags == 1);
}

TEST_CASE("Copies of every size and alignment bring the right bytes", "[emulated]") {
    const auto driver = make_emulated_driver();
    const CurrentContext context(*driver);
    const Mapped device(*driver, device_memory(kFabric), {access_for(kDevice)}, 2 * kTwoMiB);
    const Mapped second(*driver, device_memory(kFabric), {access_for(kDevice)}, 2 * kTwoMiB);
    const Mapped host(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)}, 2 * kTwoMiB);
    std::vector<unsigned char> sent(kTwoMiB + 77);
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<unsigned char>(i * 131 >> 3);
    for (const std::size_t bytes :
         {std::size_t{1}, std::size_t{4}, std::size_t{8}, std::size_t{13}, std::size_t{4096}, kTwoMiB + 77}) {
        for (const std::size_t shift : {0U, 1U, 4U, 8U}) {
            CAPTURE(bytes, shift);
            std::vector<unsigned char> got(bytes);
            CHECK(driver->memcpy_htod(device.address() + shift, sent.data(), bytes) == CUDA_SUCCESS);
            CHECK(driver->memcpy_dtod(second.address(), device.address() + shift, bytes) == CUDA_SUCCESS);
            CHECK(driver->memcpy(host.address() + shift, second.address(), bytes) == CUDA_SUCCESS);
            CHECK(driver->memcpy_dtoh(got.data(), host.address() + shift, bytes) == CUDA_SUCCESS);
            CHECK(std::memcmp(got.data(), sent.data(), bytes) == 0);
            CHECK(std::memcmp(reinterpret_cast<void*>(host.address() + shift), sent.data(), bytes) == 0);
        }
    }
    CHECK(driver->memset_d8(device.address() + 1, 0, kTwoMiB + 9) == CUDA_SUCCESS);
    std::vector<unsigned char> got(kTwoMiB + 77);
    CHECK(driver->memcpy_dtoh(got.data(), device.address(), got.size()) == CUDA_SUCCESS);
    CHECK(got[1] == 0);
    CHECK(got[kTwoMiB + 9] == 0);
    CHECK(got[kTwoMiB + 10] == sent[kTwoMiB + 2]);
    CHECK(driver->memcpy_htod(device.address(), reinterpret_cast<void*>(16), 64) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("Plain copies take host memory on both sides, the others only where they say so", "[emulated]") {
    const auto driver = make_emulated_driver();
    const CurrentContext context(*driver);
    std::vector<std::uint32_t> heap{1, 2, 3, 4};
    const auto at = [&](std::size_t index) { return reinterpret_cast<CUdeviceptr>(&heap[index]); };
    CHECK(driver->memcpy(at(1), at(0), 4) == CUDA_SUCCESS);
    CHECK(driver->memcpy_async(at(2), at(0), 4, nullptr) == CUDA_SUCCESS);
    CHECK(heap == std::vector<std::uint32_t>{1, 1, 1, 4});
    CHECK(driver->memcpy_htod(at(1), &heap[3], 4) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memcpy_dtoh(&heap[1], at(3), 4) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memcpy_dtod(at(1), at(3), 4) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memset_d8(at(1), 9, 4) == CUDA_ERROR_INVALID_VALUE);
    Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    const CUdeviceptr stale = memory.address();
    CHECK(memory.destroy() == CUDA_SUCCESS);
    CHECK(driver->memcpy_htod(stale, heap.data(), 4) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memset_d8(stale, 1, kTwoMiB) == CUDA_ERROR_INVALID_VALUE);
    void* pinned = nullptr;
    REQUIRE(driver->mem_alloc_host(&pinned, 64) == CUDA_SUCCESS);
    CHECK(driver->memset_d8(reinterpret_cast<CUdeviceptr>(pinned), 7, 64) == CUDA_SUCCESS);
    CHECK(driver->memset_d8(reinterpret_cast<CUdeviceptr>(pinned), 7, 65) == CUDA_ERROR_INVALID_VALUE);
    CHECK(static_cast<unsigned char*>(pinned)[63] == 7);
    CHECK(driver->mem_free_host(pinned) == CUDA_SUCCESS);
}

TEST_CASE("Two mappings side by side are copied across", "[emulated]") {
    const auto driver = make_emulated_driver();
    const CurrentContext context(*driver);
    CUdeviceptr address = 0;
    REQUIRE(driver->mem_address_reserve(&address, 3 * kTwoMiB, 0, 0, 0) == CUDA_SUCCESS);
    const CUmemAllocationProp wanted = device_memory(kFabric);
    CUmemGenericAllocationHandle handles[2] = {};
    for (std::size_t i = 0; i < 2; ++i) {
        REQUIRE(driver->mem_create(&handles[i], kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_map(address + i * kTwoMiB, kTwoMiB, 0, handles[i], 0) == CUDA_SUCCESS);
    }
    const CUmemAccessDesc access = access_for(kDevice);
    REQUIRE(driver->mem_set_access(address, 2 * kTwoMiB, &access, 1) == CUDA_SUCCESS);
    const std::vector<unsigned char> sent(8192, 0x3c);
    std::vector<unsigned char> got(8192);
    CHECK(driver->memcpy_htod(address + kTwoMiB - 4096, sent.data(), 8192) == CUDA_SUCCESS);
    CHECK(driver->memcpy_dtoh(got.data(), address + kTwoMiB - 4096, 8192) == CUDA_SUCCESS);
    CHECK(got == sent);
    CHECK(driver->memcpy_htod(address + 2 * kTwoMiB - 4096, sent.data(), 8192) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_unmap(address, 3 * kTwoMiB) == CUDA_SUCCESS);
    for (const auto handle : handles) CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    CHECK(driver->mem_address_free(address, 3 * kTwoMiB) == CUDA_SUCCESS);
}

TEST_CASE("Whoever sees a flag sees the payload that was copied before it", "[emulated]") {
    const Bench bench;
    const auto importer = make_emulated_driver();
    FabricBytes bytes{};
    REQUIRE(export_fabric(*bench.driver, bench.memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*importer, bytes, &handle) == CUDA_SUCCESS);
    const Mapped import(*importer, handle, {access_for(kDevice)});
    constexpr std::uint32_t kRounds = 500;
    std::atomic<int> failures{0};
    std::thread writer([&] {
        const CurrentContext context(*importer);
        for (std::uint32_t round = 1; round <= kRounds; ++round) {
            const std::vector<std::uint32_t> payload(1024, round);
            if (importer->memcpy_htod(import.address() + 4096, payload.data(), 4096) != CUDA_SUCCESS) ++failures;
            if (importer->memcpy_htod(import.address(), &round, 4) != CUDA_SUCCESS) ++failures;
            eventually([&] { return bench.word(1).load(std::memory_order_acquire) == round; });
        }
    });
    bool right = true;
    for (std::uint32_t round = 1; round <= kRounds; ++round) {
        right = eventually([&] { return bench.word(0).load(std::memory_order_acquire) == round; }) && right;
        for (std::size_t i = 64; i < 80; ++i) right = bench.word(i).load(std::memory_order_relaxed) == round && right;
        bench.word(1).store(round, std::memory_order_release);
    }
    writer.join();
    CHECK(failures == 0);
    CHECK(right);
}

TEST_CASE("Threads make, share, use and drop memory without a trace", "[emulated]") {
    const auto driver = make_emulated_driver();
    const EmulatedCounts before = emulated_counts(*driver);
    std::atomic<int> failures{0};
    const auto expect = [&](CUresult result) {
        if (result != CUDA_SUCCESS) ++failures;
    };
    const auto work = [&](unsigned int seed) {
        const CurrentContext context(*driver);
        CUstream stream = nullptr;
        expect(driver->stream_create(&stream, seed % 2 == 0 ? CU_STREAM_NON_BLOCKING : 0));
        for (int round = 0; round < 30; ++round) {
            const Mapped memory(*driver, seed % 3 == 0 ? host_memory(kFabric) : device_memory(kFabric),
                                {access_for(kDevice)});
            expect(memory.result());
            FabricBytes bytes{};
            expect(export_fabric(*driver, memory.handle(), &bytes));
            CUmemGenericAllocationHandle handle = 0;
            expect(import_fabric(*driver, bytes, &handle));
            const Mapped import(*driver, handle, {access_for(kDevice)});
            expect(driver->stream_wait_value32(stream, memory.address(), 1, CU_STREAM_WAIT_VALUE_EQ));
            expect(driver->memset_d8_async(import.address() + 64, 0x42, 4096, stream));
            expect(driver->stream_write_value32(nullptr, import.address() + 8192, 1, 0));
            const std::uint32_t one = 1;
            std::thread([&] {  // a plain store, as another process's
                CUcontext current = nullptr;
                expect(driver->device_primary_ctx_retain(&current, 0));
                expect(driver->ctx_set_current(current));
                CUstream own = nullptr;
                expect(driver->stream_create(&own, CU_STREAM_NON_BLOCKING));
                expect(driver->memcpy_async(import.address(), reinterpret_cast<CUdeviceptr>(&one), 4, own));
                expect(driver->stream_synchronize(own));
                expect(driver->stream_destroy(own));
                expect(driver->device_primary_ctx_release(0));
            })
                .join();
            expect(driver->stream_synchronize(stream));
            expect(driver->ctx_synchronize());
            std::uint32_t value = 0;
            expect(driver->memcpy_dtoh(&value, memory.address() + 64, 4));
            if (value != 0x42424242) ++failures;
            static_cast<void>(emulated_counts(*driver));
        }
        expect(driver->stream_destroy(stream));
    };
    std::vector<std::thread> workers;
    for (unsigned int i = 0; i < 6; ++i) workers.emplace_back(work, i);
    for (std::thread& worker : workers) worker.join();
    CHECK(failures == 0);
    CHECK(emulated_counts(*driver) == before);
}

TEST_CASE("Each thread has a default stream of its own, which the null stream waits for and other threads do not",
          "[emulated]") {
    const Bench bench;
    CUcontext context = nullptr;
    REQUIRE(bench.driver->ctx_get_current(&context) == CUDA_SUCCESS);
    CHECK(bench.wait_for_one(CU_STREAM_PER_THREAD, 0) == CUDA_SUCCESS);
    CUresult other = CUDA_ERROR_UNKNOWN;
    std::thread([&] {
        bench.driver->ctx_push_current(context);
        bench.driver->memset_d8_async(bench.at(1), 7, 4, CU_STREAM_PER_THREAD);
        other = bench.driver->stream_synchronize(CU_STREAM_PER_THREAD);
    }).join();
    CHECK(other == CUDA_SUCCESS);
    CHECK(bench.word(1).load() == 0x07070707);
    CHECK(bench.driver->memset_d8_async(bench.at(2), 8, 4, nullptr) == CUDA_SUCCESS);
    CHECK(bench.driver->stream_query(nullptr) == CUDA_ERROR_NOT_READY);
    CHECK(bench.driver->memset_d8_async(bench.at(3), 9, 4, CU_STREAM_PER_THREAD) == CUDA_SUCCESS);
    bench.word(0).store(1, std::memory_order_release);
    CHECK(bench.driver->stream_synchronize(CU_STREAM_PER_THREAD) == CUDA_SUCCESS);
    CHECK(bench.word(2).load() == 0x08080808);
    CHECK(bench.word(3).load() == 0x09090909);
}
