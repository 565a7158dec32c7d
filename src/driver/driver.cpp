// SPDX-License-Identifier: Apache-2.0
// The seam's defaults: a call that a stand-in does not have is NOT_SUPPORTED.
#include <fabricmem/driver.hpp>

#include "driver/driver_state.hpp"

namespace fabricmem {

Driver::Driver() : state_(std::make_unique<detail::DriverState>(*this)) {}
Driver::~Driver() = default;

CUresult Driver::init(unsigned int) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::driver_get_version(int*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::get_error_name(CUresult, const char**) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::get_error_string(CUresult, const char**) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_get_count(int*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_get(CUdevice*, int) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_get_name(char*, int, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_get_uuid(CUuuid*, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_get_pci_bus_id(char*, int, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_get_attribute(int*, CUdevice_attribute, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_total_mem(std::size_t*, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_can_access_peer(int*, CUdevice, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_primary_ctx_retain(CUcontext*, CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_primary_ctx_release(CUdevice) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::device_primary_ctx_get_state(CUdevice, unsigned int*, int*) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::ctx_get_current(CUcontext*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::ctx_set_current(CUcontext) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::ctx_push_current(CUcontext) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::ctx_pop_current(CUcontext*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::ctx_get_device(CUdevice*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::ctx_synchronize() noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_get_allocation_granularity(std::size_t*, const CUmemAllocationProp*,
                                                CUmemAllocationGranularity_flags) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_create(CUmemGenericAllocationHandle*, std::size_t, const CUmemAllocationProp*,
                            unsigned long long) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_release(CUmemGenericAllocationHandle) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_retain_allocation_handle(CUmemGenericAllocationHandle*, void*) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_get_allocation_properties_from_handle(CUmemAllocationProp*,
                                                           CUmemGenericAllocationHandle) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_export_to_shareable_handle(void*, CUmemGenericAllocationHandle, CUmemAllocationHandleType,
                                                unsigned long long) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle*, void*,
                                                  CUmemAllocationHandleType) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_address_reserve(CUdeviceptr*, std::size_t, std::size_t, CUdeviceptr, unsigned long long) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_address_free(CUdeviceptr, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_map(CUdeviceptr, std::size_t, std::size_t, CUmemGenericAllocationHandle,
                         unsigned long long) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_unmap(CUdeviceptr, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_set_access(CUdeviceptr, std::size_t, const CUmemAccessDesc*, std::size_t) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_get_access(unsigned long long*, const CUmemLocation*, CUdeviceptr) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_get_address_range(CUdeviceptr*, std::size_t*, CUdeviceptr) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_get_handle_for_address_range(void*, CUdeviceptr, std::size_t, CUmemRangeHandleType,
                                                  unsigned long long) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::mem_alloc(CUdeviceptr*, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_free(CUdeviceptr) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_alloc_host(void**, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::mem_free_host(void*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::ipc_get_mem_handle(CUipcMemHandle*, CUdeviceptr) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::pointer_get_attribute(void*, CUpointer_attribute, CUdeviceptr) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::pointer_get_attributes(unsigned int, CUpointer_attribute*, void**, CUdeviceptr) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::memcpy(CUdeviceptr, CUdeviceptr, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::memcpy_htod(CUdeviceptr, const void*, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::memcpy_dtoh(void*, CUdeviceptr, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::memcpy_dtod(CUdeviceptr, CUdeviceptr, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::memcpy_async(CUdeviceptr, CUdeviceptr, std::size_t, CUstream) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::memcpy_batch_async(CUdeviceptr*, CUdeviceptr*, std::size_t*, std::size_t, CUstream) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::memset_d8(CUdeviceptr, unsigned char, std::size_t) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::memset_d8_async(CUdeviceptr, unsigned char, std::size_t, CUstream) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::stream_create(CUstream*, unsigned int) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::stream_destroy(CUstream) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::stream_query(CUstream) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::stream_synchronize(CUstream) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::stream_write_value32(CUstream, CUdeviceptr, cuuint32_t, unsigned int) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::stream_wait_value32(CUstream, CUdeviceptr, cuuint32_t, unsigned int) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::stream_write_value64(CUstream, CUdeviceptr, cuuint64_t, unsigned int) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::stream_wait_value64(CUstream, CUdeviceptr, cuuint64_t, unsigned int) noexcept {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult Driver::stream_begin_capture(CUstream, CUstreamCaptureMode) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::stream_end_capture(CUstream, CUgraph*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::stream_is_capturing(CUstream, CUstreamCaptureStatus*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::thread_exchange_stream_capture_mode(CUstreamCaptureMode*) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult Driver::graph_destroy(CUgraph) noexcept { return CUDA_ERROR_NOT_SUPPORTED; }

}  // namespace fabricmem
