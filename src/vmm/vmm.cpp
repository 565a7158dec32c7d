// SPDX-License-Identifier: Apache-2.0
#include "vmm/vmm.hpp"

#include <array>
#include <span>
#include <utility>
#include <vector>

#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

CallContext with_call(CallContext about, std::string_view call, std::uint64_t bytes) {
    about.call = call;
    about.bytes = bytes;
    return about;
}

CUmemAccessDesc descriptor(CUmemLocationType type, int id, Permission permission) {
    CUmemAccessDesc desc{};
    desc.location.type = type;
    desc.location.id = id;
    desc.flags =
        permission == Permission::read_only ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return desc;
}

// The driver says no to this location, as against being unable to do it now.
bool is_refusal(CUresult result) noexcept {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_INVALID_VALUE:
        case CUDA_ERROR_INVALID_DEVICE:
        case CUDA_ERROR_PEER_ACCESS_UNSUPPORTED:
        case CUDA_ERROR_NOT_PERMITTED:
        case CUDA_ERROR_NOT_SUPPORTED: return true;
        default: return false;
    }
}

struct OneByOne {
    Access granted;
    std::vector<int> refused;
    CUresult first_refusal = CUDA_SUCCESS;
    CUresult last_refusal = CUDA_SUCCESS;  // the host's, which is asked last
};

// True where it was granted, false where the driver refuses; throws for any other failure.
bool grant_one(Driver& driver, const Range& range, const CUmemAccessDesc& desc, OneByOne& so_far,
               const CallContext& about) {
    const CUresult result = driver.mem_set_access(range.address, range.bytes, &desc, 1);
    if (result == CUDA_SUCCESS) return true;
    if (!is_refusal(result)) raise(result, driver, about);
    if (so_far.first_refusal == CUDA_SUCCESS) so_far.first_refusal = result;
    so_far.last_refusal = result;
    return false;
}

// "devices 1,3 and the host"
std::string refused_to(const std::vector<int>& devices, bool host) {
    std::string text;
    if (!devices.empty()) text = formatted("device{} {}", devices.size() == 1 ? "" : "s", joined(devices, ","));
    if (host) text += text.empty() ? "the host" : " and the host";
    return text;
}

// `joint` is the answer to the call for all at once.
Access grant_one_by_one(Driver& driver, const Range& range, const Access& asked, HostAccess host, CUresult joint,
                        const CallContext& about) {
    OneByOne so_far;
    so_far.granted.permission = asked.permission;
    for (const int device : asked.devices) {
        const CUmemAccessDesc desc = descriptor(CU_MEM_LOCATION_TYPE_DEVICE, device, asked.permission);
        (grant_one(driver, range, desc, so_far, about) ? so_far.granted.devices : so_far.refused).push_back(device);
    }
    if (asked.host) {
        so_far.granted.host =
            grant_one(driver, range, descriptor(CU_MEM_LOCATION_TYPE_HOST, 0, asked.permission), so_far, about);
    }
    if (so_far.granted.empty()) raise(so_far.first_refusal, driver, about);
    if (host == HostAccess::required && !so_far.granted.host) raise(so_far.last_refusal, driver, about);
    Tally& tally = DriverState::of(driver).tally;
    if (so_far.first_refusal == CUDA_SUCCESS) {
        Tally::count(tally.access_one_by_one);
        log(LogLevel::warning, "cuMemSetAccess of {} bytes was refused ({}) for all at once and granted one by one: {}",
            range.bytes, static_cast<int>(joint), to_string(so_far.granted));
    } else {
        if (!so_far.refused.empty()) Tally::count(tally.access_refused);
        if (asked.host && !so_far.granted.host) Tally::count(tally.host_access_refused);
        log(LogLevel::warning, "cuMemSetAccess of {} bytes was refused ({}) to {}; granted: {}", range.bytes,
            static_cast<int>(so_far.first_refusal), refused_to(so_far.refused, asked.host && !so_far.granted.host),
            to_string(so_far.granted));
    }
    return so_far.granted;
}

}  // namespace

AddressRange reserve(Driver& driver, std::uint64_t bytes, std::uint64_t alignment, const CallContext& about) {
    CUdeviceptr address = 0;
    check(driver.mem_address_reserve(&address, bytes, alignment, 0, 0), driver,
          [&] { return with_call(about, "cuMemAddressReserve", bytes); });
    return {driver, Range{address, bytes}};
}

Allocation create(Driver& driver, std::uint64_t bytes, const CUmemAllocationProp& properties) {
    CUmemGenericAllocationHandle handle = 0;
    check(driver.mem_create(&handle, bytes, &properties, 0), driver,
          [&] { return CallContext{.call = "cuMemCreate", .bytes = bytes, .location = location_of(properties)}; });
    return {driver, handle};
}

Allocation import_fabric(Driver& driver, const HandleBlob& blob, const CallContext& about) {
    CUmemGenericAllocationHandle handle = 0;
    auto bytes = blob.handle;  // the call takes a pointer to non-const
    check(driver.mem_import_from_shareable_handle(&handle, bytes.data(), CU_MEM_HANDLE_TYPE_FABRIC), driver,
          [&] { return with_call(about, "cuMemImportFromShareableHandle", blob.mapped_bytes); });
    return {driver, handle};
}

Mapping map(Driver& driver, const Range& range, CUmemGenericAllocationHandle handle, const CallContext& about) {
    check(driver.mem_map(range.address, range.bytes, 0, handle, 0), driver,
          [&] { return with_call(about, "cuMemMap", range.bytes); });
    return {driver, range};
}

void grant_access(Driver& driver, const Range& range, Access& access, HostAccess host, const CallContext& about) {
    std::array<CUmemAccessDesc, 17> few;  // no allocation for a node of 16 devices
    std::vector<CUmemAccessDesc> many;
    const std::size_t count = access.devices.size() + (access.host ? 1 : 0);
    if (count > few.size()) many.resize(count);
    const std::span<CUmemAccessDesc> descs(count > few.size() ? many.data() : few.data(), count);
    for (std::size_t i = 0; i < access.devices.size(); ++i)
        descs[i] = descriptor(CU_MEM_LOCATION_TYPE_DEVICE, access.devices[i], access.permission);
    if (access.host) descs.back() = descriptor(CU_MEM_LOCATION_TYPE_HOST, 0, access.permission);

    const CUresult result = driver.mem_set_access(range.address, range.bytes, descs.data(), descs.size());
    if (result == CUDA_SUCCESS) return;
    const CallContext call = with_call(about, "cuMemSetAccess", range.bytes);
    if (!is_refusal(result) || descs.size() < 2) raise(result, driver, call);
    access = grant_one_by_one(driver, range, access, host, result, call);
}

}  // namespace fabricmem::detail
