// SPDX-License-Identifier: Apache-2.0
// Adds up the time that is spent inside the driver's calls: the rest of what is measured is its caller's own.
#pragma once

#include <memory>

#include <fabricmem/forwarding_driver.hpp>

#include "common/deadline.hpp"

namespace bench {

/// Times the calls of which a buffer's life is made; all others are their caller's own time. For one thread.
class TimingDriver final : public fabricmem::ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;

    /// Microseconds inside those calls since the start.
    [[nodiscard]] double inside_us() const noexcept {
        return std::chrono::duration<double, std::micro>(inside_).count();
    }

    CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) noexcept override;
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override;
    CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                            CUmemAllocationHandleType type, unsigned long long flags) noexcept override;
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override;
    CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                 unsigned long long flags) noexcept override;
    CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept override;
    CUresult mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                     unsigned long long flags) noexcept override;
    CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override;
    CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                            std::size_t count) noexcept override;
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override;

private:
    template <class Call>
    CUresult timed(Call&& call) noexcept {
        const examples::Clock::time_point start = examples::Clock::now();
        const CUresult result = call(*inner());
        inside_ += examples::Clock::now() - start;
        return result;
    }

    examples::Clock::duration inside_{};
};

}  // namespace bench
