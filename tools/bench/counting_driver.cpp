// SPDX-License-Identifier: Apache-2.0
// Each call counts, whatever it answers.
#include "counting_driver.hpp"

namespace bench {

CUresult CountingDriver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                          CUmemAllocationHandleType type) noexcept {
    ++imports_;
    ++all_;
    return inner()->mem_import_from_shareable_handle(handle, shareable, type);
}

CUresult CountingDriver::mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                             CUdeviceptr hint, unsigned long long flags) noexcept {
    ++all_;
    return inner()->mem_address_reserve(address, bytes, alignment, hint, flags);
}

CUresult CountingDriver::mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                                 CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept {
    ++all_;
    return inner()->mem_map(address, bytes, offset, handle, flags);
}

CUresult CountingDriver::mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                        std::size_t count) noexcept {
    ++all_;
    return inner()->mem_set_access(address, bytes, access, count);
}

CUresult CountingDriver::mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                                        CUdeviceptr address) noexcept {
    ++all_;
    return inner()->mem_get_access(flags, location, address);
}

CUresult CountingDriver::mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                        CUmemAllocationGranularity_flags option) noexcept {
    ++all_;
    return inner()->mem_get_allocation_granularity(bytes, properties, option);
}

CUresult CountingDriver::mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                                   CUmemGenericAllocationHandle handle) noexcept {
    ++all_;
    return inner()->mem_get_allocation_properties_from_handle(properties, handle);
}

CUresult CountingDriver::mem_release(CUmemGenericAllocationHandle handle) noexcept {
    ++all_;
    return inner()->mem_release(handle);
}

CUresult CountingDriver::pointer_get_attribute(void* value, CUpointer_attribute attribute,
                                               CUdeviceptr address) noexcept {
    ++all_;
    return inner()->pointer_get_attribute(value, attribute, address);
}

CUresult CountingDriver::pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                                CUdeviceptr address) noexcept {
    ++all_;
    return inner()->pointer_get_attributes(count, attributes, values, address);
}

CUresult CountingDriver::device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept {
    ++all_;
    return inner()->device_get_attribute(value, attribute, device);
}

CUresult CountingDriver::device_get_uuid(CUuuid* uuid, CUdevice device) noexcept {
    ++all_;
    return inner()->device_get_uuid(uuid, device);
}

CUresult CountingDriver::device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept {
    ++all_;
    return inner()->device_can_access_peer(can_access, device, peer);
}

CUresult CountingDriver::ctx_get_current(CUcontext* context) noexcept {
    ++all_;
    return inner()->ctx_get_current(context);
}

}  // namespace bench
