// SPDX-License-Identifier: Apache-2.0
// What the driver answers about batches of copies (cuMemcpyBatchAsync, CUDA 12.8), pinned by CUresult, on every driver
// at hand (docs/driver-notes.md). What kills a process is done in the peer.
#include <signal.h>

#include <array>
#include <vector>

#include "support/driver_under_test.hpp"
#include "support/peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

bool has_batches(Driver& driver) {
    int version = 0;
    return driver.driver_get_version(&version) == CUDA_SUCCESS && version >= 12080;
}

// A stream that does not block, and memory of the device with access.
struct Bench {
    explicit Bench(Driver& used)
        : driver(used), context(used), memory(used, device_memory(kNoHandle), {access_for(kDevice)}) {
        REQUIRE(memory.result() == CUDA_SUCCESS);
        REQUIRE(driver.memset_d8(memory.address(), 0, kTwoMiB) == CUDA_SUCCESS);
        REQUIRE(driver.ctx_synchronize() == CUDA_SUCCESS);
        REQUIRE(driver.stream_create(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;
    ~Bench() { driver.stream_destroy(stream); }

    [[nodiscard]] CUdeviceptr at(std::size_t word) const { return memory.address() + 4 * word; }
    CUresult batch(std::vector<CUdeviceptr> to, std::vector<CUdeviceptr> from, std::size_t bytes_each, CUstream on) {
        std::vector<std::size_t> bytes(to.size(), bytes_each);
        return driver.memcpy_batch_async(to.data(), from.data(), bytes.data(), to.size(), on);
    }
    std::uint32_t read(std::size_t word) {
        std::uint32_t value = 0;
        CHECK(driver.memcpy_dtoh(&value, at(word), sizeof value) == CUDA_SUCCESS);
        return value;
    }

    Driver& driver;
    const CurrentContext context;
    const Mapped memory;
    CUstream stream = nullptr;
};

CUdeviceptr as_address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace

#define FABRICMEM_BATCHES_OR_SKIP(driver) \
    if (!has_batches(driver)) FABRICMEM_SKIP("the driver is older than CUDA 12.8: it has no batches of copies")

TEST_CASE("A batch copies from and to all kinds of memory", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_BATCHES_OR_SKIP(*driver);
    Bench bench(*driver);
    const std::vector<std::uint32_t> heap{11, 12};
    const Mapped host(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    REQUIRE(host.result() == CUDA_SUCCESS);
    auto* const host_words = reinterpret_cast<std::uint32_t*>(host.address());
    host_words[0] = 13;
    std::uint32_t back = 0;
    CHECK(bench.batch({bench.at(0), bench.at(1), bench.at(2), host.address() + 4},
                      {as_address(heap.data()), as_address(&heap[1]), host.address(), as_address(heap.data())}, 4,
                      bench.stream) == CUDA_SUCCESS);
    CHECK(driver->stream_synchronize(bench.stream) == CUDA_SUCCESS);
    CHECK(bench.batch({bench.at(3), as_address(&back)}, {bench.at(0), bench.at(1)}, 4, bench.stream) == CUDA_SUCCESS);
    CHECK(driver->stream_synchronize(bench.stream) == CUDA_SUCCESS);
    CHECK(bench.read(0) == 11);
    CHECK(bench.read(1) == 12);
    CHECK(bench.read(2) == 13);
    CHECK(bench.read(3) == 11);
    CHECK(back == 12);
    CHECK(__atomic_load_n(host_words + 1, __ATOMIC_ACQUIRE) == 11);
}

TEST_CASE("A batch waits for what stands before it in its stream", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_BATCHES_OR_SKIP(*driver);
    Bench bench(*driver);
    CUstream other = nullptr;
    REQUIRE(driver->stream_create(&other, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    CHECK(driver->stream_wait_value32(bench.stream, bench.at(0), 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
    CHECK(bench.batch({bench.at(2), bench.at(3)}, {bench.at(1), bench.at(1)}, 4, bench.stream) == CUDA_SUCCESS);
    CHECK(driver->stream_query(bench.stream) == CUDA_ERROR_NOT_READY);
    CHECK(driver->stream_write_value32(other, bench.at(1), 7, 0) == CUDA_SUCCESS);  // seen: sources are read in order
    CHECK(driver->stream_write_value32(other, bench.at(0), 1, 0) == CUDA_SUCCESS);
    CHECK(driver->stream_synchronize(bench.stream) == CUDA_SUCCESS);
    CHECK(bench.read(2) == 7);
    CHECK(bench.read(3) == 7);
    CHECK(driver->stream_destroy(other) == CUDA_SUCCESS);
}

TEST_CASE("A batch of nothing, on the legacy default stream, past the end or without access is refused",
          "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_BATCHES_OR_SKIP(*driver);
    Bench bench(*driver);
    CHECK(bench.batch({}, {}, 4, bench.stream) == CUDA_ERROR_INVALID_VALUE);
    CHECK(bench.batch({bench.at(1)}, {bench.at(0)}, 4, nullptr) == CUDA_ERROR_INVALID_VALUE);
    CHECK(bench.batch({bench.at(0)}, {bench.at(1)}, kTwoMiB, bench.stream) == CUDA_ERROR_INVALID_VALUE);
    const Mapped closed(*driver, device_memory(kNoHandle), {});
    CHECK(bench.batch({closed.address()}, {bench.at(0)}, 4, bench.stream) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->stream_synchronize(bench.stream) == CUDA_SUCCESS);
}

TEST_CASE("A batch from the CPU's memory into host memory without host access ends the process", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_BATCHES_OR_SKIP(*driver);
    const CurrentContext context(*driver);
    const Mapped host(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    REQUIRE(host.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, host.handle(), &bytes) == CUDA_SUCCESS);
    auto* const words = reinterpret_cast<std::uint32_t*>(host.address());
    Peer peer;
    CHECK(peer.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CHECK(peer.code("batch 0 64 5 device") == CUDA_SUCCESS);
    CHECK(__atomic_load_n(words + 16, __ATOMIC_ACQUIRE) == 5);
    CHECK(peer.code("batch 0 64 6 heap") == -1);
    CHECK(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{-1, SIGSEGV});

    Peer with_host_access;
    CHECK(with_host_access.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    CHECK(with_host_access.code("map 0 both 3") == CUDA_SUCCESS);
    CHECK(with_host_access.code("batch 0 64 7 heap") == CUDA_SUCCESS);
    CHECK(__atomic_load_n(words + 16, __ATOMIC_ACQUIRE) == 7);
}

TEST_CASE("A batch into device memory from the CPU's memory needs no host access", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_BATCHES_OR_SKIP(*driver);
    Peer peer;
    (void)peer.export_memory();
    CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
    for (const std::string from : {"heap", "pinned", "device"}) {
        CAPTURE(from);
        CHECK(peer.code("batch 0 64 9 " + from) == CUDA_SUCCESS);
        CHECK(peer.ask("read 0 64").values == std::vector<std::string>{"9"});
        CHECK(peer.code("write 0 64 0") == CUDA_SUCCESS);
    }
}
