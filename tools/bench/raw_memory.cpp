// SPDX-License-Identifier: Apache-2.0
// The bare calls. A failing one ends the bench with an exception, and what was made before it ends with the process.
#include "raw_memory.hpp"

#include <cstdint>
#include <cstring>

#include "pingpong_gpu.hpp"

namespace bench {
namespace {

using examples::check_call;

CUmemAccessDesc access_of(CUmemLocationType type, int id) {
    CUmemAccessDesc access{};
    access.location.type = type;
    access.location.id = id;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return access;
}

}  // namespace

RawPlan plan_like(const fabricmem::FabricBuffer& buffer) {
    RawPlan plan;
    plan.bytes = buffer.mapped_bytes();
    plan.properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    plan.properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
    plan.properties.location.type =
        buffer.location().is_host() ? CU_MEM_LOCATION_TYPE_HOST_NUMA : CU_MEM_LOCATION_TYPE_DEVICE;
    plan.properties.location.id = buffer.location().index();
    plan.properties.allocFlags.gpuDirectRDMACapable = buffer.rdma() ? 1 : 0;
    for (const int device : buffer.access().devices) {
        plan.access.push_back(access_of(CU_MEM_LOCATION_TYPE_DEVICE, device));
    }
    if (buffer.access().host) plan.access.push_back(access_of(CU_MEM_LOCATION_TYPE_HOST, 0));
    return plan;
}

RawHandle raw_handle_of(const fabricmem::HandleBlob& blob) {
    RawHandle handle{};
    std::memcpy(handle.data(), blob.handle.data(), handle.size());
    return handle;
}

RawMemory::RawMemory(fabricmem::Driver& driver, const RawPlan& plan) : driver_(driver), bytes_(plan.bytes) {
    reserve();
    check_call(driver_, driver_.mem_create(&allocation_, bytes_, &plan.properties, 0), "cuMemCreate");
    map(plan);
    read_back();
    check_call(driver_, driver_.mem_export_to_shareable_handle(&handle_, allocation_, CU_MEM_HANDLE_TYPE_FABRIC, 0),
               "cuMemExportToShareableHandle");
}

RawMemory::RawMemory(fabricmem::Driver& driver, const RawPlan& plan, RawHandle handle)
    : driver_(driver), bytes_(plan.bytes), handle_(handle) {
    reserve();
    check_call(driver_, driver_.mem_import_from_shareable_handle(&allocation_, &handle_, CU_MEM_HANDLE_TYPE_FABRIC),
               "cuMemImportFromShareableHandle");
    map(plan);
}

RawMemory::~RawMemory() {
    (void)driver_.mem_unmap(address_, bytes_);
    (void)driver_.mem_release(allocation_);
    (void)driver_.mem_address_free(address_, bytes_);
}

void RawMemory::reserve() {
    check_call(driver_, driver_.mem_address_reserve(&address_, bytes_, 0, 0, 0), "cuMemAddressReserve");
}

void RawMemory::map(const RawPlan& plan) {
    check_call(driver_, driver_.mem_map(address_, bytes_, 0, allocation_, 0), "cuMemMap");
    check_call(driver_, driver_.mem_set_access(address_, bytes_, plan.access.data(), plan.access.size()),
               "cuMemSetAccess");
}

void RawMemory::read_back() {
    std::array<CUpointer_attribute, 2> attributes{CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES,
                                                  CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE};
    std::uint64_t handle_types = 0;
    std::uint64_t rdma = 0;
    std::array<void*, 2> values{&handle_types, &rdma};
    check_call(driver_, driver_.pointer_get_attributes(2, attributes.data(), values.data(), address_),
               "cuPointerGetAttributes");
}

}  // namespace bench
