// SPDX-License-Identifier: Apache-2.0
// The drop-in libcuda's memory: virtual memory management, other memory, and what a pointer is.
#include "libcuda/libcuda.hpp"

using namespace fabricmem;
using namespace fabricmem::detail;
using namespace fabricmem::detail::libcuda;

namespace {

constexpr unsigned int kHostAllocFlags =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned int kHostRegisterFlags =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;

std::uintptr_t to_address(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

CUresult register_host(void* pointer, std::size_t bytes, unsigned int flags) {
    if ((flags & unsigned{CU_MEMHOSTREGISTER_IOMEMORY}) != 0) return not_supported("cuMemHostRegister of I/O memory");
    return with_context([&](World& world, const Context&) {
        if ((flags & ~kHostRegisterFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
        return world.space.register_host(to_address(pointer), bytes);
    });
}

}  // namespace

FABRICMEM_CUDA cuMemGetAllocationGranularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                             CUmemAllocationGranularity_flags option) {
    return with_driver(
        [&](Driver& driver) { return driver.mem_get_allocation_granularity(bytes, properties, option); });
}
FABRICMEM_CUDA cuMemCreate(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                           const CUmemAllocationProp* properties, unsigned long long flags) {
    return with_driver([&](Driver& driver) { return driver.mem_create(handle, bytes, properties, flags); });
}
FABRICMEM_CUDA cuMemRelease(CUmemGenericAllocationHandle handle) {
    return with_driver([&](Driver& driver) { return driver.mem_release(handle); });
}
FABRICMEM_CUDA cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
    return with_driver([&](Driver& driver) { return driver.mem_retain_allocation_handle(handle, address); });
}
FABRICMEM_CUDA cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                      CUmemGenericAllocationHandle handle) {
    return with_driver(
        [&](Driver& driver) { return driver.mem_get_allocation_properties_from_handle(properties, handle); });
}
FABRICMEM_CUDA cuMemExportToShareableHandle(void* shareable, CUmemGenericAllocationHandle handle,
                                            CUmemAllocationHandleType type, unsigned long long flags) {
    return with_driver(
        [&](Driver& driver) { return driver.mem_export_to_shareable_handle(shareable, handle, type, flags); });
}
FABRICMEM_CUDA cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) {
    return with_driver(
        [&](Driver& driver) { return driver.mem_import_from_shareable_handle(handle, shareable, type); });
}
FABRICMEM_CUDA cuMemAddressReserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                   unsigned long long flags) {
    return with_driver(
        [&](Driver& driver) { return driver.mem_address_reserve(address, bytes, alignment, hint, flags); });
}
FABRICMEM_CUDA cuMemAddressFree(CUdeviceptr address, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.mem_address_free(address, bytes); });
}
FABRICMEM_CUDA cuMemMap(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                        unsigned long long flags) {
    return with_driver([&](Driver& driver) { return driver.mem_map(address, bytes, offset, handle, flags); });
}
FABRICMEM_CUDA cuMemUnmap(CUdeviceptr address, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.mem_unmap(address, bytes); });
}
FABRICMEM_CUDA cuMemSetAccess(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                              std::size_t count) {
    return with_driver([&](Driver& driver) { return driver.mem_set_access(address, bytes, access, count); });
}
FABRICMEM_CUDA cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location, CUdeviceptr address) {
    return with_driver([&](Driver& driver) { return driver.mem_get_access(flags, location, address); });
}
FABRICMEM_CUDA cuMemGetAddressRange_v2(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) {
    return with_driver([&](Driver& driver) { return driver.mem_get_address_range(base, bytes, address); });
}
FABRICMEM_CUDA cuMemGetHandleForAddressRange(void* handle, CUdeviceptr address, std::size_t bytes,
                                             CUmemRangeHandleType type, unsigned long long flags) {
    return with_driver(
        [&](Driver& driver) { return driver.mem_get_handle_for_address_range(handle, address, bytes, type, flags); });
}

FABRICMEM_CUDA cuMemAlloc_v2(CUdeviceptr* address, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.mem_alloc(address, bytes); });
}
FABRICMEM_CUDA cuMemFree_v2(CUdeviceptr address) {
    return with_driver([&](Driver& driver) { return driver.mem_free(address); });
}
// invented: of this process's use alone; other processes' memory is not counted.
FABRICMEM_CUDA cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    return with_context([&](World& world, const Context& context) {
        if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *free = world.device_budgets[static_cast<std::size_t>(context.device)]->left();
        *total = world.fabric.device(context.device).memory_bytes;
        return CUDA_SUCCESS;
    });
}

FABRICMEM_CUDA cuMemAllocHost_v2(void** address, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.mem_alloc_host(address, bytes); });
}
FABRICMEM_CUDA cuMemHostAlloc(void** address, std::size_t bytes, unsigned int flags) {
    return (flags & ~kHostAllocFlags) == 0 ? cuMemAllocHost_v2(address, bytes) : CUDA_ERROR_INVALID_VALUE;
}
FABRICMEM_CUDA cuMemFreeHost(void* address) {
    return with_driver([&](Driver& driver) { return driver.mem_free_host(address); });
}
FABRICMEM_CUDA cuMemHostGetDevicePointer_v2(CUdeviceptr* device_address, void* address, unsigned int flags) {
    return with_context([&](World& world, const Context&) {
        if (device_address == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
        if (world.space.find(to_address(address)).kind != emulated::Place::Kind::pinned)
            return CUDA_ERROR_INVALID_VALUE;
        *device_address = to_address(address);
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuMemHostRegister_v2(void* address, std::size_t bytes, unsigned int flags) {
    return register_host(address, bytes, flags);
}
FABRICMEM_CUDA cuMemHostRegister(void* address, std::size_t bytes, unsigned int flags) {
    return register_host(address, bytes, flags);
}
FABRICMEM_CUDA cuMemHostUnregister(void* address) {
    return with_context([&](World& world, const Context&) { return world.space.unregister_host(to_address(address)); });
}

// What would be opened elsewhere is not given: cuIpcOpenMemHandle is not emulated.
FABRICMEM_CUDA cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr address) {
    const CUresult result = with_driver([&](Driver& driver) { return driver.ipc_get_mem_handle(handle, address); });
    return result == CUDA_SUCCESS ? not_supported("cuIpcGetMemHandle") : result;
}

FABRICMEM_CUDA cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) {
    return with_driver([&](Driver& driver) { return driver.pointer_get_attribute(value, attribute, address); });
}
FABRICMEM_CUDA cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                      CUdeviceptr address) {
    return with_driver(
        [&](Driver& driver) { return driver.pointer_get_attributes(count, attributes, values, address); });
}
