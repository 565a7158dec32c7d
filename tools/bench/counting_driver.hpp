// SPDX-License-Identifier: Apache-2.0
// Counts the calls that an import can be made of, from all threads.
#pragma once

#include <atomic>
#include <cstdint>

#include <fabricmem/forwarding_driver.hpp>

namespace bench {

struct CallCounts {
    std::uint64_t imports = 0;
    std::uint64_t all = 0;  ///< of those that are counted
};

/// Counts the calls of virtual memory management that imports need, and those by which the library could find out more
/// than it has to: attributes, granularities, properties, contexts.
class CountingDriver final : public fabricmem::ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;

    [[nodiscard]] CallCounts counts() const noexcept { return {.imports = imports_.load(), .all = all_.load()}; }

    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override;
    CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                 unsigned long long flags) noexcept override;
    CUresult mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                     unsigned long long flags) noexcept override;
    CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                            std::size_t count) noexcept override;
    CUresult mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                            CUdeviceptr address) noexcept override;
    CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                            CUmemAllocationGranularity_flags option) noexcept override;
    CUresult mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                       CUmemGenericAllocationHandle handle) noexcept override;
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override;
    CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override;
    CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override;
    CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept override;
    CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept override;
    CUresult ctx_get_current(CUcontext* context) noexcept override;

private:
    std::atomic<std::uint64_t> imports_{0};
    std::atomic<std::uint64_t> all_{0};
};

}  // namespace bench
