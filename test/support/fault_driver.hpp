// SPDX-License-Identifier: Apache-2.0
// Wraps a driver: records the name of every call and fails the ones it is told to. A call that gives something back is
// made before it "fails", so that what is leaked then was leaked by the caller.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fabricmem/forwarding_driver.hpp>

namespace fabricmem::test {

class FaultDriver : public ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;

    /// Fails the call number `number` from now on (1 is the next), once.
    void fail_call(int number, CUresult result) {
        const std::lock_guard lock(mutex_);
        countdown_ = number;
        result_ = result;
    }
    /// Fails every call of this name until allow(); CUDA_SUCCESS takes the fault back.
    void refuse(const std::string& call, CUresult result) {
        const std::lock_guard lock(mutex_);
        refused_[call] = result;
    }
    /// Whether the fault that fail_call() set has been met.
    [[nodiscard]] bool met() const {
        const std::lock_guard lock(mutex_);
        return countdown_ <= 0;
    }
    [[nodiscard]] std::vector<std::string> calls() const {
        const std::lock_guard lock(mutex_);
        return calls_;
    }
    void forget() {
        const std::lock_guard lock(mutex_);
        calls_.clear();
    }

    CUresult init(unsigned int flags) noexcept override {
        const CUresult fault = before("init");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::init(flags);
    }
    CUresult driver_get_version(int* version) noexcept override {
        const CUresult fault = before("driver_get_version");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::driver_get_version(version);
    }
    CUresult get_error_name(CUresult error, const char** name) noexcept override {
        const CUresult fault = before("get_error_name");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::get_error_name(error, name);
    }
    CUresult get_error_string(CUresult error, const char** text) noexcept override {
        const CUresult fault = before("get_error_string");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::get_error_string(error, text);
    }
    CUresult device_get_count(int* count) noexcept override {
        const CUresult fault = before("device_get_count");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_get_count(count);
    }
    CUresult device_get(CUdevice* device, int ordinal) noexcept override {
        const CUresult fault = before("device_get");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_get(device, ordinal);
    }
    CUresult device_get_name(char* name, int name_bytes, CUdevice device) noexcept override {
        const CUresult fault = before("device_get_name");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_get_name(name, name_bytes, device);
    }
    CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept override {
        const CUresult fault = before("device_get_uuid");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_get_uuid(uuid, device);
    }
    CUresult device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept override {
        const CUresult fault = before("device_get_pci_bus_id");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::device_get_pci_bus_id(pci_bus_id, pci_bus_id_bytes, device);
    }
    CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override {
        const CUresult fault = before("device_get_attribute");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_get_attribute(value, attribute, device);
    }
    CUresult device_total_mem(std::size_t* bytes, CUdevice device) noexcept override {
        const CUresult fault = before("device_total_mem");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_total_mem(bytes, device);
    }
    CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept override {
        const CUresult fault = before("device_can_access_peer");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_can_access_peer(can_access, device, peer);
    }
    CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override {
        const CUresult fault = before("device_primary_ctx_retain");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_primary_ctx_retain(context, device);
    }
    CUresult device_primary_ctx_release(CUdevice device) noexcept override {
        return after("device_primary_ctx_release", ForwardingDriver::device_primary_ctx_release(device));
    }
    CUresult device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept override {
        const CUresult fault = before("device_primary_ctx_get_state");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::device_primary_ctx_get_state(device, flags, active);
    }
    CUresult ctx_get_current(CUcontext* context) noexcept override {
        const CUresult fault = before("ctx_get_current");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::ctx_get_current(context);
    }
    CUresult ctx_set_current(CUcontext context) noexcept override {
        const CUresult fault = before("ctx_set_current");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::ctx_set_current(context);
    }
    CUresult ctx_push_current(CUcontext context) noexcept override {
        const CUresult fault = before("ctx_push_current");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::ctx_push_current(context);
    }
    CUresult ctx_pop_current(CUcontext* context) noexcept override {
        return after("ctx_pop_current", ForwardingDriver::ctx_pop_current(context));
    }
    CUresult ctx_get_device(CUdevice* device) noexcept override {
        const CUresult fault = before("ctx_get_device");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::ctx_get_device(device);
    }
    CUresult ctx_synchronize() noexcept override {
        const CUresult fault = before("ctx_synchronize");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::ctx_synchronize();
    }
    CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                            CUmemAllocationGranularity_flags option) noexcept override {
        const CUresult fault = before("mem_get_allocation_granularity");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::mem_get_allocation_granularity(bytes, properties, option);
    }
    CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) noexcept override {
        const CUresult fault = before("mem_create");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_create(handle, bytes, properties, flags);
    }
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override {
        return after("mem_release", ForwardingDriver::mem_release(handle));
    }
    CUresult mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept override {
        const CUresult fault = before("mem_retain_allocation_handle");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_retain_allocation_handle(handle, address);
    }
    CUresult mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                       CUmemGenericAllocationHandle handle) noexcept override {
        const CUresult fault = before("mem_get_allocation_properties_from_handle");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::mem_get_allocation_properties_from_handle(properties, handle);
    }
    CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                            CUmemAllocationHandleType type,
                                            unsigned long long flags) noexcept override {
        const CUresult fault = before("mem_export_to_shareable_handle");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::mem_export_to_shareable_handle(shareable, handle, type, flags);
    }
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override {
        const CUresult fault = before("mem_import_from_shareable_handle");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::mem_import_from_shareable_handle(handle, shareable, type);
    }
    CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                 unsigned long long flags) noexcept override {
        const CUresult fault = before("mem_address_reserve");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::mem_address_reserve(address, bytes, alignment, hint, flags);
    }
    CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept override {
        return after("mem_address_free", ForwardingDriver::mem_address_free(address, bytes));
    }
    CUresult mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                     unsigned long long flags) noexcept override {
        const CUresult fault = before("mem_map");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_map(address, bytes, offset, handle, flags);
    }
    CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override {
        return after("mem_unmap", ForwardingDriver::mem_unmap(address, bytes));
    }
    CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                            std::size_t count) noexcept override {
        const CUresult fault = before("mem_set_access");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_set_access(address, bytes, access, count);
    }
    CUresult mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                            CUdeviceptr address) noexcept override {
        const CUresult fault = before("mem_get_access");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_get_access(flags, location, address);
    }
    CUresult mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept override {
        const CUresult fault = before("mem_get_address_range");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_get_address_range(base, bytes, address);
    }
    CUresult mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                              CUmemRangeHandleType type, unsigned long long flags) noexcept override {
        const CUresult fault = before("mem_get_handle_for_address_range");
        return fault != CUDA_SUCCESS
                   ? fault
                   : ForwardingDriver::mem_get_handle_for_address_range(handle, address, bytes, type, flags);
    }
    CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept override {
        const CUresult fault = before("mem_alloc");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_alloc(address, bytes);
    }
    CUresult mem_free(CUdeviceptr address) noexcept override {
        return after("mem_free", ForwardingDriver::mem_free(address));
    }
    CUresult mem_alloc_host(void** address, std::size_t bytes) noexcept override {
        const CUresult fault = before("mem_alloc_host");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::mem_alloc_host(address, bytes);
    }
    CUresult mem_free_host(void* address) noexcept override {
        return after("mem_free_host", ForwardingDriver::mem_free_host(address));
    }
    CUresult ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept override {
        const CUresult fault = before("ipc_get_mem_handle");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::ipc_get_mem_handle(handle, address);
    }
    CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept override {
        const CUresult fault = before("pointer_get_attribute");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::pointer_get_attribute(value, attribute, address);
    }
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override {
        const CUresult fault = before("pointer_get_attributes");
        return fault != CUDA_SUCCESS ? fault
                                     : ForwardingDriver::pointer_get_attributes(count, attributes, values, address);
    }
    CUresult memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override {
        const CUresult fault = before("memcpy");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memcpy(destination, source, bytes);
    }
    CUresult memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept override {
        const CUresult fault = before("memcpy_htod");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memcpy_htod(destination, source, bytes);
    }
    CUresult memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept override {
        const CUresult fault = before("memcpy_dtoh");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memcpy_dtoh(destination, source, bytes);
    }
    CUresult memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override {
        const CUresult fault = before("memcpy_dtod");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memcpy_dtod(destination, source, bytes);
    }
    CUresult memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                          CUstream stream) noexcept override {
        const CUresult fault = before("memcpy_async");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memcpy_async(destination, source, bytes, stream);
    }
    CUresult memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept override {
        const CUresult fault = before("memset_d8");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memset_d8(destination, value, count);
    }
    CUresult memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                             CUstream stream) noexcept override {
        const CUresult fault = before("memset_d8_async");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::memset_d8_async(destination, value, count, stream);
    }
    CUresult stream_create(CUstream* stream, unsigned int flags) noexcept override {
        const CUresult fault = before("stream_create");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_create(stream, flags);
    }
    CUresult stream_destroy(CUstream stream) noexcept override {
        return after("stream_destroy", ForwardingDriver::stream_destroy(stream));
    }
    CUresult stream_query(CUstream stream) noexcept override {
        const CUresult fault = before("stream_query");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_query(stream);
    }
    CUresult stream_synchronize(CUstream stream) noexcept override {
        const CUresult fault = before("stream_synchronize");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_synchronize(stream);
    }
    CUresult stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                  unsigned int flags) noexcept override {
        const CUresult fault = before("stream_write_value32");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_write_value32(stream, address, value, flags);
    }
    CUresult stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                 unsigned int flags) noexcept override {
        const CUresult fault = before("stream_wait_value32");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_wait_value32(stream, address, value, flags);
    }
    CUresult stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                  unsigned int flags) noexcept override {
        const CUresult fault = before("stream_write_value64");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_write_value64(stream, address, value, flags);
    }
    CUresult stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                 unsigned int flags) noexcept override {
        const CUresult fault = before("stream_wait_value64");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_wait_value64(stream, address, value, flags);
    }
    CUresult stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept override {
        const CUresult fault = before("stream_begin_capture");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_begin_capture(stream, mode);
    }
    CUresult stream_end_capture(CUstream stream, CUgraph* graph) noexcept override {
        const CUresult fault = before("stream_end_capture");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_end_capture(stream, graph);
    }
    CUresult stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept override {
        const CUresult fault = before("stream_is_capturing");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::stream_is_capturing(stream, status);
    }
    CUresult thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept override {
        const CUresult fault = before("thread_exchange_stream_capture_mode");
        return fault != CUDA_SUCCESS ? fault : ForwardingDriver::thread_exchange_stream_capture_mode(mode);
    }
    CUresult graph_destroy(CUgraph graph) noexcept override {
        return after("graph_destroy", ForwardingDriver::graph_destroy(graph));
    }

private:
    CUresult before(const char* call) noexcept {
        const std::lock_guard lock(mutex_);
        calls_.emplace_back(call);
        if (countdown_ > 0 && --countdown_ == 0) return result_;
        const auto refused = refused_.find(call);
        return refused == refused_.end() ? CUDA_SUCCESS : refused->second;
    }
    CUresult after(const char* call, CUresult done) noexcept {
        const CUresult fault = before(call);
        return fault != CUDA_SUCCESS ? fault : done;
    }

    mutable std::mutex mutex_;
    std::vector<std::string> calls_;
    std::map<std::string, CUresult, std::less<>> refused_;
    int countdown_ = 0;
    CUresult result_ = CUDA_SUCCESS;
};

}  // namespace fabricmem::test
