// SPDX-License-Identifier: Apache-2.0
// What the driver tells about an address: its handle, range and attributes, pinned by CUresult, on every driver at hand
// (docs/driver-notes.md). Calls only through Driver.
#include <memory>
#include <set>
#include <thread>

#include "support/driver_under_test.hpp"
#include "support/reserved.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("Retaining an inner address gives the mapping's handle with one reference more", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const auto at = [&](std::size_t offset) { return reinterpret_cast<void*>(memory.address() + offset); };
    CUmemGenericAllocationHandle handle = 0;
    FabricBytes bytes{};
    for (const std::size_t offset : {std::size_t{0}, std::size_t{12345}, kTwoMiB - 1}) {
        CAPTURE(offset);
        REQUIRE(driver->mem_retain_allocation_handle(&handle, at(offset)) == CUDA_SUCCESS);
        CHECK(handle == memory.handle());
        CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
        CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    }
    REQUIRE(driver->mem_retain_allocation_handle(&handle, at(1)) == CUDA_SUCCESS);
    CHECK(memory.release() == CUDA_SUCCESS);  // one of two references
    CHECK(memory.unmap() == CUDA_SUCCESS);
    CHECK(driver->mem_retain_allocation_handle(&handle, at(1)) == CUDA_ERROR_INVALID_VALUE);
    CHECK(export_fabric(*driver, handle, &bytes) == CUDA_SUCCESS);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    CHECK(import_fabric(*driver, bytes, &handle) == CUDA_ERROR_NOT_SUPPORTED);  // that was the last one
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
    const Reserved range(*driver, 3 * kTwoMiB);
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
    std::set<unsigned long long> ids;
    const auto take_id = [&](CUdeviceptr address) {
        unsigned long long id = 0;
        REQUIRE(driver->pointer_get_attribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, address) == CUDA_SUCCESS);
        ids.insert(id);
    };
    for (int round = 0; round < 3; ++round) {
        const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        REQUIRE(memory.result() == CUDA_SUCCESS);
        take_id(memory.address());
        take_id(memory.address() + kTwoMiB - 1);
    }
    CHECK(ids.size() == 3);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    CUmemGenericAllocationHandle again = 0;
    REQUIRE(driver->mem_retain_allocation_handle(&again, reinterpret_cast<void*>(memory.address())) == CUDA_SUCCESS);
    const Mapped second(*driver, again, {access_for(kDevice)});  // the same memory at another place
    REQUIRE(second.result() == CUDA_SUCCESS);
    take_id(memory.address());
    take_id(second.address());
    CHECK(ids.size() == 5);
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

TEST_CASE("Without a context an address has no range", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const int on_stack = 0;
    CUresult of_mapping = CUDA_SUCCESS;
    CUresult of_stack = CUDA_SUCCESS;
    std::thread([&] {  // of its own: it has no context. Catch2's macros stay out of it.
        CUdeviceptr base = 0;
        std::size_t bytes = 0;
        of_mapping = driver->mem_get_address_range(&base, &bytes, memory.address());
        of_stack = driver->mem_get_address_range(&base, &bytes, reinterpret_cast<CUdeviceptr>(&on_stack));
    })
        .join();
    CHECK(of_mapping == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(of_stack == CUDA_ERROR_INVALID_CONTEXT);
}
