// SPDX-License-Identifier: Apache-2.0
// The seam: one virtual function per CUDA driver call that the library makes, in the driver's own words. The only
// public header (with forwarding_driver.hpp and fault_driver.hpp, which build on it) that includes <cuda.h>; link
// fabricmem::driver for it.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include <cuda.h>

#include <fabricmem/export.hpp>
#include <fabricmem/platform.hpp>

namespace fabricmem {

namespace detail {
class DriverState;
}

/// The CUDA driver, or a stand-in for it. A function bears its call's name (`mem_create` is cuMemCreate), takes what
/// the call takes, returns its CUresult and does not throw. What a stand-in does not override answers NOT_SUPPORTED, so
/// a function added here breaks no stand-in.
///
/// Thread-safe, as the driver is. Lives in a shared_ptr: buffers keep their driver alive.
class FABRICMEM_API Driver {
public:
    Driver();
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;
    virtual ~Driver();

    /// "cuda", "emulated": for messages.
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    /// The node that this driver's process runs on; lives as long as the driver.
    [[nodiscard]] virtual const Platform& platform() const noexcept = 0;

    // Versions and words
    virtual CUresult init(unsigned int flags) noexcept;
    virtual CUresult driver_get_version(int* version) noexcept;
    virtual CUresult get_error_name(CUresult error, const char** name) noexcept;
    virtual CUresult get_error_string(CUresult error, const char** text) noexcept;

    // Devices
    virtual CUresult device_get_count(int* count) noexcept;
    virtual CUresult device_get(CUdevice* device, int ordinal) noexcept;
    virtual CUresult device_get_name(char* name, int name_bytes, CUdevice device) noexcept;
    virtual CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept;
    virtual CUresult device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept;
    virtual CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept;
    virtual CUresult device_total_mem(std::size_t* bytes, CUdevice device) noexcept;
    virtual CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept;

    // Contexts
    virtual CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept;
    virtual CUresult device_primary_ctx_release(CUdevice device) noexcept;
    virtual CUresult device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept;
    virtual CUresult ctx_get_current(CUcontext* context) noexcept;
    virtual CUresult ctx_set_current(CUcontext context) noexcept;
    virtual CUresult ctx_push_current(CUcontext context) noexcept;
    virtual CUresult ctx_pop_current(CUcontext* context) noexcept;
    virtual CUresult ctx_get_device(CUdevice* device) noexcept;
    virtual CUresult ctx_synchronize() noexcept;

    // Virtual memory management: the life of an allocation
    virtual CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                    CUmemAllocationGranularity_flags option) noexcept;
    virtual CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                const CUmemAllocationProp* properties, unsigned long long flags) noexcept;
    virtual CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept;
    virtual CUresult mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept;
    virtual CUresult mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                               CUmemGenericAllocationHandle handle) noexcept;
    virtual CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                                    CUmemAllocationHandleType type, unsigned long long flags) noexcept;
    virtual CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                      CUmemAllocationHandleType type) noexcept;
    virtual CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                         CUdeviceptr hint, unsigned long long flags) noexcept;
    virtual CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept;
    virtual CUresult mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                             CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept;
    virtual CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept;
    virtual CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                    std::size_t count) noexcept;
    virtual CUresult mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                                    CUdeviceptr address) noexcept;
    virtual CUresult mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept;
    virtual CUresult mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                                      CUmemRangeHandleType type, unsigned long long flags) noexcept;

    // Other memory, and what a pointer is
    virtual CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept;
    virtual CUresult mem_free(CUdeviceptr address) noexcept;
    virtual CUresult mem_alloc_host(void** address, std::size_t bytes) noexcept;
    virtual CUresult mem_free_host(void* address) noexcept;
    virtual CUresult ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept;
    virtual CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept;
    virtual CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                            CUdeviceptr address) noexcept;

    // Copy and set
    virtual CUresult memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept;
    virtual CUresult memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept;
    virtual CUresult memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept;
    virtual CUresult memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept;
    virtual CUresult memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                                  CUstream stream) noexcept;
    /// cuMemcpyBatchAsync of CUDA 12.8, whose signature changed with 13.0: `count` copies, `bytes[i]` bytes each, in no
    /// order among themselves, all with one attribute: sources are read in the order of the stream. So no type is named
    /// that an older cuda.h lacks. Not for the legacy default stream. NOT_SUPPORTED where the driver is older
    /// than 12.8.
    virtual CUresult memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes,
                                        std::size_t count, CUstream stream) noexcept;
    virtual CUresult memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept;
    virtual CUresult memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                                     CUstream stream) noexcept;

    // Streams
    virtual CUresult stream_create(CUstream* stream, unsigned int flags) noexcept;
    virtual CUresult stream_destroy(CUstream stream) noexcept;
    virtual CUresult stream_query(CUstream stream) noexcept;
    virtual CUresult stream_synchronize(CUstream stream) noexcept;
    virtual CUresult stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                          unsigned int flags) noexcept;
    virtual CUresult stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                         unsigned int flags) noexcept;
    virtual CUresult stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                          unsigned int flags) noexcept;
    virtual CUresult stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                         unsigned int flags) noexcept;

    // Capture
    virtual CUresult stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept;
    virtual CUresult stream_end_capture(CUstream stream, CUgraph* graph) noexcept;
    virtual CUresult stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept;
    virtual CUresult thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept;
    virtual CUresult graph_destroy(CUgraph graph) noexcept;

private:
    friend class detail::DriverState;
    // What the library has learnt through this driver and keeps (device list, granularities, retired address ranges).
    std::unique_ptr<detail::DriverState> state_;
};

}  // namespace fabricmem
