// SPDX-License-Identifier: Apache-2.0
// The calls of a buffer's life, each between two looks at the clock.
#include "timing_driver.hpp"

namespace bench {

using fabricmem::Driver;

CUresult TimingDriver::mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                  const CUmemAllocationProp* properties, unsigned long long flags) noexcept {
    return timed([&](Driver& driver) { return driver.mem_create(handle, bytes, properties, flags); });
}

CUresult TimingDriver::mem_release(CUmemGenericAllocationHandle handle) noexcept {
    return timed([&](Driver& driver) { return driver.mem_release(handle); });
}

CUresult TimingDriver::mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                                      CUmemAllocationHandleType type,
                                                      unsigned long long flags) noexcept {
    return timed([&](Driver& driver) { return driver.mem_export_to_shareable_handle(shareable, handle, type, flags); });
}

CUresult TimingDriver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                        CUmemAllocationHandleType type) noexcept {
    return timed([&](Driver& driver) { return driver.mem_import_from_shareable_handle(handle, shareable, type); });
}

CUresult TimingDriver::mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                           CUdeviceptr hint, unsigned long long flags) noexcept {
    return timed([&](Driver& driver) { return driver.mem_address_reserve(address, bytes, alignment, hint, flags); });
}

CUresult TimingDriver::mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept {
    return timed([&](Driver& driver) { return driver.mem_address_free(address, bytes); });
}

CUresult TimingDriver::mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                               CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept {
    return timed([&](Driver& driver) { return driver.mem_map(address, bytes, offset, handle, flags); });
}

CUresult TimingDriver::mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept {
    return timed([&](Driver& driver) { return driver.mem_unmap(address, bytes); });
}

CUresult TimingDriver::mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                      std::size_t count) noexcept {
    return timed([&](Driver& driver) { return driver.mem_set_access(address, bytes, access, count); });
}

CUresult TimingDriver::pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                              CUdeviceptr address) noexcept {
    return timed([&](Driver& driver) { return driver.pointer_get_attributes(count, attributes, values, address); });
}

}  // namespace bench
