// SPDX-License-Identifier: Apache-2.0
// Every function of the seam, run past the rules.
#include <fabricmem/fault_driver.hpp>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include <fabricmem/error.hpp>

#include "emulated/fault_rules.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

using detail::formatted;
using detail::refuse;

constexpr auto kLongestDelay = std::chrono::hours(24);

// "mem_create", "cuMemCreate" -> "memcreate": the seam's names and CUDA's differ in nothing else.
std::string plain(std::string_view name) {
    if (name.substr(0, 2) == "cu") name.remove_prefix(2);
    std::string letters;
    for (const char letter : name) {
        if (letter != '_') letters += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    }
    return letters;
}

const char* const kNames[] = {
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

// The seam's name for one of either spelling; null where there is none.
const char* find_name(const std::string& call) {
    const std::string wanted = plain(call);
    const auto* const found =
        std::find_if(std::begin(kNames), std::end(kNames), [&](const char* name) { return plain(name) == wanted; });
    return found == std::end(kNames) ? nullptr : *found;
}

}  // namespace

FaultDriver::FaultDriver(std::shared_ptr<Driver> inner, std::uint64_t seed)
    : ForwardingDriver(std::move(inner)), rules_(std::make_unique<Rules>(seed)) {}

FaultDriver::~FaultDriver() {
    if (rules_->forked()) {
        detail::leave_to_parent(rules_.release());
    } else {
        rules_->end();
    }
}

void FaultDriver::add(Fault fault) {
    const char* name = nullptr;
    if (!fault.call.empty()) {
        name = find_name(fault.call);
        if (name == nullptr) refuse(formatted("a fault for {}, which the Driver seam does not have", fault.call));
    }
    if (!(fault.probability >= 0 && fault.probability <= 1))
        refuse(formatted("a fault's probability of {}, not 0 to 1", fault.probability));
    if (fault.delay.count() < 0 || fault.delay > kLongestDelay)
        refuse(formatted("a fault's delay of {} us, not 0 to 24 hours", fault.delay.count()));
    if (fault.effect == Fault::Effect::fail && fault.result == CUDA_SUCCESS)
        refuse("a fault that fails with CUDA_SUCCESS");
    rules_->add(std::move(fault), name);
}

void FaultDriver::clear() { rules_->clear(); }
void FaultDriver::end_hangs() { rules_->end_hangs(); }
std::vector<std::string> FaultDriver::calls() const { return rules_->calls(); }
void FaultDriver::forget() { rules_->forget(); }
std::uint64_t FaultDriver::met() const { return rules_->met(); }
std::size_t FaultDriver::hanging() const { return rules_->hanging(); }
bool FaultDriver::wait_until_hanging(std::size_t count, std::chrono::milliseconds timeout) const {
    return rules_->wait_until_hanging(count, timeout);
}

const std::vector<std::string>& FaultDriver::call_names() {
    static const std::vector<std::string> names(std::begin(kNames), std::end(kNames));
    return names;
}

template <typename Call>
CUresult FaultDriver::ask(const char* name, Call&& call) noexcept {
    const std::optional<CUresult> fault = rules_->enter(name);
    const CUresult result = fault.has_value() ? *fault : call();
    rules_->leave();
    return result;
}

template <typename Call>
CUresult FaultDriver::give_back(const char* name, Call&& call) noexcept {
    const std::optional<CUresult> fault = rules_->enter(name);
    const CUresult done = call();
    rules_->leave();
    return fault.value_or(done);
}

CUresult FaultDriver::init(unsigned int flags) noexcept {
    return ask("init", [&] { return ForwardingDriver::init(flags); });
}
CUresult FaultDriver::driver_get_version(int* version) noexcept {
    return ask("driver_get_version", [&] { return ForwardingDriver::driver_get_version(version); });
}
CUresult FaultDriver::get_error_name(CUresult error, const char** name) noexcept {
    return ask("get_error_name", [&] { return ForwardingDriver::get_error_name(error, name); });
}
CUresult FaultDriver::get_error_string(CUresult error, const char** text) noexcept {
    return ask("get_error_string", [&] { return ForwardingDriver::get_error_string(error, text); });
}
CUresult FaultDriver::device_get_count(int* count) noexcept {
    return ask("device_get_count", [&] { return ForwardingDriver::device_get_count(count); });
}
CUresult FaultDriver::device_get(CUdevice* device, int ordinal) noexcept {
    return ask("device_get", [&] { return ForwardingDriver::device_get(device, ordinal); });
}
CUresult FaultDriver::device_get_name(char* name, int name_bytes, CUdevice device) noexcept {
    return ask("device_get_name", [&] { return ForwardingDriver::device_get_name(name, name_bytes, device); });
}
CUresult FaultDriver::device_get_uuid(CUuuid* uuid, CUdevice device) noexcept {
    return ask("device_get_uuid", [&] { return ForwardingDriver::device_get_uuid(uuid, device); });
}
CUresult FaultDriver::device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept {
    return ask("device_get_pci_bus_id",
               [&] { return ForwardingDriver::device_get_pci_bus_id(pci_bus_id, pci_bus_id_bytes, device); });
}
CUresult FaultDriver::device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept {
    return ask("device_get_attribute",
               [&] { return ForwardingDriver::device_get_attribute(value, attribute, device); });
}
CUresult FaultDriver::device_total_mem(std::size_t* bytes, CUdevice device) noexcept {
    return ask("device_total_mem", [&] { return ForwardingDriver::device_total_mem(bytes, device); });
}
CUresult FaultDriver::device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept {
    return ask("device_can_access_peer",
               [&] { return ForwardingDriver::device_can_access_peer(can_access, device, peer); });
}
CUresult FaultDriver::device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept {
    return ask("device_primary_ctx_retain",
               [&] { return ForwardingDriver::device_primary_ctx_retain(context, device); });
}
CUresult FaultDriver::device_primary_ctx_release(CUdevice device) noexcept {
    return give_back("device_primary_ctx_release",
                     [&] { return ForwardingDriver::device_primary_ctx_release(device); });
}
CUresult FaultDriver::device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept {
    return ask("device_primary_ctx_get_state",
               [&] { return ForwardingDriver::device_primary_ctx_get_state(device, flags, active); });
}
CUresult FaultDriver::ctx_get_current(CUcontext* context) noexcept {
    return ask("ctx_get_current", [&] { return ForwardingDriver::ctx_get_current(context); });
}
CUresult FaultDriver::ctx_set_current(CUcontext context) noexcept {
    return ask("ctx_set_current", [&] { return ForwardingDriver::ctx_set_current(context); });
}
CUresult FaultDriver::ctx_push_current(CUcontext context) noexcept {
    return ask("ctx_push_current", [&] { return ForwardingDriver::ctx_push_current(context); });
}
CUresult FaultDriver::ctx_pop_current(CUcontext* context) noexcept {
    return give_back("ctx_pop_current", [&] { return ForwardingDriver::ctx_pop_current(context); });
}
CUresult FaultDriver::ctx_get_device(CUdevice* device) noexcept {
    return ask("ctx_get_device", [&] { return ForwardingDriver::ctx_get_device(device); });
}
CUresult FaultDriver::ctx_synchronize() noexcept {
    return ask("ctx_synchronize", [&] { return ForwardingDriver::ctx_synchronize(); });
}
CUresult FaultDriver::mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                     CUmemAllocationGranularity_flags option) noexcept {
    return ask("mem_get_allocation_granularity",
               [&] { return ForwardingDriver::mem_get_allocation_granularity(bytes, properties, option); });
}
CUresult FaultDriver::mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                 const CUmemAllocationProp* properties, unsigned long long flags) noexcept {
    return ask("mem_create", [&] { return ForwardingDriver::mem_create(handle, bytes, properties, flags); });
}
CUresult FaultDriver::mem_release(CUmemGenericAllocationHandle handle) noexcept {
    return give_back("mem_release", [&] { return ForwardingDriver::mem_release(handle); });
}
CUresult FaultDriver::mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept {
    return ask("mem_retain_allocation_handle",
               [&] { return ForwardingDriver::mem_retain_allocation_handle(handle, address); });
}
CUresult FaultDriver::mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                                CUmemGenericAllocationHandle handle) noexcept {
    return ask("mem_get_allocation_properties_from_handle",
               [&] { return ForwardingDriver::mem_get_allocation_properties_from_handle(properties, handle); });
}
CUresult FaultDriver::mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                                     CUmemAllocationHandleType type,
                                                     unsigned long long flags) noexcept {
    return ask("mem_export_to_shareable_handle",
               [&] { return ForwardingDriver::mem_export_to_shareable_handle(shareable, handle, type, flags); });
}
CUresult FaultDriver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                       CUmemAllocationHandleType type) noexcept {
    return ask("mem_import_from_shareable_handle",
               [&] { return ForwardingDriver::mem_import_from_shareable_handle(handle, shareable, type); });
}
CUresult FaultDriver::mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                          CUdeviceptr hint, unsigned long long flags) noexcept {
    return ask("mem_address_reserve",
               [&] { return ForwardingDriver::mem_address_reserve(address, bytes, alignment, hint, flags); });
}
CUresult FaultDriver::mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept {
    return give_back("mem_address_free", [&] { return ForwardingDriver::mem_address_free(address, bytes); });
}
CUresult FaultDriver::mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                              CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept {
    return ask("mem_map", [&] { return ForwardingDriver::mem_map(address, bytes, offset, handle, flags); });
}
CUresult FaultDriver::mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept {
    return give_back("mem_unmap", [&] { return ForwardingDriver::mem_unmap(address, bytes); });
}
CUresult FaultDriver::mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                     std::size_t count) noexcept {
    return ask("mem_set_access", [&] { return ForwardingDriver::mem_set_access(address, bytes, access, count); });
}
CUresult FaultDriver::mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                                     CUdeviceptr address) noexcept {
    return ask("mem_get_access", [&] { return ForwardingDriver::mem_get_access(flags, location, address); });
}
CUresult FaultDriver::mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept {
    return ask("mem_get_address_range", [&] { return ForwardingDriver::mem_get_address_range(base, bytes, address); });
}
CUresult FaultDriver::mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                                       CUmemRangeHandleType type, unsigned long long flags) noexcept {
    return ask("mem_get_handle_for_address_range",
               [&] { return ForwardingDriver::mem_get_handle_for_address_range(handle, address, bytes, type, flags); });
}
CUresult FaultDriver::mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept {
    return ask("mem_alloc", [&] { return ForwardingDriver::mem_alloc(address, bytes); });
}
CUresult FaultDriver::mem_free(CUdeviceptr address) noexcept {
    return give_back("mem_free", [&] { return ForwardingDriver::mem_free(address); });
}
CUresult FaultDriver::mem_alloc_host(void** address, std::size_t bytes) noexcept {
    return ask("mem_alloc_host", [&] { return ForwardingDriver::mem_alloc_host(address, bytes); });
}
CUresult FaultDriver::mem_free_host(void* address) noexcept {
    return give_back("mem_free_host", [&] { return ForwardingDriver::mem_free_host(address); });
}
CUresult FaultDriver::ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept {
    return ask("ipc_get_mem_handle", [&] { return ForwardingDriver::ipc_get_mem_handle(handle, address); });
}
CUresult FaultDriver::pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept {
    return ask("pointer_get_attribute",
               [&] { return ForwardingDriver::pointer_get_attribute(value, attribute, address); });
}
CUresult FaultDriver::pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                             CUdeviceptr address) noexcept {
    return ask("pointer_get_attributes",
               [&] { return ForwardingDriver::pointer_get_attributes(count, attributes, values, address); });
}
CUresult FaultDriver::memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return ask("memcpy", [&] { return ForwardingDriver::memcpy(destination, source, bytes); });
}
CUresult FaultDriver::memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept {
    return ask("memcpy_htod", [&] { return ForwardingDriver::memcpy_htod(destination, source, bytes); });
}
CUresult FaultDriver::memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return ask("memcpy_dtoh", [&] { return ForwardingDriver::memcpy_dtoh(destination, source, bytes); });
}
CUresult FaultDriver::memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return ask("memcpy_dtod", [&] { return ForwardingDriver::memcpy_dtod(destination, source, bytes); });
}
CUresult FaultDriver::memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                                   CUstream stream) noexcept {
    return ask("memcpy_async", [&] { return ForwardingDriver::memcpy_async(destination, source, bytes, stream); });
}
CUresult FaultDriver::memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes,
                                         std::size_t count, CUstream stream) noexcept {
    return ask("memcpy_batch_async",
               [&] { return ForwardingDriver::memcpy_batch_async(destinations, sources, bytes, count, stream); });
}
CUresult FaultDriver::memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept {
    return ask("memset_d8", [&] { return ForwardingDriver::memset_d8(destination, value, count); });
}
CUresult FaultDriver::memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                                      CUstream stream) noexcept {
    return ask("memset_d8_async", [&] { return ForwardingDriver::memset_d8_async(destination, value, count, stream); });
}
CUresult FaultDriver::stream_create(CUstream* stream, unsigned int flags) noexcept {
    return ask("stream_create", [&] { return ForwardingDriver::stream_create(stream, flags); });
}
CUresult FaultDriver::stream_destroy(CUstream stream) noexcept {
    return give_back("stream_destroy", [&] { return ForwardingDriver::stream_destroy(stream); });
}
CUresult FaultDriver::stream_query(CUstream stream) noexcept {
    return ask("stream_query", [&] { return ForwardingDriver::stream_query(stream); });
}
CUresult FaultDriver::stream_synchronize(CUstream stream) noexcept {
    return ask("stream_synchronize", [&] { return ForwardingDriver::stream_synchronize(stream); });
}
CUresult FaultDriver::stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                           unsigned int flags) noexcept {
    return ask("stream_write_value32",
               [&] { return ForwardingDriver::stream_write_value32(stream, address, value, flags); });
}
CUresult FaultDriver::stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                          unsigned int flags) noexcept {
    return ask("stream_wait_value32",
               [&] { return ForwardingDriver::stream_wait_value32(stream, address, value, flags); });
}
CUresult FaultDriver::stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                           unsigned int flags) noexcept {
    return ask("stream_write_value64",
               [&] { return ForwardingDriver::stream_write_value64(stream, address, value, flags); });
}
CUresult FaultDriver::stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                          unsigned int flags) noexcept {
    return ask("stream_wait_value64",
               [&] { return ForwardingDriver::stream_wait_value64(stream, address, value, flags); });
}
CUresult FaultDriver::stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept {
    return ask("stream_begin_capture", [&] { return ForwardingDriver::stream_begin_capture(stream, mode); });
}
CUresult FaultDriver::stream_end_capture(CUstream stream, CUgraph* graph) noexcept {
    return ask("stream_end_capture", [&] { return ForwardingDriver::stream_end_capture(stream, graph); });
}
CUresult FaultDriver::stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept {
    return ask("stream_is_capturing", [&] { return ForwardingDriver::stream_is_capturing(stream, status); });
}
CUresult FaultDriver::thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept {
    return ask("thread_exchange_stream_capture_mode",
               [&] { return ForwardingDriver::thread_exchange_stream_capture_mode(mode); });
}
CUresult FaultDriver::graph_destroy(CUgraph graph) noexcept {
    return give_back("graph_destroy", [&] { return ForwardingDriver::graph_destroy(graph); });
}

}  // namespace fabricmem
