// SPDX-License-Identifier: Apache-2.0
// What the driver answers about streams, waits and captures, pinned by CUresult, on every driver at hand
// (docs/driver-notes.md). Calls only through Driver.
#include <atomic>
#include <thread>

#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// Memory with 32-bit words that streams write and wait for, and one stream that nothing ever blocks.
struct Bench {
    explicit Bench(Driver& to) : driver(to), context(to), memory(to, device_memory(kFabric), {access_for(kDevice)}) {
        REQUIRE(memory.result() == CUDA_SUCCESS);
        REQUIRE(driver.stream_create(&free_stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
        REQUIRE(driver.mem_alloc_host(&pinned, 4096) == CUDA_SUCCESS);
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;
    ~Bench() {
        CHECK(driver.ctx_synchronize() == CUDA_SUCCESS);
        CHECK(driver.stream_destroy(free_stream) == CUDA_SUCCESS);
        CHECK(driver.mem_free_host(pinned) == CUDA_SUCCESS);
    }

    [[nodiscard]] CUdeviceptr word(std::size_t index) const { return memory.address() + 64 * index; }
    void write(std::size_t index, std::uint32_t value) {
        CHECK(driver.stream_write_value32(free_stream, word(index), value, 0) == CUDA_SUCCESS);
        CHECK(driver.stream_synchronize(free_stream) == CUDA_SUCCESS);
    }
    std::uint32_t read(std::size_t index) {
        CHECK(driver.memcpy_async(reinterpret_cast<CUdeviceptr>(pinned), word(index), 4, free_stream) == CUDA_SUCCESS);
        CHECK(driver.stream_synchronize(free_stream) == CUDA_SUCCESS);
        return *static_cast<std::uint32_t*>(pinned);
    }
    CUresult finish(CUstream stream) {
        CUresult result = CUDA_ERROR_NOT_READY;
        for (const Deadline deadline = in_seconds(30);
             result == CUDA_ERROR_NOT_READY && std::chrono::steady_clock::now() < deadline;) {
            result = driver.stream_query(stream);
            std::this_thread::yield();
        }
        return result;
    }

    Driver& driver;
    CurrentContext context;
    Mapped memory;
    CUstream free_stream = nullptr;
    void* pinned = nullptr;
};

struct OwnedStream {
    OwnedStream(Driver& to, unsigned int flags) : driver(to) {
        REQUIRE(driver.stream_create(&handle, flags) == CUDA_SUCCESS);
    }
    OwnedStream(const OwnedStream&) = delete;
    OwnedStream& operator=(const OwnedStream&) = delete;
    ~OwnedStream() { CHECK(driver.stream_destroy(handle) == CUDA_SUCCESS); }

    Driver& driver;
    CUstream handle = nullptr;
};

}  // namespace

TEST_CASE("A stream waits for a value and then goes on", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Bench bench(*driver);
    const OwnedStream stream(*driver, CU_STREAM_NON_BLOCKING);
    struct Row {
        unsigned int flags;
        std::uint32_t awaited, unmet, met;
    };
    const Row rows[] = {{CU_STREAM_WAIT_VALUE_GEQ, 5, 4, 6},
                        {CU_STREAM_WAIT_VALUE_GEQ, 5, 0xfffffff0, 5},  // cyclic: -16 is less than 5
                        {CU_STREAM_WAIT_VALUE_EQ, 5, 6, 5},
                        {CU_STREAM_WAIT_VALUE_AND, 6, 9, 4},
                        {CU_STREAM_WAIT_VALUE_NOR, 0xf0, 0xffffff0f, 0x0f}};
    for (const Row& row : rows) {
        CAPTURE(row.flags, row.awaited);
        bench.write(0, row.unmet);
        bench.write(1, 0);
        REQUIRE(driver->stream_wait_value32(stream.handle, bench.word(0), row.awaited, row.flags) == CUDA_SUCCESS);
        REQUIRE(driver->memset_d8_async(bench.word(1), 1, 4, stream.handle) == CUDA_SUCCESS);
        CHECK(driver->stream_query(stream.handle) == CUDA_ERROR_NOT_READY);
        CHECK(bench.read(1) == 0);
        bench.write(0, row.met);
        CHECK(bench.finish(stream.handle) == CUDA_SUCCESS);
        CHECK(bench.read(1) == 0x01010101);
    }
}

TEST_CASE("64-bit values are waited for whole", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Bench bench(*driver);
    const OwnedStream stream(*driver, CU_STREAM_NON_BLOCKING);
    const std::uint64_t value = 0x1234'5678'0000'0005;
    REQUIRE(driver->stream_wait_value64(stream.handle, bench.word(0), value, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
    bench.write(0, 5);
    CHECK(driver->stream_query(stream.handle) == CUDA_ERROR_NOT_READY);
    CHECK(driver->stream_write_value64(bench.free_stream, bench.word(0), value, 0) == CUDA_SUCCESS);
    CHECK(bench.finish(stream.handle) == CUDA_SUCCESS);
}

TEST_CASE("A blocked null stream holds up blocking streams and no others", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Bench bench(*driver);
    const OwnedStream blocking(*driver, CU_STREAM_DEFAULT);
    const OwnedStream other(*driver, CU_STREAM_NON_BLOCKING);
    REQUIRE(driver->stream_wait_value32(nullptr, bench.word(0), 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
    bench.write(3, 33);
    CHECK(driver->memcpy_async(bench.word(1), bench.word(3), 4, other.handle) == CUDA_SUCCESS);
    CHECK(bench.finish(other.handle) == CUDA_SUCCESS);
    CHECK(bench.read(1) == 33);
    CHECK(driver->memcpy_async(bench.word(2), bench.word(3), 4, blocking.handle) == CUDA_SUCCESS);
    CHECK(driver->stream_query(blocking.handle) == CUDA_ERROR_NOT_READY);
    CHECK(driver->stream_query(nullptr) == CUDA_ERROR_NOT_READY);
    CHECK(bench.read(2) == 0);
    bench.write(0, 1);
    CHECK(bench.finish(blocking.handle) == CUDA_SUCCESS);
    CHECK(bench.finish(nullptr) == CUDA_SUCCESS);
    CHECK(bench.read(2) == 33);
}

TEST_CASE("A capture in global mode forbids none of the calls for memory", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Bench bench(*driver);
    const OwnedStream stream(*driver, CU_STREAM_NON_BLOCKING);
    REQUIRE(driver->stream_begin_capture(stream.handle, CU_STREAM_CAPTURE_MODE_GLOBAL) == CUDA_SUCCESS);
    CHECK(driver->memset_d8_async(bench.word(3), 9, 4, stream.handle) == CUDA_SUCCESS);
    // create, reserve, map and set-access, by their order in Mapped
    Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    CHECK(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    CHECK(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);
    Mapped import(*driver, handle, {access_for(kDevice)});
    CHECK(import.result() == CUDA_SUCCESS);
    std::uint32_t value = 17;
    CHECK(driver->memcpy_htod(memory.address(), &value, sizeof value) == CUDA_SUCCESS);
    value = 0;
    CHECK(driver->memcpy_dtoh(&value, import.address(), sizeof value) == CUDA_SUCCESS);
    CHECK(value == 17);
    for (Mapped* const mapped : {&import, &memory}) {
        CHECK(mapped->release() == CUDA_SUCCESS);
        CHECK(mapped->unmap() == CUDA_SUCCESS);
        CHECK(mapped->destroy() == CUDA_SUCCESS);  // frees the range
    }
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CHECK(driver->stream_is_capturing(stream.handle, &status) == CUDA_SUCCESS);
    CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    CUgraph graph = nullptr;
    REQUIRE(driver->stream_end_capture(stream.handle, &graph) == CUDA_SUCCESS);
    CHECK(graph != nullptr);
    CHECK(driver->graph_destroy(graph) == CUDA_SUCCESS);
    CHECK(driver->stream_is_capturing(stream.handle, &status) == CUDA_SUCCESS);
    CHECK(status == CU_STREAM_CAPTURE_STATUS_NONE);
    CHECK(bench.read(3) == 0);  // what was captured was not done
}

TEST_CASE("The capture mode is exchanged", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    CHECK(driver->thread_exchange_stream_capture_mode(&mode) == CUDA_SUCCESS);
    CHECK(mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
    CHECK(driver->thread_exchange_stream_capture_mode(&mode) == CUDA_SUCCESS);
    CHECK(mode == CU_STREAM_CAPTURE_MODE_RELAXED);
}
