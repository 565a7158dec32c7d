// SPDX-License-Identifier: Apache-2.0
// Takes the time around each call of another driver, and counts.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <fabricmem/counters.hpp>
#include <fabricmem/forwarding_driver.hpp>

namespace fabricmem::detail {

class CountingDriver final : public ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;
    ~CountingDriver() override;

    /// Those that were made.
    [[nodiscard]] std::vector<CallCounters> calls() const;

    CUresult init(unsigned int flags) noexcept override;
    CUresult driver_get_version(int* version) noexcept override;
    CUresult get_error_name(CUresult error, const char** name) noexcept override;
    CUresult get_error_string(CUresult error, const char** text) noexcept override;
    CUresult device_get_count(int* count) noexcept override;
    CUresult device_get(CUdevice* device, int ordinal) noexcept override;
    CUresult device_get_name(char* name, int name_bytes, CUdevice device) noexcept override;
    CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept override;
    CUresult device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept override;
    CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override;
    CUresult device_total_mem(std::size_t* bytes, CUdevice device) noexcept override;
    CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept override;
    CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override;
    CUresult device_primary_ctx_release(CUdevice device) noexcept override;
    CUresult device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept override;
    CUresult ctx_get_current(CUcontext* context) noexcept override;
    CUresult ctx_set_current(CUcontext context) noexcept override;
    CUresult ctx_push_current(CUcontext context) noexcept override;
    CUresult ctx_pop_current(CUcontext* context) noexcept override;
    CUresult ctx_get_device(CUdevice* device) noexcept override;
    CUresult ctx_synchronize() noexcept override;
    CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                            CUmemAllocationGranularity_flags option) noexcept override;
    CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) noexcept override;
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override;
    CUresult mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept override;
    CUresult mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                       CUmemGenericAllocationHandle handle) noexcept override;
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
    CUresult mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                            CUdeviceptr address) noexcept override;
    CUresult mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept override;
    CUresult mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                              CUmemRangeHandleType type, unsigned long long flags) noexcept override;
    CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept override;
    CUresult mem_free(CUdeviceptr address) noexcept override;
    CUresult mem_alloc_host(void** address, std::size_t bytes) noexcept override;
    CUresult mem_free_host(void* address) noexcept override;
    CUresult ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override;
    CUresult memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override;
    CUresult memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept override;
    CUresult memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept override;
    CUresult memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override;
    CUresult memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                          CUstream stream) noexcept override;
    CUresult memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes, std::size_t count,
                                CUstream stream) noexcept override;
    CUresult memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept override;
    CUresult memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                             CUstream stream) noexcept override;
    CUresult stream_create(CUstream* stream, unsigned int flags) noexcept override;
    CUresult stream_destroy(CUstream stream) noexcept override;
    CUresult stream_query(CUstream stream) noexcept override;
    CUresult stream_synchronize(CUstream stream) noexcept override;
    CUresult stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                  unsigned int flags) noexcept override;
    CUresult stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                 unsigned int flags) noexcept override;
    CUresult stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                  unsigned int flags) noexcept override;
    CUresult stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                 unsigned int flags) noexcept override;
    CUresult stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept override;
    CUresult stream_end_capture(CUstream stream, CUgraph* graph) noexcept override;
    CUresult stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept override;
    CUresult thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept override;
    CUresult graph_destroy(CUgraph graph) noexcept override;

private:
    enum class Call : std::uint8_t {
        init,
        driver_get_version,
        get_error_name,
        get_error_string,
        device_get_count,
        device_get,
        device_get_name,
        device_get_uuid,
        device_get_pci_bus_id,
        device_get_attribute,
        device_total_mem,
        device_can_access_peer,
        device_primary_ctx_retain,
        device_primary_ctx_release,
        device_primary_ctx_get_state,
        ctx_get_current,
        ctx_set_current,
        ctx_push_current,
        ctx_pop_current,
        ctx_get_device,
        ctx_synchronize,
        mem_get_allocation_granularity,
        mem_create,
        mem_release,
        mem_retain_allocation_handle,
        mem_get_allocation_properties_from_handle,
        mem_export_to_shareable_handle,
        mem_import_from_shareable_handle,
        mem_address_reserve,
        mem_address_free,
        mem_map,
        mem_unmap,
        mem_set_access,
        mem_get_access,
        mem_get_address_range,
        mem_get_handle_for_address_range,
        mem_alloc,
        mem_free,
        mem_alloc_host,
        mem_free_host,
        ipc_get_mem_handle,
        pointer_get_attribute,
        pointer_get_attributes,
        memcpy,
        memcpy_htod,
        memcpy_dtoh,
        memcpy_dtod,
        memcpy_async,
        memcpy_batch_async,
        memset_d8,
        memset_d8_async,
        stream_create,
        stream_destroy,
        stream_query,
        stream_synchronize,
        stream_write_value32,
        stream_wait_value32,
        stream_write_value64,
        stream_wait_value64,
        stream_begin_capture,
        stream_end_capture,
        stream_is_capturing,
        thread_exchange_stream_capture_mode,
        graph_destroy,
    };
    static constexpr std::size_t kCalls = static_cast<std::size_t>(Call::graph_destroy) + 1;

    // Relaxed all of them: they are read by themselves. How many calls there were is the sum of the buckets.
    struct alignas(64) Cell {
        std::atomic<std::uint64_t> total_ns{0};
        std::atomic<std::uint64_t> max_ns{0};
        std::atomic<std::uint64_t> failures{0};
        std::array<std::atomic<std::uint64_t>, CallCounters::kBuckets> histogram{};
    };

    template <typename Action>
    CUresult timed(Call call, Action&& action) noexcept;
    void count(Call call, CUresult result, std::uint64_t ns) noexcept;

    std::array<Cell, kCalls> cells_{};
};

}  // namespace fabricmem::detail
