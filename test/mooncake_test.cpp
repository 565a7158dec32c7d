// SPDX-License-Identifier: Apache-2.0
// Does to our memory what Mooncake's NVLink transport does with a pointer that it is given: retain, range, export; the
// peer imports the bare 64 bytes with the entry's length and writes.
#include <atomic>
#include <cstring>
#include <optional>

#include <fabricmem/arena.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// What registerLocalMemory publishes of a range.
struct Entry {
    CUdeviceptr base = 0;
    std::size_t length = 0;
    FabricBytes shm_name{};
    CUmemGenericAllocationHandle retained = 0;
};

std::optional<Entry> register_local_memory(Driver& driver, void* address) {
    Entry entry;
    if (driver.mem_retain_allocation_handle(&entry.retained, address) != CUDA_SUCCESS) return std::nullopt;
    // The range attributes: cuMemGetAddressRange, which the transport uses, says base 0 for host memory.
    const CUdeviceptr at = pointer(address);
    REQUIRE(driver.pointer_get_attribute(&entry.base, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, at) == CUDA_SUCCESS);
    REQUIRE(driver.pointer_get_attribute(&entry.length, CU_POINTER_ATTRIBUTE_RANGE_SIZE, at) == CUDA_SUCCESS);
    REQUIRE(driver.mem_export_to_shareable_handle(entry.shm_name.data(), entry.retained, CU_MEM_HANDLE_TYPE_FABRIC,
                                                  0) == CUDA_SUCCESS);
    return entry;
}

}  // namespace

TEST_CASE("A transport can retain, range, export and have a peer write to our memory", "[buffer][mooncake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_PEER_OR_SKIP();
    const PrimaryContext context(driver, 0);
    for (const Location& location : {Location::device(0), Location::host_numa(0)}) {
        CAPTURE(to_string(location));
        FabricBuffer buffer(driver, 4 * kMiB, {.location = location});
        constexpr std::size_t kInner = 3 * kMiB + 256;  // beyond what a peer would map that knew of one granule alone
        auto* const inner = static_cast<std::byte*>(buffer.address()) + kInner;
        const auto entry = register_local_memory(*driver, inner);
        REQUIRE(entry.has_value());
        CHECK(entry->base == pointer(buffer));
        CHECK(entry->length == buffer.mapped_bytes());
        CHECK(std::memcmp(entry->shm_name.data(), buffer.blob().handle.data(), 64) == 0);
        if (!location.is_host()) {
            CUdeviceptr base = 0;
            std::size_t length = 0;
            CHECK(driver->mem_get_address_range(&base, &length, pointer(inner)) == CUDA_SUCCESS);
            CHECK((base == entry->base && length == entry->length));
        }
        constexpr std::int32_t warm_up = 0x1234567;
        Peer peer;
        REQUIRE(peer.code("import 0 " + to_hex(entry->shm_name) + " " + std::to_string(entry->length)) == CUDA_SUCCESS);
        REQUIRE(peer.code("map 0 device 3") == CUDA_SUCCESS);
        REQUIRE(peer.code("write 0 " + std::to_string(kInner) + " " + std::to_string(warm_up)) == CUDA_SUCCESS);
        std::int32_t seen = 0;
        CHECK(driver->memcpy_dtoh(&seen, pointer(inner), sizeof seen) == CUDA_SUCCESS);
        CHECK(seen == warm_up);
        CHECK(driver->mem_release(entry->retained) == CUDA_SUCCESS);
        CHECK(buffer.close() == CloseResult::released);  // the peer's import does not count
    }
}

TEST_CASE("One registration by an arena's base serves all its blocks, and the CPU loads what comes into host memory",
          "[arena][mooncake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FABRICMEM_PEER_OR_SKIP();
    const PrimaryContext context(driver, 0);
    for (const Location& location : {Location::device(0), Location::host_nearest(0)}) {
        CAPTURE(to_string(location));
        const QuietLog quiet;
        Arena arena(driver, 4 * kMiB, {.location = location});
        const auto entry = register_local_memory(*driver, arena.address());
        REQUIRE(entry.has_value());
        CHECK(entry->base == pointer(arena.address()));
        CHECK(entry->length == arena.blob().mapped_bytes);
        CHECK(to_hex(entry->shm_name) == arena.blob().bare_hex());
        Peer peer;
        REQUIRE(peer.code("import 0 " + to_hex(entry->shm_name) + " " + std::to_string(entry->length)) == CUDA_SUCCESS);
        REQUIRE(peer.code("map 0 device 3") == CUDA_SUCCESS);
        {
            std::vector<Block> blocks;
            for (const std::uint64_t bytes : {256u, 256u, 3u << 20, 256u << 10})
                blocks.push_back(arena.allocate(bytes));
            for (const Block& block : blocks) {
                const std::uint64_t last = block.bytes() - sizeof(std::int32_t);
                const auto value = static_cast<std::int32_t>(block.offset() + 7);
                REQUIRE(peer.code("write 0 " + std::to_string(block.offset() + last) + " " + std::to_string(value)) ==
                        CUDA_SUCCESS);
                auto* const address = static_cast<std::byte*>(block.address()) + last;
                std::int32_t seen = 0;
                if (location.is_host()) {
                    REQUIRE(block.access().host);
                    auto* const slot = reinterpret_cast<std::int32_t*>(address);
                    seen = std::atomic_ref<std::int32_t>(*slot).load(std::memory_order_acquire);
                } else {
                    CHECK(driver->memcpy_dtoh(&seen, pointer(address), sizeof seen) == CUDA_SUCCESS);
                }
                CHECK(seen == value);
            }
            CHECK(kind_of([&] { arena.close(); }) == ErrorKind::conflict);
        }
        CHECK(arena.close() == CloseResult::still_referenced);
        CHECK(driver->mem_release(entry->retained) == CUDA_SUCCESS);
    }
}

TEST_CASE("The range call that the transport uses publishes address 0 for an arena of host memory",
          "[arena][mooncake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const PrimaryContext context(driver, 0);
    const Arena arena(driver, 1, {.location = Location::host_nearest(0)});
    CUdeviceptr base = 1;
    std::size_t length = 0;
    CHECK(driver->mem_get_address_range(&base, &length, pointer(arena.address())) == CUDA_SUCCESS);
    CHECK(base == 0);
    CHECK(length == arena.blob().mapped_bytes);
}

TEST_CASE("With a transport that leaks its handle, close says that the memory is still referenced",
          "[buffer][mooncake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location& location : {Location::device(0), Location::host_numa(0)}) {
        CAPTURE(to_string(location));
        FabricBuffer buffer(driver, 1, {.location = location});
        const auto entry = register_local_memory(*driver, buffer.address());
        REQUIRE(entry.has_value());
        const CapturedLog log;
        CHECK(buffer.close() == CloseResult::still_referenced);
        CHECK(log.text().find("still references") != std::string::npos);
        CHECK(driver->mem_release(entry->retained) == CUDA_SUCCESS);
    }
}

TEST_CASE("Heap memory is nothing that a transport can register", "[buffer][mooncake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    std::vector<std::byte> heap(1 << 20);
    CHECK_FALSE(register_local_memory(*driver, heap.data()).has_value());
}
