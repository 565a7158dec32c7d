// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/forwarding_driver.hpp>

#include <utility>

#include <fabricmem/error.hpp>

namespace fabricmem {

ForwardingDriver::ForwardingDriver(std::shared_ptr<Driver> inner) : inner_(std::move(inner)) {
    if (inner_ == nullptr)
        throw Error({.kind = ErrorKind::bad_argument, .subject = "a ForwardingDriver needs a driver to forward to"});
}
ForwardingDriver::~ForwardingDriver() = default;

std::string_view ForwardingDriver::name() const noexcept { return inner_->name(); }
const Platform& ForwardingDriver::platform() const noexcept { return inner_->platform(); }

CUresult ForwardingDriver::init(unsigned int flags) noexcept { return inner_->init(flags); }
CUresult ForwardingDriver::driver_get_version(int* version) noexcept { return inner_->driver_get_version(version); }
CUresult ForwardingDriver::get_error_name(CUresult error, const char** name) noexcept {
    return inner_->get_error_name(error, name);
}
CUresult ForwardingDriver::get_error_string(CUresult error, const char** text) noexcept {
    return inner_->get_error_string(error, text);
}
CUresult ForwardingDriver::device_get_count(int* count) noexcept { return inner_->device_get_count(count); }
CUresult ForwardingDriver::device_get(CUdevice* device, int ordinal) noexcept {
    return inner_->device_get(device, ordinal);
}
CUresult ForwardingDriver::device_get_name(char* name, int name_bytes, CUdevice device) noexcept {
    return inner_->device_get_name(name, name_bytes, device);
}
CUresult ForwardingDriver::device_get_uuid(CUuuid* uuid, CUdevice device) noexcept {
    return inner_->device_get_uuid(uuid, device);
}
CUresult ForwardingDriver::device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept {
    return inner_->device_get_pci_bus_id(pci_bus_id, pci_bus_id_bytes, device);
}
CUresult ForwardingDriver::device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept {
    return inner_->device_get_attribute(value, attribute, device);
}
CUresult ForwardingDriver::device_total_mem(std::size_t* bytes, CUdevice device) noexcept {
    return inner_->device_total_mem(bytes, device);
}
CUresult ForwardingDriver::device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept {
    return inner_->device_can_access_peer(can_access, device, peer);
}
CUresult ForwardingDriver::device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept {
    return inner_->device_primary_ctx_retain(context, device);
}
CUresult ForwardingDriver::device_primary_ctx_release(CUdevice device) noexcept {
    return inner_->device_primary_ctx_release(device);
}
CUresult ForwardingDriver::device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept {
    return inner_->device_primary_ctx_get_state(device, flags, active);
}
CUresult ForwardingDriver::ctx_get_current(CUcontext* context) noexcept { return inner_->ctx_get_current(context); }
CUresult ForwardingDriver::ctx_set_current(CUcontext context) noexcept { return inner_->ctx_set_current(context); }
CUresult ForwardingDriver::ctx_push_current(CUcontext context) noexcept { return inner_->ctx_push_current(context); }
CUresult ForwardingDriver::ctx_pop_current(CUcontext* context) noexcept { return inner_->ctx_pop_current(context); }
CUresult ForwardingDriver::ctx_get_device(CUdevice* device) noexcept { return inner_->ctx_get_device(device); }
CUresult ForwardingDriver::ctx_synchronize() noexcept { return inner_->ctx_synchronize(); }
CUresult ForwardingDriver::mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                          CUmemAllocationGranularity_flags option) noexcept {
    return inner_->mem_get_allocation_granularity(bytes, properties, option);
}
CUresult ForwardingDriver::mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                      const CUmemAllocationProp* properties, unsigned long long flags) noexcept {
    return inner_->mem_create(handle, bytes, properties, flags);
}
CUresult ForwardingDriver::mem_release(CUmemGenericAllocationHandle handle) noexcept {
    return inner_->mem_release(handle);
}
CUresult ForwardingDriver::mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept {
    return inner_->mem_retain_allocation_handle(handle, address);
}
CUresult ForwardingDriver::mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                                     CUmemGenericAllocationHandle handle) noexcept {
    return inner_->mem_get_allocation_properties_from_handle(properties, handle);
}
CUresult ForwardingDriver::mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                                          CUmemAllocationHandleType type,
                                                          unsigned long long flags) noexcept {
    return inner_->mem_export_to_shareable_handle(shareable, handle, type, flags);
}
CUresult ForwardingDriver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                            CUmemAllocationHandleType type) noexcept {
    return inner_->mem_import_from_shareable_handle(handle, shareable, type);
}
CUresult ForwardingDriver::mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                               CUdeviceptr hint, unsigned long long flags) noexcept {
    return inner_->mem_address_reserve(address, bytes, alignment, hint, flags);
}
CUresult ForwardingDriver::mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept {
    return inner_->mem_address_free(address, bytes);
}
CUresult ForwardingDriver::mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                                   CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept {
    return inner_->mem_map(address, bytes, offset, handle, flags);
}
CUresult ForwardingDriver::mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept {
    return inner_->mem_unmap(address, bytes);
}
CUresult ForwardingDriver::mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                          std::size_t count) noexcept {
    return inner_->mem_set_access(address, bytes, access, count);
}
CUresult ForwardingDriver::mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                                          CUdeviceptr address) noexcept {
    return inner_->mem_get_access(flags, location, address);
}
CUresult ForwardingDriver::mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept {
    return inner_->mem_get_address_range(base, bytes, address);
}
CUresult ForwardingDriver::mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                                            CUmemRangeHandleType type,
                                                            unsigned long long flags) noexcept {
    return inner_->mem_get_handle_for_address_range(handle, address, bytes, type, flags);
}
CUresult ForwardingDriver::mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept {
    return inner_->mem_alloc(address, bytes);
}
CUresult ForwardingDriver::mem_free(CUdeviceptr address) noexcept { return inner_->mem_free(address); }
CUresult ForwardingDriver::mem_alloc_host(void** address, std::size_t bytes) noexcept {
    return inner_->mem_alloc_host(address, bytes);
}
CUresult ForwardingDriver::mem_free_host(void* address) noexcept { return inner_->mem_free_host(address); }
CUresult ForwardingDriver::ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept {
    return inner_->ipc_get_mem_handle(handle, address);
}
CUresult ForwardingDriver::pointer_get_attribute(void* value, CUpointer_attribute attribute,
                                                 CUdeviceptr address) noexcept {
    return inner_->pointer_get_attribute(value, attribute, address);
}
CUresult ForwardingDriver::pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                                  CUdeviceptr address) noexcept {
    return inner_->pointer_get_attributes(count, attributes, values, address);
}
CUresult ForwardingDriver::memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return inner_->memcpy(destination, source, bytes);
}
CUresult ForwardingDriver::memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept {
    return inner_->memcpy_htod(destination, source, bytes);
}
CUresult ForwardingDriver::memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return inner_->memcpy_dtoh(destination, source, bytes);
}
CUresult ForwardingDriver::memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return inner_->memcpy_dtod(destination, source, bytes);
}
CUresult ForwardingDriver::memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                                        CUstream stream) noexcept {
    return inner_->memcpy_async(destination, source, bytes, stream);
}
CUresult ForwardingDriver::memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes,
                                              std::size_t count, CUstream stream) noexcept {
    return inner_->memcpy_batch_async(destinations, sources, bytes, count, stream);
}
CUresult ForwardingDriver::memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept {
    return inner_->memset_d8(destination, value, count);
}
CUresult ForwardingDriver::memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                                           CUstream stream) noexcept {
    return inner_->memset_d8_async(destination, value, count, stream);
}
CUresult ForwardingDriver::stream_create(CUstream* stream, unsigned int flags) noexcept {
    return inner_->stream_create(stream, flags);
}
CUresult ForwardingDriver::stream_destroy(CUstream stream) noexcept { return inner_->stream_destroy(stream); }
CUresult ForwardingDriver::stream_query(CUstream stream) noexcept { return inner_->stream_query(stream); }
CUresult ForwardingDriver::stream_synchronize(CUstream stream) noexcept { return inner_->stream_synchronize(stream); }
CUresult ForwardingDriver::stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                                unsigned int flags) noexcept {
    return inner_->stream_write_value32(stream, address, value, flags);
}
CUresult ForwardingDriver::stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                               unsigned int flags) noexcept {
    return inner_->stream_wait_value32(stream, address, value, flags);
}
CUresult ForwardingDriver::stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                                unsigned int flags) noexcept {
    return inner_->stream_write_value64(stream, address, value, flags);
}
CUresult ForwardingDriver::stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                               unsigned int flags) noexcept {
    return inner_->stream_wait_value64(stream, address, value, flags);
}
CUresult ForwardingDriver::stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept {
    return inner_->stream_begin_capture(stream, mode);
}
CUresult ForwardingDriver::stream_end_capture(CUstream stream, CUgraph* graph) noexcept {
    return inner_->stream_end_capture(stream, graph);
}
CUresult ForwardingDriver::stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept {
    return inner_->stream_is_capturing(stream, status);
}
CUresult ForwardingDriver::thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept {
    return inner_->thread_exchange_stream_capture_mode(mode);
}
CUresult ForwardingDriver::graph_destroy(CUgraph graph) noexcept { return inner_->graph_destroy(graph); }

}  // namespace fabricmem
