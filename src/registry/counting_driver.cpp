// SPDX-License-Identifier: Apache-2.0
// Every function of the seam, with the time that it took.
#include "registry/counting_driver.hpp"

#include <time.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

namespace fabricmem::detail {
namespace {

// In the order of CountingDriver::Call.
constexpr const char* kCountedNames[] = {
    "init",
    "driver_get_version",
    "get_error_name",
    "get_error_string",
    "device_get_count",
    "device_get",
    "device_get_name",
    "device_get_uuid",
    "device_get_pci_bus_id",
    "device_get_attribute",
    "device_total_mem",
    "device_can_access_peer",
    "device_primary_ctx_retain",
    "device_primary_ctx_release",
    "device_primary_ctx_get_state",
    "ctx_get_current",
    "ctx_set_current",
    "ctx_push_current",
    "ctx_pop_current",
    "ctx_get_device",
    "ctx_synchronize",
    "mem_get_allocation_granularity",
    "mem_create",
    "mem_release",
    "mem_retain_allocation_handle",
    "mem_get_allocation_properties_from_handle",
    "mem_export_to_shareable_handle",
    "mem_import_from_shareable_handle",
    "mem_address_reserve",
    "mem_address_free",
    "mem_map",
    "mem_unmap",
    "mem_set_access",
    "mem_get_access",
    "mem_get_address_range",
    "mem_get_handle_for_address_range",
    "mem_alloc",
    "mem_free",
    "mem_alloc_host",
    "mem_free_host",
    "ipc_get_mem_handle",
    "pointer_get_attribute",
    "pointer_get_attributes",
    "memcpy",
    "memcpy_htod",
    "memcpy_dtoh",
    "memcpy_dtod",
    "memcpy_async",
    "memcpy_batch_async",
    "memset_d8",
    "memset_d8_async",
    "stream_create",
    "stream_destroy",
    "stream_query",
    "stream_synchronize",
    "stream_write_value32",
    "stream_wait_value32",
    "stream_write_value64",
    "stream_wait_value64",
    "stream_begin_capture",
    "stream_end_capture",
    "stream_is_capturing",
    "thread_exchange_stream_capture_mode",
    "graph_destroy",
};

std::uint64_t monotonic_ns() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

CountingDriver::~CountingDriver() = default;

template <typename Action>
CUresult CountingDriver::timed(Call call, Action&& action) noexcept {
    const std::uint64_t begin = monotonic_ns();
    const CUresult result = std::forward<Action>(action)();
    count(call, result, monotonic_ns() - begin);
    return result;
}

void CountingDriver::count(Call call, CUresult result, std::uint64_t ns) noexcept {
    Cell& cell = cells_[static_cast<std::size_t>(call)];
    const std::size_t bucket = std::min<std::size_t>(std::bit_width(ns | 1U) - 1, CallCounters::kBuckets - 1);
    cell.histogram[bucket].fetch_add(1, std::memory_order_relaxed);
    cell.total_ns.fetch_add(ns, std::memory_order_relaxed);
    if (result != CUDA_SUCCESS) cell.failures.fetch_add(1, std::memory_order_relaxed);
    std::uint64_t longest = cell.max_ns.load(std::memory_order_relaxed);
    while (longest < ns && !cell.max_ns.compare_exchange_weak(longest, ns, std::memory_order_relaxed)) {
    }
}

std::vector<CallCounters> CountingDriver::calls() const {
    static_assert(std::size(kCountedNames) == kCalls);
    std::vector<CallCounters> all;
    for (std::size_t i = 0; i < kCalls; ++i) {
        const Cell& cell = cells_[i];
        CallCounters counted{.call = kCountedNames[i],
                             .failures = cell.failures.load(std::memory_order_relaxed),
                             .total_ns = cell.total_ns.load(std::memory_order_relaxed),
                             .max_ns = cell.max_ns.load(std::memory_order_relaxed)};
        for (std::size_t bucket = 0; bucket < CallCounters::kBuckets; ++bucket) {
            counted.histogram[bucket] = cell.histogram[bucket].load(std::memory_order_relaxed);
            counted.calls += counted.histogram[bucket];
        }
        if (counted.calls != 0) all.push_back(counted);
    }
    return all;
}

CUresult CountingDriver::init(unsigned int flags) noexcept {
    return timed(Call::init, [&] { return ForwardingDriver::init(flags); });
}
CUresult CountingDriver::driver_get_version(int* version) noexcept {
    return timed(Call::driver_get_version, [&] { return ForwardingDriver::driver_get_version(version); });
}
CUresult CountingDriver::get_error_name(CUresult error, const char** name) noexcept {
    return timed(Call::get_error_name, [&] { return ForwardingDriver::get_error_name(error, name); });
}
CUresult CountingDriver::get_error_string(CUresult error, const char** text) noexcept {
    return timed(Call::get_error_string, [&] { return ForwardingDriver::get_error_string(error, text); });
}
CUresult CountingDriver::device_get_count(int* count) noexcept {
    return timed(Call::device_get_count, [&] { return ForwardingDriver::device_get_count(count); });
}
CUresult CountingDriver::device_get(CUdevice* device, int ordinal) noexcept {
    return timed(Call::device_get, [&] { return ForwardingDriver::device_get(device, ordinal); });
}
CUresult CountingDriver::device_get_name(char* name, int name_bytes, CUdevice device) noexcept {
    return timed(Call::device_get_name, [&] { return ForwardingDriver::device_get_name(name, name_bytes, device); });
}
CUresult CountingDriver::device_get_uuid(CUuuid* uuid, CUdevice device) noexcept {
    return timed(Call::device_get_uuid, [&] { return ForwardingDriver::device_get_uuid(uuid, device); });
}
CUresult CountingDriver::device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept {
    return timed(Call::device_get_pci_bus_id,
                 [&] { return ForwardingDriver::device_get_pci_bus_id(pci_bus_id, pci_bus_id_bytes, device); });
}
CUresult CountingDriver::device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept {
    return timed(Call::device_get_attribute,
                 [&] { return ForwardingDriver::device_get_attribute(value, attribute, device); });
}
CUresult CountingDriver::device_total_mem(std::size_t* bytes, CUdevice device) noexcept {
    return timed(Call::device_total_mem, [&] { return ForwardingDriver::device_total_mem(bytes, device); });
}
CUresult CountingDriver::device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept {
    return timed(Call::device_can_access_peer,
                 [&] { return ForwardingDriver::device_can_access_peer(can_access, device, peer); });
}
CUresult CountingDriver::device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept {
    return timed(Call::device_primary_ctx_retain,
                 [&] { return ForwardingDriver::device_primary_ctx_retain(context, device); });
}
CUresult CountingDriver::device_primary_ctx_release(CUdevice device) noexcept {
    return timed(Call::device_primary_ctx_release,
                 [&] { return ForwardingDriver::device_primary_ctx_release(device); });
}
CUresult CountingDriver::device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept {
    return timed(Call::device_primary_ctx_get_state,
                 [&] { return ForwardingDriver::device_primary_ctx_get_state(device, flags, active); });
}
CUresult CountingDriver::ctx_get_current(CUcontext* context) noexcept {
    return timed(Call::ctx_get_current, [&] { return ForwardingDriver::ctx_get_current(context); });
}
CUresult CountingDriver::ctx_set_current(CUcontext context) noexcept {
    return timed(Call::ctx_set_current, [&] { return ForwardingDriver::ctx_set_current(context); });
}
CUresult CountingDriver::ctx_push_current(CUcontext context) noexcept {
    return timed(Call::ctx_push_current, [&] { return ForwardingDriver::ctx_push_current(context); });
}
CUresult CountingDriver::ctx_pop_current(CUcontext* context) noexcept {
    return timed(Call::ctx_pop_current, [&] { return ForwardingDriver::ctx_pop_current(context); });
}
CUresult CountingDriver::ctx_get_device(CUdevice* device) noexcept {
    return timed(Call::ctx_get_device, [&] { return ForwardingDriver::ctx_get_device(device); });
}
CUresult CountingDriver::ctx_synchronize() noexcept {
    return timed(Call::ctx_synchronize, [&] { return ForwardingDriver::ctx_synchronize(); });
}
CUresult CountingDriver::mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                        CUmemAllocationGranularity_flags option) noexcept {
    return timed(Call::mem_get_allocation_granularity,
                 [&] { return ForwardingDriver::mem_get_allocation_granularity(bytes, properties, option); });
}
CUresult CountingDriver::mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                    const CUmemAllocationProp* properties, unsigned long long flags) noexcept {
    return timed(Call::mem_create, [&] { return ForwardingDriver::mem_create(handle, bytes, properties, flags); });
}
CUresult CountingDriver::mem_release(CUmemGenericAllocationHandle handle) noexcept {
    return timed(Call::mem_release, [&] { return ForwardingDriver::mem_release(handle); });
}
CUresult CountingDriver::mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept {
    return timed(Call::mem_retain_allocation_handle,
                 [&] { return ForwardingDriver::mem_retain_allocation_handle(handle, address); });
}
CUresult CountingDriver::mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                                   CUmemGenericAllocationHandle handle) noexcept {
    return timed(Call::mem_get_allocation_properties_from_handle,
                 [&] { return ForwardingDriver::mem_get_allocation_properties_from_handle(properties, handle); });
}
CUresult CountingDriver::mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                                        CUmemAllocationHandleType type,
                                                        unsigned long long flags) noexcept {
    return timed(Call::mem_export_to_shareable_handle,
                 [&] { return ForwardingDriver::mem_export_to_shareable_handle(shareable, handle, type, flags); });
}
CUresult CountingDriver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                          CUmemAllocationHandleType type) noexcept {
    return timed(Call::mem_import_from_shareable_handle,
                 [&] { return ForwardingDriver::mem_import_from_shareable_handle(handle, shareable, type); });
}
CUresult CountingDriver::mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                             CUdeviceptr hint, unsigned long long flags) noexcept {
    return timed(Call::mem_address_reserve,
                 [&] { return ForwardingDriver::mem_address_reserve(address, bytes, alignment, hint, flags); });
}
CUresult CountingDriver::mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept {
    return timed(Call::mem_address_free, [&] { return ForwardingDriver::mem_address_free(address, bytes); });
}
CUresult CountingDriver::mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                                 CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept {
    return timed(Call::mem_map, [&] { return ForwardingDriver::mem_map(address, bytes, offset, handle, flags); });
}
CUresult CountingDriver::mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept {
    return timed(Call::mem_unmap, [&] { return ForwardingDriver::mem_unmap(address, bytes); });
}
CUresult CountingDriver::mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                        std::size_t count) noexcept {
    return timed(Call::mem_set_access, [&] { return ForwardingDriver::mem_set_access(address, bytes, access, count); });
}
CUresult CountingDriver::mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                                        CUdeviceptr address) noexcept {
    return timed(Call::mem_get_access, [&] { return ForwardingDriver::mem_get_access(flags, location, address); });
}
CUresult CountingDriver::mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept {
    return timed(Call::mem_get_address_range,
                 [&] { return ForwardingDriver::mem_get_address_range(base, bytes, address); });
}
CUresult CountingDriver::mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                                          CUmemRangeHandleType type,
                                                          unsigned long long flags) noexcept {
    return timed(Call::mem_get_handle_for_address_range, [&] {
        return ForwardingDriver::mem_get_handle_for_address_range(handle, address, bytes, type, flags);
    });
}
CUresult CountingDriver::mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept {
    return timed(Call::mem_alloc, [&] { return ForwardingDriver::mem_alloc(address, bytes); });
}
CUresult CountingDriver::mem_free(CUdeviceptr address) noexcept {
    return timed(Call::mem_free, [&] { return ForwardingDriver::mem_free(address); });
}
CUresult CountingDriver::mem_alloc_host(void** address, std::size_t bytes) noexcept {
    return timed(Call::mem_alloc_host, [&] { return ForwardingDriver::mem_alloc_host(address, bytes); });
}
CUresult CountingDriver::mem_free_host(void* address) noexcept {
    return timed(Call::mem_free_host, [&] { return ForwardingDriver::mem_free_host(address); });
}
CUresult CountingDriver::ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept {
    return timed(Call::ipc_get_mem_handle, [&] { return ForwardingDriver::ipc_get_mem_handle(handle, address); });
}
CUresult CountingDriver::pointer_get_attribute(void* value, CUpointer_attribute attribute,
                                               CUdeviceptr address) noexcept {
    return timed(Call::pointer_get_attribute,
                 [&] { return ForwardingDriver::pointer_get_attribute(value, attribute, address); });
}
CUresult CountingDriver::pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                                CUdeviceptr address) noexcept {
    return timed(Call::pointer_get_attributes,
                 [&] { return ForwardingDriver::pointer_get_attributes(count, attributes, values, address); });
}
CUresult CountingDriver::memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return timed(Call::memcpy, [&] { return ForwardingDriver::memcpy(destination, source, bytes); });
}
CUresult CountingDriver::memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept {
    return timed(Call::memcpy_htod, [&] { return ForwardingDriver::memcpy_htod(destination, source, bytes); });
}
CUresult CountingDriver::memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return timed(Call::memcpy_dtoh, [&] { return ForwardingDriver::memcpy_dtoh(destination, source, bytes); });
}
CUresult CountingDriver::memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return timed(Call::memcpy_dtod, [&] { return ForwardingDriver::memcpy_dtod(destination, source, bytes); });
}
CUresult CountingDriver::memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                                      CUstream stream) noexcept {
    return timed(Call::memcpy_async,
                 [&] { return ForwardingDriver::memcpy_async(destination, source, bytes, stream); });
}
CUresult CountingDriver::memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes,
                                            std::size_t count, CUstream stream) noexcept {
    return timed(Call::memcpy_batch_async,
                 [&] { return ForwardingDriver::memcpy_batch_async(destinations, sources, bytes, count, stream); });
}
CUresult CountingDriver::memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept {
    return timed(Call::memset_d8, [&] { return ForwardingDriver::memset_d8(destination, value, count); });
}
CUresult CountingDriver::memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                                         CUstream stream) noexcept {
    return timed(Call::memset_d8_async,
                 [&] { return ForwardingDriver::memset_d8_async(destination, value, count, stream); });
}
CUresult CountingDriver::stream_create(CUstream* stream, unsigned int flags) noexcept {
    return timed(Call::stream_create, [&] { return ForwardingDriver::stream_create(stream, flags); });
}
CUresult CountingDriver::stream_destroy(CUstream stream) noexcept {
    return timed(Call::stream_destroy, [&] { return ForwardingDriver::stream_destroy(stream); });
}
CUresult CountingDriver::stream_query(CUstream stream) noexcept {
    return timed(Call::stream_query, [&] { return ForwardingDriver::stream_query(stream); });
}
CUresult CountingDriver::stream_synchronize(CUstream stream) noexcept {
    return timed(Call::stream_synchronize, [&] { return ForwardingDriver::stream_synchronize(stream); });
}
CUresult CountingDriver::stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                              unsigned int flags) noexcept {
    return timed(Call::stream_write_value32,
                 [&] { return ForwardingDriver::stream_write_value32(stream, address, value, flags); });
}
CUresult CountingDriver::stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                             unsigned int flags) noexcept {
    return timed(Call::stream_wait_value32,
                 [&] { return ForwardingDriver::stream_wait_value32(stream, address, value, flags); });
}
CUresult CountingDriver::stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                              unsigned int flags) noexcept {
    return timed(Call::stream_write_value64,
                 [&] { return ForwardingDriver::stream_write_value64(stream, address, value, flags); });
}
CUresult CountingDriver::stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                             unsigned int flags) noexcept {
    return timed(Call::stream_wait_value64,
                 [&] { return ForwardingDriver::stream_wait_value64(stream, address, value, flags); });
}
CUresult CountingDriver::stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept {
    return timed(Call::stream_begin_capture, [&] { return ForwardingDriver::stream_begin_capture(stream, mode); });
}
CUresult CountingDriver::stream_end_capture(CUstream stream, CUgraph* graph) noexcept {
    return timed(Call::stream_end_capture, [&] { return ForwardingDriver::stream_end_capture(stream, graph); });
}
CUresult CountingDriver::stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept {
    return timed(Call::stream_is_capturing, [&] { return ForwardingDriver::stream_is_capturing(stream, status); });
}
CUresult CountingDriver::thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept {
    return timed(Call::thread_exchange_stream_capture_mode,
                 [&] { return ForwardingDriver::thread_exchange_stream_capture_mode(mode); });
}
CUresult CountingDriver::graph_destroy(CUgraph graph) noexcept {
    return timed(Call::graph_destroy, [&] { return ForwardingDriver::graph_destroy(graph); });
}

}  // namespace fabricmem::detail
