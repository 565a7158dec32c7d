// SPDX-License-Identifier: Apache-2.0
// What the driver answers between processes, pinned by CUresult, on every driver at hand (docs/driver-notes.md). What
// kills a process or loses a context is done in the peer.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/driver_under_test.hpp"
#include "support/peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

std::uint32_t read_word(Driver& driver, CUdeviceptr address) {
    std::uint32_t value = 0;
    CHECK(driver.memcpy_dtoh(&value, address, sizeof value) == CUDA_SUCCESS);
    return value;
}

FabricBytes export_of(Driver& driver, const Mapped& memory) {
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    return bytes;
}

}  // namespace

TEST_CASE("Two processes see each other's bytes in device memory", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    const FabricBytes bytes = export_of(*driver, memory);
    Peer peer;
    CHECK(peer.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CHECK(peer.code("write 0 64 77") == CUDA_SUCCESS);
    CHECK(read_word(*driver, memory.address() + 64) == 77);
    CHECK(peer.code("stream-write 0 128 78") == CUDA_SUCCESS);
    CHECK(read_word(*driver, memory.address() + 128) == 78);
    CHECK(driver->memset_d8(memory.address(), 0x22, 256) == CUDA_SUCCESS);
    CHECK(driver->ctx_synchronize() == CUDA_SUCCESS);  // a memset returns before it is done
    CHECK(peer.ask("read 0 128").values == std::vector<std::string>{std::to_string(0x22222222)});
}

TEST_CASE("Two processes' CPUs share host memory", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    const FabricBytes bytes = export_of(*driver, memory);
    Peer peer;
    CHECK(peer.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    CHECK(peer.code("map 0 both 3") == CUDA_SUCCESS);
    CHECK(peer.code("store 0 99") == CUDA_SUCCESS);
    CHECK(__atomic_load_n(reinterpret_cast<std::uint32_t*>(memory.address()), __ATOMIC_ACQUIRE) == 99);
    CHECK(read_word(*driver, memory.address()) == 99);
    CHECK(peer.code("stream-write 0 4 100") == CUDA_SUCCESS);  // by the GPU
    CHECK(__atomic_load_n(reinterpret_cast<std::uint32_t*>(memory.address() + 4), __ATOMIC_ACQUIRE) == 100);
}

TEST_CASE("The CPU of an importer without host access dies of a load or store", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped device(*driver, device_memory(kFabric), {access_for(kDevice)});
    const Mapped host(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    for (const Mapped* const memory : {&device, &host}) {
        for (const char* const command : {"load 0", "store 0 1"}) {
            CAPTURE(command, memory == &device);
            Peer peer;
            CHECK(peer.code("import 0 " + to_hex(export_of(*driver, *memory))) == CUDA_SUCCESS);
            CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
            CHECK(peer.code(command) == -1);
            CHECK(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{-1, SIGSEGV});
        }
    }
}

TEST_CASE("An import is refused once the exporter has released the memory", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Peer peer;
    const FabricBytes bytes = peer.export_memory();
    CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);

    CHECK(peer.code("release 0") == CUDA_SUCCESS);
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);  // the mapping keeps memory and export alive
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);

    CHECK(peer.code("unmap 0") == CUDA_SUCCESS);
    CHECK(import_fabric(*driver, bytes, &handle) == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("An import is refused once the exporter has ended", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Peer peer;
    const FabricBytes bytes = peer.export_memory();
    SECTION("by itself") { CHECK(peer.leave() == Ended{0, 0}); }
    SECTION("killed") {
        peer.process().signal(SIGKILL);
        CHECK(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{-1, SIGKILL});
    }
    CUmemGenericAllocationHandle handle = 0;
    CHECK(import_fabric(*driver, bytes, &handle) == CUDA_ERROR_NOT_SUPPORTED);
}

namespace {

enum class End : std::uint8_t { tears_down, is_killed };

// Each in a test case, so a process, of its own: the second one's primary context is then no second life of the
// first's.
void outlive_the_exporter(const std::shared_ptr<Driver>& driver, End end) {
    const CurrentContext context(*driver);
    Peer peer;
    const FabricBytes bytes = peer.export_memory();
    REQUIRE(peer.code("map 0 device 3") == CUDA_SUCCESS);
    REQUIRE(peer.code("write 0 64 1234") == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);
    const Mapped memory(*driver, handle, {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    if (end == End::tears_down) {
        CHECK(peer.code("unmap 0") == CUDA_SUCCESS);
        CHECK(peer.code("release 0") == CUDA_SUCCESS);
        CHECK(read_word(*driver, memory.address() + 64) == 1234);
        CHECK(peer.leave() == Ended{0, 0});
    }
    if (end == End::is_killed) {
        peer.process().signal(SIGKILL);
        CHECK(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{-1, SIGKILL});
    }
    CHECK(read_word(*driver, memory.address() + 64) == 1234);
    CHECK(driver->memset_d8(memory.address(), 1, kTwoMiB) == CUDA_SUCCESS);
}

}  // namespace

TEST_CASE("What an importer has mapped outlives an exporter that tears down", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    outlive_the_exporter(driver, End::tears_down);
}

TEST_CASE("What an importer has mapped outlives an exporter that is killed", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    outlive_the_exporter(driver, End::is_killed);
}

TEST_CASE("A process that imports the same bytes twice has two handles onto one memory", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    Peer peer;
    const FabricBytes bytes = peer.export_memory();
    REQUIRE(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CUmemGenericAllocationHandle first = 0;
    CUmemGenericAllocationHandle second = 0;
    REQUIRE(import_fabric(*driver, bytes, &first) == CUDA_SUCCESS);
    REQUIRE(import_fabric(*driver, bytes, &second) == CUDA_SUCCESS);
    CHECK(first != second);
    const Mapped kept(*driver, second, {access_for(kDevice)});
    REQUIRE(kept.result() == CUDA_SUCCESS);
    {
        const Mapped dropped(*driver, first, {access_for(kDevice)});
        REQUIRE(dropped.result() == CUDA_SUCCESS);
        REQUIRE(peer.code("write 0 64 5") == CUDA_SUCCESS);
        CHECK(read_word(*driver, dropped.address() + 64) == 5);
        CHECK(read_word(*driver, kept.address() + 64) == 5);
    }
    REQUIRE(peer.code("write 0 64 6") == CUDA_SUCCESS);
    CHECK(read_word(*driver, kept.address() + 64) == 6);  // the other one's end changed nothing
}

TEST_CASE("A handle without a mapping is released once", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Peer peer;  // a process of its own: the driver may crash over what is no handle
    (void)peer.export_memory();
    CHECK(peer.code("release 0") == CUDA_SUCCESS);
    CHECK(peer.code("release 0") == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("An import is not to be exported again", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Peer peer;
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, peer.export_memory(), &handle) == CUDA_SUCCESS);
    FabricBytes again{};
    CHECK(export_fabric(*driver, handle, &again) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
}

namespace {

// Each with arguments that are good where the driver works.
std::vector<CUresult> all_calls_for_memory(Driver& driver, const Mapped& memory) {
    CUmemGenericAllocationHandle handle = 0;
    const CUmemAllocationProp wanted = device_memory(kFabric);
    const CUmemAccessDesc access = access_for(kDevice);
    FabricBytes bytes{};
    std::uint32_t value = 0;
    CUdeviceptr address = 0;
    return {driver.mem_create(&handle, kTwoMiB, &wanted, 0),
            driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 0),
            driver.memcpy_dtoh(&value, memory.address(), 4),
            driver.mem_retain_allocation_handle(&handle, reinterpret_cast<void*>(memory.address())),
            export_fabric(driver, memory.handle(), &bytes),
            import_fabric(driver, bytes, &handle),
            driver.mem_set_access(memory.address(), kTwoMiB, &access, 1),
            driver.mem_unmap(memory.address(), kTwoMiB),
            driver.mem_map(memory.address(), kTwoMiB, 0, memory.handle(), 0),
            driver.mem_release(memory.handle()),
            driver.mem_address_free(memory.address(), kTwoMiB),
            driver.memset_d8(memory.address(), 1, 4),
            driver.ctx_synchronize()};
}

}  // namespace

TEST_CASE("In a forked child every call is NOT_INITIALIZED", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // nothing of Catch2 from here on
        ::alarm(kPeerSeconds);
        const std::vector<CUresult> answers = all_calls_for_memory(*driver, memory);
        for (std::size_t i = 0; i < answers.size(); ++i) {
            if (answers[i] != CUDA_ERROR_NOT_INITIALIZED) ::_exit(static_cast<int>(i) + 1);
        }
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);  // bounded by the child's alarm
    INFO("call " << WEXITSTATUS(status) << " of all_calls_for_memory");
    CHECK(status == 0);
}

TEST_CASE("Unmapping under queued work succeeds and loses the context", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Peer peer;  // a process of its own: its context is lost for good
    const PeerAnswer answer = peer.ask("lose-context");
    CHECK(answer.code == CUDA_SUCCESS);
    CHECK(answer.values == std::vector<std::string>{"0", std::to_string(CUDA_ERROR_LAUNCH_FAILED),
                                                    std::to_string(CUDA_ERROR_LAUNCH_FAILED)});
}
