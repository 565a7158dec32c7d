// SPDX-License-Identifier: Apache-2.0
// What the driver answers in the life of an allocation, pinned by CUresult, on every driver at hand
// (docs/driver-notes.md). Calls only through Driver.
#include <cstring>
#include <thread>

#include "support/driver_under_test.hpp"
#include "support/reserved.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

CUresult create(Driver& driver, const CUmemAllocationProp& properties, std::size_t bytes) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver.mem_create(&handle, bytes, &properties, 0);
    if (result == CUDA_SUCCESS) CHECK(driver.mem_release(handle) == CUDA_SUCCESS);
    return result;
}

std::uint32_t read_word(Driver& driver, CUdeviceptr address) {
    std::uint32_t value = 0;
    CHECK(driver.memcpy_dtoh(&value, address, sizeof value) == CUDA_SUCCESS);
    return value;
}

}  // namespace

TEST_CASE("The granularity is 2 MiB for all memory and handle types", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const int kind : {kDevice, kHostNuma}) {
        for (const unsigned int types : {0U, 1U, 8U, 9U}) {
            for (const bool rdma : {false, true}) {
                for (const auto option : {CU_MEM_ALLOC_GRANULARITY_MINIMUM, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED}) {
                    CAPTURE(kind, types, rdma);
                    const CUmemAllocationProp properties = memory_at(kind, 0, types, rdma);
                    std::size_t bytes = 0;
                    CHECK(driver->mem_get_allocation_granularity(&bytes, &properties, option) == CUDA_SUCCESS);
                    CHECK(bytes == kTwoMiB);
                }
            }
        }
    }
}

TEST_CASE("Memory is created in whole granules", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{4096}, kTwoMiB + 1}) {
        CAPTURE(bytes);
        CHECK(create(*driver, device_memory(kFabric), bytes) == CUDA_ERROR_INVALID_VALUE);
        CHECK(create(*driver, device_memory(kNoHandle), bytes) == CUDA_ERROR_INVALID_VALUE);
    }
    CHECK(create(*driver, device_memory(kFabric), 3 * kTwoMiB) == CUDA_SUCCESS);
}

TEST_CASE("A TiB of device memory is out of memory", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CHECK(create(*driver, device_memory(kFabric), std::size_t{1} << 40) == CUDA_ERROR_OUT_OF_MEMORY);
}

TEST_CASE("Memory on an absent device is INVALID_DEVICE", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    int count = 0;
    REQUIRE(driver->device_get_count(&count) == CUDA_SUCCESS);
    if (count > 7) FABRICMEM_SKIP("device 7 exists");
    CHECK(create(*driver, memory_at(kDevice, 7, kFabric), kTwoMiB) == CUDA_ERROR_INVALID_DEVICE);
}

TEST_CASE("Fabric memory can be had with and without descriptors and RDMA", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const unsigned int types : {kFabric, kFabric | kPosixFd}) {
        for (const bool rdma : {false, true}) {
            CAPTURE(types, rdma);
            CHECK(create(*driver, memory_at(kDevice, 0, types, rdma), kTwoMiB) == CUDA_SUCCESS);
        }
    }
}

TEST_CASE("An allocation is exported only as what it was made for", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FabricBytes bytes{};
    int descriptor = -1;
    const auto as_descriptor = [&](CUmemGenericAllocationHandle handle) {
        return driver->mem_export_to_shareable_handle(&descriptor, handle,
                                                      static_cast<CUmemAllocationHandleType>(kPosixFd), 0);
    };
    SECTION("both ways") {
        const Mapped memory(*driver, device_memory(kFabric | kPosixFd), {});
        CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
        REQUIRE(as_descriptor(memory.handle()) == CUDA_SUCCESS);
        CUmemGenericAllocationHandle imported = 0;
        CHECK(driver->mem_import_from_shareable_handle(
                  &imported, reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)),
                  static_cast<CUmemAllocationHandleType>(kPosixFd)) == CUDA_SUCCESS);
        CHECK(driver->mem_release(imported) == CUDA_SUCCESS);
        close_descriptor(descriptor);
    }
    SECTION("fabric alone") {
        const Mapped memory(*driver, device_memory(kFabric), {});
        CHECK(as_descriptor(memory.handle()) == CUDA_ERROR_INVALID_VALUE);
    }
    SECTION("a descriptor alone") {
        const Mapped memory(*driver, device_memory(kPosixFd), {});
        CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_ERROR_INVALID_VALUE);
    }
    SECTION("neither") {
        const Mapped memory(*driver, device_memory(kNoHandle), {});
        CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_ERROR_INVALID_VALUE);
        CHECK(as_descriptor(memory.handle()) == CUDA_ERROR_INVALID_VALUE);
    }
}

TEST_CASE("New memory reads as zero, also after the same memory was filled", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    for (int round = 0; round < 3; ++round) {
        const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        REQUIRE(memory.result() == CUDA_SUCCESS);
        for (const std::size_t offset : {std::size_t{0}, kTwoMiB / 2, kTwoMiB - 4}) {
            CHECK(read_word(*driver, memory.address() + offset) == 0);
        }
        CHECK(driver->memset_d8(memory.address(), 0xde, kTwoMiB) == CUDA_SUCCESS);
        CHECK(read_word(*driver, memory.address() + kTwoMiB - 4) == 0xdededede);
    }
}

TEST_CASE("Exporting twice gives the same 64 bytes", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {});
    FabricBytes first{};
    FabricBytes second{};
    CHECK(export_fabric(*driver, memory.handle(), &first) == CUDA_SUCCESS);
    CHECK(export_fabric(*driver, memory.handle(), &second) == CUDA_SUCCESS);
    CHECK(to_hex(first) == to_hex(second));
}

TEST_CASE("The exporting process imports its own handle, and can't export the import", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle first = 0;
    CUmemGenericAllocationHandle second = 0;
    REQUIRE(import_fabric(*driver, bytes, &first) == CUDA_SUCCESS);
    REQUIRE(import_fabric(*driver, bytes, &second) == CUDA_SUCCESS);
    CHECK(first != memory.handle());
    CHECK(second != memory.handle());

    FabricBytes again{};
    CHECK(export_fabric(*driver, first, &again) == CUDA_ERROR_INVALID_VALUE);
    const Mapped one(*driver, first, {access_for(kDevice)});
    const Mapped two(*driver, second, {access_for(kDevice)});
    REQUIRE(one.result() == CUDA_SUCCESS);
    REQUIRE(two.result() == CUDA_SUCCESS);
    CHECK(driver->memset_d8(memory.address(), 0x5a, kTwoMiB) == CUDA_SUCCESS);
    CHECK(read_word(*driver, one.address() + 64) == 0x5a5a5a5a);
    CHECK(read_word(*driver, two.address() + 64) == 0x5a5a5a5a);
}

TEST_CASE("Bytes that are no handle are NOT_SUPPORTED, a damaged node number is NOT_READY", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CUmemGenericAllocationHandle handle = 0;
    CHECK(import_fabric(*driver, FabricBytes{}, &handle) == CUDA_ERROR_NOT_SUPPORTED);
    const Mapped memory(*driver, device_memory(kFabric), {});
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    const auto import_damaged = [&](std::size_t byte) {
        CAPTURE(byte);
        FabricBytes damaged = bytes;
        damaged[byte] ^= 0xff;
        return import_fabric(*driver, damaged, &handle);
    };
    // Other bytes the real driver does not look at, or answers otherwise (docs/driver-notes.md).
    for (const std::size_t byte : {8U, 9U, 10U, 11U, 12U, 13U, 14U, 15U, 44U}) {
        CHECK(import_damaged(byte) == CUDA_ERROR_NOT_SUPPORTED);
    }
    CHECK(import_damaged(16) == CUDA_ERROR_NOT_READY);
    for (const std::size_t byte : {40U, 41U, 42U, 43U}) CHECK(import_damaged(byte) == CUDA_ERROR_NOT_PERMITTED);
}

TEST_CASE("A handle is worth nothing once its memory is gone", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Mapped memory(*driver, device_memory(kFabric), {});
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    CHECK(memory.release() == CUDA_SUCCESS);
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);  // the mapping keeps it
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    CHECK(memory.unmap() == CUDA_SUCCESS);
    CHECK(import_fabric(*driver, bytes, &handle) == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("An import knows its location and neither handle types nor RDMA", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, memory_at(kDevice, 0, kFabric, true), {});
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);
    CUmemAllocationProp properties{};
    CHECK(driver->mem_get_allocation_properties_from_handle(&properties, handle) == CUDA_SUCCESS);
    CHECK(properties.type == CU_MEM_ALLOCATION_TYPE_PINNED);
    CHECK(static_cast<unsigned int>(properties.requestedHandleTypes) == 0);
    CHECK(static_cast<int>(properties.location.type) == kDevice);
    CHECK(properties.location.id == 0);
    CHECK(properties.allocFlags.gpuDirectRDMACapable == 0);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
}

TEST_CASE("An import is mapped whole or not at all", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {}, 2 * kTwoMiB);
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);
    {
        const Reserved range(*driver, 3 * kTwoMiB);
        CHECK(driver->mem_map(range.address, kTwoMiB, 0, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(driver->mem_map(range.address, 3 * kTwoMiB, 0, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(driver->mem_map(range.address, 2 * kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
        CHECK(driver->mem_unmap(range.address, 2 * kTwoMiB) == CUDA_SUCCESS);
    }
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
}

TEST_CASE("Address space is reserved in whole granules at a power of two", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CUdeviceptr address = 0;
    CHECK(driver->mem_address_reserve(&address, 4096, 0, 0, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_address_reserve(&address, 0, 0, 0, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_address_reserve(&address, kTwoMiB, 12345, 0, 0) == CUDA_ERROR_INVALID_VALUE);
    const std::size_t alignment = std::size_t{1} << 30;
    REQUIRE(driver->mem_address_reserve(&address, kTwoMiB, alignment, 0, 0) == CUDA_SUCCESS);
    CHECK(address % alignment == 0);
    CHECK(driver->mem_address_free(address, kTwoMiB) == CUDA_SUCCESS);
}

TEST_CASE("A reservation is freed whole, empty and once", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CUdeviceptr address = 0;
    REQUIRE(driver->mem_address_reserve(&address, 2 * kTwoMiB, 0, 0, 0) == CUDA_SUCCESS);
    const CUmemAllocationProp wanted = device_memory(kFabric);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(driver->mem_create(&handle, 2 * kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
    CHECK(driver->mem_address_free(address, kTwoMiB) == CUDA_ERROR_INVALID_VALUE);
    REQUIRE(driver->mem_map(address, 2 * kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
    CHECK(driver->mem_address_free(address, 2 * kTwoMiB) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_unmap(address, 2 * kTwoMiB) == CUDA_SUCCESS);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    CHECK(driver->mem_address_free(address, 2 * kTwoMiB) == CUDA_SUCCESS);
    CHECK(driver->mem_address_free(address, 2 * kTwoMiB) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("A mapping has offset 0, the whole size, and a free place at a granule", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CUmemAllocationProp wanted = device_memory(kFabric);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(driver->mem_create(&handle, 2 * kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
    {
        const Reserved range(*driver, 4 * kTwoMiB);
        CHECK(driver->mem_map(range.address, 2 * kTwoMiB, 4096, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(driver->mem_map(range.address, kTwoMiB, 0, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(driver->mem_map(range.address, 4 * kTwoMiB, 0, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(driver->mem_map(range.address + 4096, 2 * kTwoMiB, 0, handle, 0) == CUDA_ERROR_INVALID_VALUE);
        REQUIRE(driver->mem_map(range.address, 2 * kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
        CHECK(driver->mem_map(range.address, 2 * kTwoMiB, 0, handle, 0) == CUDA_ERROR_INVALID_VALUE);
        CHECK(driver->mem_map(range.address + kTwoMiB, 2 * kTwoMiB, 0, handle, 0) == CUDA_ERROR_INVALID_VALUE);
        CHECK(driver->mem_unmap(range.address, kTwoMiB) == CUDA_ERROR_INVALID_VALUE);
        CHECK(driver->mem_unmap(range.address, 2 * kTwoMiB) == CUDA_SUCCESS);
        CHECK(driver->mem_unmap(range.address, 2 * kTwoMiB) == CUDA_SUCCESS);
    }
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
}

TEST_CASE("A handle is released once, and a mapping keeps the memory", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    CHECK(driver->memset_d8(memory.address(), 7, kTwoMiB) == CUDA_SUCCESS);
    CHECK(memory.release() == CUDA_SUCCESS);
    CHECK(read_word(*driver, memory.address()) == 0x07070707);
    CHECK(driver->mem_release(memory.handle()) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("A copy needs access, and read access is enough to read", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    std::uint32_t value = 0;
    CHECK(driver->memcpy_dtoh(&value, memory.address(), sizeof value) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memcpy_htod(memory.address(), &value, sizeof value) == CUDA_ERROR_INVALID_VALUE);
    const auto set = [&](unsigned int flags) {
        const CUmemAccessDesc access = access_for(kDevice, flags);
        return driver->mem_set_access(memory.address(), kTwoMiB, &access, 1);
    };
    CHECK(set(3) == CUDA_SUCCESS);
    CHECK(driver->memcpy_dtoh(&value, memory.address(), sizeof value) == CUDA_SUCCESS);
    CHECK(set(0) == CUDA_SUCCESS);
    CHECK(driver->memcpy_dtoh(&value, memory.address(), sizeof value) == CUDA_ERROR_INVALID_VALUE);
    CHECK(set(1) == CUDA_SUCCESS);
    CHECK(driver->memcpy_dtoh(&value, memory.address(), sizeof value) == CUDA_SUCCESS);
    CHECK(driver->memcpy_htod(memory.address(), &value, sizeof value) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memset_d8(memory.address(), 1, 4) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("Access is set for whole mappings, and device memory has none for the host", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {}, 2 * kTwoMiB);
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const CUmemAccessDesc device = access_for(kDevice);
    CHECK(driver->mem_set_access(memory.address(), kTwoMiB, &device, 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_set_access(memory.address() + kTwoMiB, kTwoMiB, &device, 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_set_access(memory.address(), 3 * kTwoMiB, &device, 1) == CUDA_ERROR_INVALID_VALUE);
    for (const int kind : {kHost, kHostNuma}) {
        const CUmemAccessDesc host = access_for(kind);
        CHECK(driver->mem_set_access(memory.address(), 2 * kTwoMiB, &host, 1) == CUDA_ERROR_NOT_SUPPORTED);
    }
    CHECK(driver->mem_set_access(memory.address(), 2 * kTwoMiB, &device, 1) == CUDA_SUCCESS);
}

TEST_CASE("Read-only access can be set by exporter and importer", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice, 1)});
    CHECK(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, bytes, &handle) == CUDA_SUCCESS);
    const Mapped import(*driver, handle, {access_for(kDevice, 1)});
    CHECK(import.result() == CUDA_SUCCESS);
}

TEST_CASE("Nothing is copied or set past the end of a mapping", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const std::vector<char> bytes(64);
    CHECK(driver->memcpy_htod(memory.address() + kTwoMiB - 32, bytes.data(), 64) == CUDA_ERROR_INVALID_VALUE);
    std::vector<char> out(64);
    CHECK(driver->memcpy_dtoh(out.data(), memory.address() + kTwoMiB - 32, 64) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memset_d8(memory.address() + kTwoMiB - 32, 1, 64) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->memset_d8(memory.address() + kTwoMiB - 32, 1, 32) == CUDA_SUCCESS);
}

TEST_CASE("Without a current context all works but copies", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    // A thread of its own has no current context, whatever the runner's has. Catch2's macros stay out of it.
    std::vector<CUresult> results;
    CUresult copied_out = CUDA_SUCCESS;
    CUresult copied_in = CUDA_SUCCESS;
    std::thread([&] {
        Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        results.push_back(memory.result());
        FabricBytes bytes{};
        results.push_back(export_fabric(*driver, memory.handle(), &bytes));
        CUmemGenericAllocationHandle handle = 0;
        results.push_back(import_fabric(*driver, bytes, &handle));
        Mapped import(*driver, handle, {access_for(kDevice)});
        results.push_back(import.result());
        std::uint32_t value = 0;
        copied_out = driver->memcpy_dtoh(&value, memory.address(), sizeof value);
        copied_in = driver->memcpy_htod(memory.address(), &value, sizeof value);
        for (Mapped* const mapped : {&memory, &import}) {
            results.push_back(mapped->unmap());
            results.push_back(mapped->release());
            results.push_back(mapped->destroy());  // frees the range
        }
    }).join();
    CHECK(results == std::vector<CUresult>(10, CUDA_SUCCESS));
    CHECK(copied_out == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(copied_in == CUDA_ERROR_INVALID_CONTEXT);
}
