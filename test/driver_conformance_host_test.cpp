// SPDX-License-Identifier: Apache-2.0
// What the driver answers about host memory that is fabric memory, pinned by CUresult, on every driver at hand
// (docs/driver-notes.md). Calls only through Driver.
#include <atomic>
#include <vector>

#include "support/driver_under_test.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// A host NUMA node that is not here: 5 on the machine that was measured, beyond the last where there are more.
int absent_node() {
    int node = 5;
    while (::access(("/sys/devices/system/node/node" + std::to_string(node)).c_str(), F_OK) == 0) ++node;
    return node;
}

CUresult create(Driver& driver, const CUmemAllocationProp& properties) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver.mem_create(&handle, kTwoMiB, &properties, 0);
    if (result == CUDA_SUCCESS) CHECK(driver.mem_release(handle) == CUDA_SUCCESS);
    return result;
}

std::atomic_ref<std::uint32_t> cpu_word(CUdeviceptr address) {
    return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(address));
}

CUmemGenericAllocationHandle import_of(Driver& driver, const Mapped& memory) {
    FabricBytes bytes{};
    REQUIRE(export_fabric(driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(driver, bytes, &handle) == CUDA_SUCCESS);
    return handle;
}

template <typename T>
T attribute(Driver& driver, CUpointer_attribute which, CUdeviceptr address) {
    T value{};
    CHECK(driver.pointer_get_attribute(&value, which, address) == CUDA_SUCCESS);
    return value;
}

}  // namespace

TEST_CASE("Memory of location HOST travels in no way", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CHECK(create(*driver, memory_at(kHost, 0, kNoHandle)) == CUDA_SUCCESS);
    CHECK(create(*driver, memory_at(kHost, 0, kPosixFd)) == CUDA_ERROR_INVALID_VALUE);
    CHECK(create(*driver, memory_at(kHost, 0, kFabric)) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("Memory of a host NUMA node travels, and has to name a node that exists", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const unsigned int types : {kNoHandle, kPosixFd, kFabric}) {
        CAPTURE(types);
        CHECK(create(*driver, memory_at(kHostNuma, 0, types)) == CUDA_SUCCESS);
        CHECK(create(*driver, memory_at(kHostNumaCurrent, 0, types)) == CUDA_ERROR_INVALID_VALUE);
    }
    for (const unsigned int types : {kNoHandle, kPosixFd, kFabric}) {
        CHECK(create(*driver, memory_at(kHostNuma, absent_node(), types)) == CUDA_ERROR_INVALID_VALUE);
    }
    const Mapped memory(*driver, host_memory(kFabric), {});
    FabricBytes bytes{};
    CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
}

TEST_CASE("Device and host share host memory, in exporter and importer", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    for (const int host : {kHostNuma, kHost}) {
        CAPTURE(host);
        const Mapped memory(*driver, host_memory(kFabric), {access_for(kDevice), access_for(host)});
        REQUIRE(memory.result() == CUDA_SUCCESS);
        const Mapped import(*driver, import_of(*driver, memory), {access_for(kDevice), access_for(host)});
        REQUIRE(import.result() == CUDA_SUCCESS);
        cpu_word(memory.address()).store(41, std::memory_order_release);
        CHECK(cpu_word(import.address()).load(std::memory_order_acquire) == 41);
        CHECK(driver->memset_d8(import.address(), 0x11, kTwoMiB) == CUDA_SUCCESS);
        CHECK(cpu_word(memory.address() + kTwoMiB - 4).load(std::memory_order_acquire) == 0x11111111);
    }
}

TEST_CASE("Access for the host node alone lets the CPU use the memory", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, host_memory(kFabric), {access_for(kHostNuma)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    CHECK(cpu_word(memory.address()).load(std::memory_order_acquire) == 0);
    cpu_word(memory.address()).store(5, std::memory_order_release);
    CHECK(cpu_word(memory.address()).load(std::memory_order_acquire) == 5);
}

TEST_CASE("An import of host memory knows its node", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, host_memory(kFabric), {});
    const CUmemGenericAllocationHandle handle = import_of(*driver, memory);
    CUmemAllocationProp properties{};
    CHECK(driver->mem_get_allocation_properties_from_handle(&properties, handle) == CUDA_SUCCESS);
    CHECK(static_cast<int>(properties.location.type) == kHostNuma);
    CHECK(properties.location.id == 0);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
}

TEST_CASE("The address range of host memory has base 0, its attributes tell the truth", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const CUdeviceptr inner = memory.address() + 4096;
    CUdeviceptr base = 1;
    std::size_t bytes = 0;
    CHECK(driver->mem_get_address_range(&base, &bytes, inner) == CUDA_SUCCESS);
    CHECK(base == 0);
    CHECK(bytes == kTwoMiB);
    CHECK(attribute<CUdeviceptr>(*driver, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, inner) == memory.address());
    CHECK(attribute<std::size_t>(*driver, CU_POINTER_ATTRIBUTE_RANGE_SIZE, inner) == kTwoMiB);
    CHECK(attribute<unsigned int>(*driver, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, inner) == 1);
    CHECK(attribute<CUdeviceptr>(*driver, CU_POINTER_ATTRIBUTE_HOST_POINTER, inner) == inner);
    CHECK(attribute<unsigned long long>(*driver, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, inner) == 8);
    CHECK(attribute<int>(*driver, CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE, inner) == 0);
    CUmemGenericAllocationHandle handle = 0;
    CHECK(driver->mem_retain_allocation_handle(&handle, reinterpret_cast<void*>(inner)) == CUDA_SUCCESS);
    CHECK(handle == memory.handle());
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
}

TEST_CASE("The device alone copies, sets and writes into an import of host memory", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const Mapped memory(*driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const Mapped import(*driver, import_of(*driver, memory), {access_for(kDevice)});
    REQUIRE(import.result() == CUDA_SUCCESS);
    CUstream stream = nullptr;
    REQUIRE(driver->stream_create(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    const auto word = [&](std::size_t index) { return cpu_word(memory.address() + 4 * index).load(); };

    // From the stack, from pinned and from device memory, each at once and on a stream.
    std::uint32_t on_stack = 0x01010101;
    void* pinned = nullptr;
    REQUIRE(driver->mem_alloc_host(&pinned, 4096) == CUDA_SUCCESS);
    *static_cast<std::uint32_t*>(pinned) = 0x02020202;
    const Mapped device(*driver, device_memory(kNoHandle), {access_for(kDevice)});
    CHECK(driver->memset_d8(device.address(), 3, kTwoMiB) == CUDA_SUCCESS);
    CHECK(driver->ctx_synchronize() == CUDA_SUCCESS);
    const CUdeviceptr sources[] = {reinterpret_cast<CUdeviceptr>(&on_stack), reinterpret_cast<CUdeviceptr>(pinned),
                                   device.address()};
    for (std::size_t i = 0; i < 3; ++i) {
        CAPTURE(i);
        CHECK(driver->memcpy(import.address() + 4 * i, sources[i], 4) == CUDA_SUCCESS);
        CHECK(driver->memcpy_async(import.address() + 4 * (i + 3), sources[i], 4, stream) == CUDA_SUCCESS);
    }
    CHECK(driver->memcpy_htod(import.address() + 24, &on_stack, 4) == CUDA_SUCCESS);
    CHECK(driver->memset_d8(import.address() + 28, 4, 4) == CUDA_SUCCESS);
    CHECK(driver->memset_d8_async(import.address() + 32, 5, 4, stream) == CUDA_SUCCESS);
    CHECK(driver->stream_write_value32(stream, import.address() + 36, 6, 0) == CUDA_SUCCESS);
    CHECK(driver->stream_write_value32(nullptr, import.address() + 40, 7, 0) == CUDA_SUCCESS);
    CHECK(driver->stream_synchronize(stream) == CUDA_SUCCESS);
    CHECK(driver->ctx_synchronize() == CUDA_SUCCESS);

    std::vector<std::uint32_t> words;
    for (std::size_t i = 0; i < 11; ++i) words.push_back(word(i));
    CHECK(words == std::vector<std::uint32_t>{0x01010101, 0x02020202, 0x03030303, 0x01010101, 0x02020202, 0x03030303,
                                              0x01010101, 0x04040404, 0x05050505, 6, 7});
    CHECK(driver->stream_destroy(stream) == CUDA_SUCCESS);
    CHECK(driver->mem_free_host(pinned) == CUDA_SUCCESS);
}
