// SPDX-License-Identifier: Apache-2.0
// What the driver answers in the life of an allocation, pinned by CUresult, on every driver at hand
// (docs/driver-notes.md). Calls only through Driver.
#include <cstring>
#include <thread>

#include "support/driver_under_test.hpp"
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

// An address range of its own, freed at the end.
struct Range {
    Range(Driver& to, std::size_t size) : driver(to), bytes(size) {
        REQUIRE(driver.mem_address_reserve(&address, bytes, 0, 0, 0) == CUDA_SUCCESS);
    }
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;
    ~Range() { CHECK(driver.mem_address_free(address, bytes) == CUDA_SUCCESS); }

    Driver& driver;
    std::size_t bytes;
    CUdeviceptr address = 0;
};

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
    // The real driver was seen with byte 16 and with one other; its other bytes may be unused, the emulator's are not.
    FabricBytes damaged = bytes;
    damaged[16] ^= 0xff;
    CHECK(import_fabric(*driver, damaged, &handle) == CUDA_ERROR_NOT_READY);
    damaged = bytes;
    damaged[8] ^= 0xff;
    CHECK(import_fabric(*driver, damaged, &handle) == CUDA_ERROR_NOT_SUPPORTED);
    damaged = bytes;
    damaged[40] ^= 0xff;
    CHECK(import_fabric(*driver, damaged, &handle) == CUDA_ERROR_NOT_PERMITTED);
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
        const Range range(*driver, 3 * kTwoMiB);
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
        const Range range(*driver, 4 * kTwoMiB);
        CHECK(driver->mem_map(range.address, 2 * kTwoMiB, 4096, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(driver->mem_map(range.address, kTwoMiB, 0, handle, 0) == CUDA_ERROR_NOT_SUPPORTED);
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
}

TEST_CASE("Access is set for whole mappings, and device memory has none for the host", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {}, 2 * kTwoMiB);
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const CUmemAccessDesc device = access_for(kDevice);
    CHECK(driver->mem_set_access(memory.address(), kTwoMiB, &device, 1) == CUDA_ERROR_INVALID_VALUE);
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

TEST_CASE("Retaining an inner address gives the mapping's handle with one reference more", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    void* const inner = reinterpret_cast<void*>(memory.address() + 12345);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(driver->mem_retain_allocation_handle(&handle, inner) == CUDA_SUCCESS);
    CHECK(handle == memory.handle());
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    FabricBytes bytes{};
    CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CHECK(memory.unmap() == CUDA_SUCCESS);
    CHECK(driver->mem_retain_allocation_handle(&handle, inner) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("Other memory has no handle to retain, and heap memory no range", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    CUmemGenericAllocationHandle handle = 0;
    const auto heap = std::make_unique<char[]>(4096);
    CHECK(driver->mem_retain_allocation_handle(&handle, heap.get()) == CUDA_ERROR_INVALID_VALUE);
    CUdeviceptr base = 0;
    std::size_t bytes = 0;
    CHECK(driver->mem_get_address_range(&base, &bytes, reinterpret_cast<CUdeviceptr>(heap.get())) ==
          CUDA_ERROR_NOT_FOUND);

    CUdeviceptr device = 0;
    REQUIRE(driver->mem_alloc(&device, 4096) == CUDA_SUCCESS);
    CHECK(driver->mem_retain_allocation_handle(&handle, reinterpret_cast<void*>(device)) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_free(device) == CUDA_SUCCESS);

    void* pinned = nullptr;
    REQUIRE(driver->mem_alloc_host(&pinned, 4096) == CUDA_SUCCESS);
    CHECK(driver->mem_retain_allocation_handle(&handle, pinned) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_free_host(pinned) == CUDA_SUCCESS);
}

TEST_CASE("The range of an inner address is its mapping's", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);  // without one this call alone is INVALID_CONTEXT
    const CUmemAllocationProp wanted = device_memory(kFabric);
    const Range range(*driver, 3 * kTwoMiB);
    CUmemGenericAllocationHandle small = 0;
    CUmemGenericAllocationHandle large = 0;
    REQUIRE(driver->mem_create(&small, kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
    REQUIRE(driver->mem_create(&large, 2 * kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
    REQUIRE(driver->mem_map(range.address, kTwoMiB, 0, small, 0) == CUDA_SUCCESS);
    REQUIRE(driver->mem_map(range.address + kTwoMiB, 2 * kTwoMiB, 0, large, 0) == CUDA_SUCCESS);
    const CUmemAccessDesc access = access_for(kDevice);
    CHECK(driver->mem_set_access(range.address, 3 * kTwoMiB, &access, 1) == CUDA_SUCCESS);

    CUdeviceptr base = 0;
    std::size_t bytes = 0;
    CHECK(driver->mem_get_address_range(&base, &bytes, range.address + 5) == CUDA_SUCCESS);
    CHECK(base == range.address);
    CHECK(bytes == kTwoMiB);
    CHECK(driver->mem_get_address_range(&base, &bytes, range.address + 3 * kTwoMiB - 1) == CUDA_SUCCESS);
    CHECK(base == range.address + kTwoMiB);
    CHECK(bytes == 2 * kTwoMiB);

    CHECK(driver->mem_unmap(range.address, 3 * kTwoMiB) == CUDA_SUCCESS);
    CHECK(driver->mem_release(small) == CUDA_SUCCESS);
    CHECK(driver->mem_release(large) == CUDA_SUCCESS);
}

TEST_CASE("Pointer attributes tell handle types, with and without a context", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    unsigned long long types = 0;
    const auto ask = [&] {
        types = 0;
        return driver->pointer_get_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, memory.address() + 9);
    };
    CUcontext current = nullptr;
    REQUIRE(driver->ctx_get_current(&current) == CUDA_SUCCESS);
    CHECK(current == nullptr);
    CHECK(ask() == CUDA_SUCCESS);
    CHECK(types == 8);
    const CurrentContext context(*driver);
    CHECK(ask() == CUDA_SUCCESS);
    CHECK(types == 8);
}

TEST_CASE("Every mapping has a buffer id of its own", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    unsigned long long last = 0;
    for (int round = 0; round < 3; ++round) {
        const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        unsigned long long id = 0;
        REQUIRE(driver->pointer_get_attribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, memory.address()) == CUDA_SUCCESS);
        CHECK(id != last);
        last = id;
    }
}

TEST_CASE("Fabric memory with the RDMA flag has a dma-buf", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, memory_at(kDevice, 0, kFabric, true), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    int descriptor = -1;
    CHECK(driver->mem_get_handle_for_address_range(&descriptor, memory.address(), kTwoMiB,
                                                   CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0) == CUDA_SUCCESS);
    CHECK(descriptor >= 0);
    close_descriptor(descriptor);
}

TEST_CASE("The older calls refuse memory of this kind", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    CUipcMemHandle handle{};
    CHECK(driver->ipc_get_mem_handle(&handle, memory.address()) == CUDA_ERROR_INVALID_VALUE);
    CHECK(driver->mem_free(memory.address()) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("Nothing is copied or set past the end of a mapping", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const std::vector<char> bytes(64);
    CHECK(driver->memcpy_htod(memory.address() + kTwoMiB - 32, bytes.data(), 64) == CUDA_ERROR_INVALID_VALUE);
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
        results.push_back(driver->mem_release(handle));
        std::uint32_t value = 0;
        copied_out = driver->memcpy_dtoh(&value, memory.address(), sizeof value);
        copied_in = driver->memcpy_htod(memory.address(), &value, sizeof value);
        results.push_back(memory.unmap());
        results.push_back(memory.release());
    }).join();
    CHECK(results == std::vector<CUresult>(6, CUDA_SUCCESS));
    CHECK(copied_out == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(copied_in == CUDA_ERROR_INVALID_CONTEXT);
}
