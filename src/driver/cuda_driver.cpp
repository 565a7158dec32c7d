// SPDX-License-Identifier: Apache-2.0
// The Driver that calls libcuda, and the only file that knows it. libcuda is loaded at run time: no symbol of it may be
// left undefined here, so its functions are named in decltype alone.
#include <fabricmem/cuda_driver.hpp>

#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dlfcn.h>

#include <fabricmem/driver.hpp>
#include <fabricmem/error.hpp>

#include "driver/batch_attributes.hpp"
#include "driver/init_causes.hpp"
#include "error/cures.hpp"
#include "text/text.hpp"

// Every call of the seam: X(its name, libcuda's name without a suffix, the CUDA version in which the entry point that
// cuda.h declares today appeared). cuGetProcAddress answers with the newest entry point up to that version: a lower
// number gets an older signature under the same name (cuMemAlloc of 2.0 has 32-bit addresses), a higher one may get a
// newer one. cudaTypedefs.h of the toolkit has them as PFN_<name>_v<version>.
// clang-format off
#define FABRICMEM_CUDA_CALLS(X) \
    X(init, cuInit, 2000) \
    X(driver_get_version, cuDriverGetVersion, 2020) \
    X(get_error_name, cuGetErrorName, 6000) \
    X(get_error_string, cuGetErrorString, 6000) \
    X(device_get_count, cuDeviceGetCount, 2000) \
    X(device_get, cuDeviceGet, 2000) \
    X(device_get_name, cuDeviceGetName, 2000) \
    X(device_get_uuid, cuDeviceGetUuid, 11040) \
    X(device_get_pci_bus_id, cuDeviceGetPCIBusId, 4010) \
    X(device_get_attribute, cuDeviceGetAttribute, 2000) \
    X(device_total_mem, cuDeviceTotalMem, 3020) \
    X(device_can_access_peer, cuDeviceCanAccessPeer, 4000) \
    X(device_primary_ctx_retain, cuDevicePrimaryCtxRetain, 7000) \
    X(device_primary_ctx_release, cuDevicePrimaryCtxRelease, 11000) \
    X(device_primary_ctx_get_state, cuDevicePrimaryCtxGetState, 7000) \
    X(ctx_get_current, cuCtxGetCurrent, 4000) \
    X(ctx_set_current, cuCtxSetCurrent, 4000) \
    X(ctx_push_current, cuCtxPushCurrent, 4000) \
    X(ctx_pop_current, cuCtxPopCurrent, 4000) \
    X(ctx_get_device, cuCtxGetDevice, 2000) \
    X(ctx_synchronize, cuCtxSynchronize, 2000) \
    X(mem_get_allocation_granularity, cuMemGetAllocationGranularity, 10020) \
    X(mem_create, cuMemCreate, 10020) \
    X(mem_release, cuMemRelease, 10020) \
    X(mem_retain_allocation_handle, cuMemRetainAllocationHandle, 11000) \
    X(mem_get_allocation_properties_from_handle, cuMemGetAllocationPropertiesFromHandle, 10020) \
    X(mem_export_to_shareable_handle, cuMemExportToShareableHandle, 10020) \
    X(mem_import_from_shareable_handle, cuMemImportFromShareableHandle, 10020) \
    X(mem_address_reserve, cuMemAddressReserve, 10020) \
    X(mem_address_free, cuMemAddressFree, 10020) \
    X(mem_map, cuMemMap, 10020) \
    X(mem_unmap, cuMemUnmap, 10020) \
    X(mem_set_access, cuMemSetAccess, 10020) \
    X(mem_get_access, cuMemGetAccess, 10020) \
    X(mem_get_address_range, cuMemGetAddressRange, 3020) \
    X(mem_get_handle_for_address_range, cuMemGetHandleForAddressRange, 11070) \
    X(mem_alloc, cuMemAlloc, 3020) \
    X(mem_free, cuMemFree, 3020) \
    X(mem_alloc_host, cuMemAllocHost, 3020) \
    X(mem_free_host, cuMemFreeHost, 2000) \
    X(ipc_get_mem_handle, cuIpcGetMemHandle, 4010) \
    X(pointer_get_attribute, cuPointerGetAttribute, 4000) \
    X(pointer_get_attributes, cuPointerGetAttributes, 7000) \
    X(memcpy, cuMemcpy, 4000) \
    X(memcpy_htod, cuMemcpyHtoD, 3020) \
    X(memcpy_dtoh, cuMemcpyDtoH, 3020) \
    X(memcpy_dtod, cuMemcpyDtoD, 3020) \
    X(memcpy_async, cuMemcpyAsync, 4000) \
    X(memset_d8, cuMemsetD8, 3020) \
    X(memset_d8_async, cuMemsetD8Async, 3020) \
    X(stream_create, cuStreamCreate, 2000) \
    X(stream_destroy, cuStreamDestroy, 4000) \
    X(stream_query, cuStreamQuery, 2000) \
    X(stream_synchronize, cuStreamSynchronize, 2000) \
    X(stream_write_value32, cuStreamWriteValue32, 11070) \
    X(stream_wait_value32, cuStreamWaitValue32, 11070) \
    X(stream_write_value64, cuStreamWriteValue64, 11070) \
    X(stream_wait_value64, cuStreamWaitValue64, 11070) \
    X(stream_begin_capture, cuStreamBeginCapture, 10010) \
    X(stream_end_capture, cuStreamEndCapture, 10000) \
    X(stream_is_capturing, cuStreamIsCapturing, 10000) \
    X(thread_exchange_stream_capture_mode, cuThreadExchangeStreamCaptureMode, 10010) \
    X(graph_destroy, cuGraphDestroy, 10000)
// clang-format on

namespace fabricmem {
namespace {

// cuMemcpyBatchAsync, which cuda.h has from 12.8 on: the entry points of 12.8 and of 13.0.
using detail::BatchAttributes;
using BatchOf12 = CUresult (*)(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes, std::size_t count,
                               BatchAttributes* attributes, std::size_t* first_copies, std::size_t attribute_count,
                               std::size_t* failed_copy, CUstream stream);
using BatchOf13 = CUresult (*)(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes, std::size_t count,
                               BatchAttributes* attributes, std::size_t* first_copies, std::size_t attribute_count,
                               CUstream stream);

struct Calls {
// NOLINTNEXTLINE(bugprone-macro-parentheses): a member's name
#define FABRICMEM_MEMBER(seam, entry, version) decltype(&::entry) seam = nullptr;
    FABRICMEM_CUDA_CALLS(FABRICMEM_MEMBER)
#undef FABRICMEM_MEMBER
    BatchOf12 batch_of_12 = nullptr;  // one of the two, or neither: the library does without
    BatchOf13 batch_of_13 = nullptr;
};

/// libcuda, loaded and not yet initialized.
class Library {
public:
    /// Throws Error{unsupported} where it can't be loaded or is not a libcuda of CUDA 12.0 or later.
    explicit Library(const std::string& name);

    /// Throws Error{unsupported} naming all that it lacks.
    [[nodiscard]] Calls resolve() const;
    [[nodiscard]] Error error_of_init(CUresult code, const std::shared_ptr<const Platform>& platform) const;

private:
    using GetProcAddress = CUresult (*)(const char* symbol, void** function, int version, cuuint64_t flags,
                                        CUdriverProcAddressQueryResult* status);

    template <typename Function>
    [[nodiscard]] Function symbol(const char* name) const noexcept {
        return reinterpret_cast<Function>(::dlsym(handle_, name));
    }
    template <typename Function>
    void resolve_one(Function& function, const char* name, int version, std::vector<std::string_view>& missing) const;
    void resolve_batch(Calls& calls) const;
    [[nodiscard]] int version() const;  // as cuDriverGetVersion has it; 0 where it does not say
    [[nodiscard]] std::string version_text() const;
    [[nodiscard]] Error stub_error() const;

    std::string name_;  // as asked for and, where the loader tells, as found
    void* handle_ = nullptr;
    GetProcAddress get_proc_address_ = nullptr;
};

// dlopen takes an empty name for the program itself.
Library::Library(const std::string& name)
    : name_(name.empty() ? "the program itself" : name), handle_(::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
        const char* const reason = ::dlerror();
        throw Error({.kind = ErrorKind::unsupported,
                     .call = "dlopen",
                     .subject = name,
                     .cause = reason == nullptr ? "the loader does not say" : reason,
                     .cure = detail::cure_of("FM-DRIVER-001"),
                     .check = "FM-DRIVER-001"});
    }
    get_proc_address_ = symbol<GetProcAddress>("cuGetProcAddress_v2");
    void* const known = ::dlsym(handle_, "cuInit");
    Dl_info info{};
    if (known != nullptr && ::dladdr(known, &info) != 0 && info.dli_fname != nullptr && name != info.dli_fname)
        name_ += detail::formatted(" at {}", info.dli_fname);
    if (get_proc_address_ != nullptr) return;
    if (known == nullptr)
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = detail::formatted("{} is not the CUDA driver: it lacks cuInit", name_),
                     .cure = "name the NVIDIA driver's libcuda.so.1",
                     .check = "FM-DRIVER-001"});
    throw Error({.kind = ErrorKind::unsupported,
                 .subject = detail::formatted("the CUDA driver is too old: {} ({}) lacks cuGetProcAddress_v2", name_,
                                              version_text()),
                 .cure = detail::cure_of("FM-DRIVER-002"),
                 .check = "FM-DRIVER-002"});
}

Calls Library::resolve() const {
    Calls calls;
    std::vector<std::string_view> missing;
#define FABRICMEM_RESOLVE(seam, entry, version) resolve_one(calls.seam, #entry, version, missing);
    FABRICMEM_CUDA_CALLS(FABRICMEM_RESOLVE)
#undef FABRICMEM_RESOLVE
    if (!missing.empty())
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = detail::formatted("the CUDA driver {} ({}) lacks {}", name_, version_text(),
                                                  detail::joined(missing, ", ")),
                     .cure = detail::cure_of("FM-DRIVER-002"),
                     .check = "FM-DRIVER-002"});
    resolve_batch(calls);
    return calls;
}

// By the driver's version: it answers no look-up of a version above its own (cuda.h, cuGetProcAddress).
void Library::resolve_batch(Calls& calls) const {
    constexpr const char* kName = "cuMemcpyBatchAsync";
    std::vector<std::string_view> missing;
    if (const int has = version(); has >= 13000)
        resolve_one(calls.batch_of_13, kName, 13000, missing);
    else if (has >= 12080)
        resolve_one(calls.batch_of_12, kName, 12080, missing);
}

template <typename Function>
void Library::resolve_one(Function& function, const char* name, int version,
                          std::vector<std::string_view>& missing) const {
    void* found = nullptr;
    auto status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    // The null stream means the legacy one, whatever the program around is compiled for: the seam has one meaning.
    const CUresult result = get_proc_address_(name, &found, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &status);
    if (result == CUDA_ERROR_STUB_LIBRARY) throw stub_error();
    if (result != CUDA_SUCCESS || status != CU_GET_PROC_ADDRESS_SUCCESS || found == nullptr)
        missing.emplace_back(name);
    else
        function = reinterpret_cast<Function>(found);
}

int Library::version() const {
    const auto get_version = symbol<decltype(&::cuDriverGetVersion)>("cuDriverGetVersion");
    int version = 0;
    return get_version != nullptr && get_version(&version) == CUDA_SUCCESS ? version : 0;
}

std::string Library::version_text() const {
    const int has = version();
    return has == 0 ? "of an unknown version" : detail::formatted("CUDA {}.{}", has / 1000, has % 1000 / 10);
}

Error Library::stub_error() const {
    return Error({.kind = ErrorKind::unsupported,
                  .code = CUDA_ERROR_STUB_LIBRARY,
                  .call = "cuGetProcAddress",
                  .subject = name_,
                  .cause =
                      "this libcuda is the CUDA Toolkit's stub, which is for linking alone: LD_LIBRARY_PATH, or the "
                      "program's run path, names the toolkit's folder lib64/stubs",
                  .cure = "take that folder out of LD_LIBRARY_PATH (LIBRARY_PATH is the place for it) and install the "
                          "NVIDIA driver",
                  .check = "FM-DRIVER-001"});
}

Error Library::error_of_init(CUresult code, const std::shared_ptr<const Platform>& platform) const {
    if (code == CUDA_ERROR_STUB_LIBRARY) return stub_error();
    ErrorDetails details = detail::explain_init(code, platform);
    details.code = code;
    details.call = "cuInit";
    details.subject = name_;
    return Error(std::move(details));
}

class CudaDriver final : public Driver {
public:
    CudaDriver(const Calls& calls, std::shared_ptr<const Platform> platform)
        : calls_(calls), platform_(std::move(platform)) {}

    [[nodiscard]] std::string_view name() const noexcept override { return "cuda"; }
    [[nodiscard]] const Platform& platform() const noexcept override { return *platform_; }

    CUresult init(unsigned int flags) noexcept override { return calls_.init(flags); }
    CUresult driver_get_version(int* version) noexcept override { return calls_.driver_get_version(version); }
    CUresult get_error_name(CUresult error, const char** name) noexcept override {
        return calls_.get_error_name(error, name);
    }
    CUresult get_error_string(CUresult error, const char** text) noexcept override {
        return calls_.get_error_string(error, text);
    }
    CUresult device_get_count(int* count) noexcept override { return calls_.device_get_count(count); }
    CUresult device_get(CUdevice* device, int ordinal) noexcept override { return calls_.device_get(device, ordinal); }
    CUresult device_get_name(char* name, int name_bytes, CUdevice device) noexcept override {
        return calls_.device_get_name(name, name_bytes, device);
    }
    CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept override {
        return calls_.device_get_uuid(uuid, device);
    }
    CUresult device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept override {
        return calls_.device_get_pci_bus_id(pci_bus_id, pci_bus_id_bytes, device);
    }
    CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override {
        return calls_.device_get_attribute(value, attribute, device);
    }
    CUresult device_total_mem(std::size_t* bytes, CUdevice device) noexcept override {
        return calls_.device_total_mem(bytes, device);
    }
    CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept override {
        return calls_.device_can_access_peer(can_access, device, peer);
    }
    CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override {
        return calls_.device_primary_ctx_retain(context, device);
    }
    CUresult device_primary_ctx_release(CUdevice device) noexcept override {
        return calls_.device_primary_ctx_release(device);
    }
    CUresult device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept override {
        return calls_.device_primary_ctx_get_state(device, flags, active);
    }
    CUresult ctx_get_current(CUcontext* context) noexcept override { return calls_.ctx_get_current(context); }
    CUresult ctx_set_current(CUcontext context) noexcept override { return calls_.ctx_set_current(context); }
    CUresult ctx_push_current(CUcontext context) noexcept override { return calls_.ctx_push_current(context); }
    CUresult ctx_pop_current(CUcontext* context) noexcept override { return calls_.ctx_pop_current(context); }
    CUresult ctx_get_device(CUdevice* device) noexcept override { return calls_.ctx_get_device(device); }
    CUresult ctx_synchronize() noexcept override { return calls_.ctx_synchronize(); }
    CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                            CUmemAllocationGranularity_flags option) noexcept override {
        return calls_.mem_get_allocation_granularity(bytes, properties, option);
    }
    CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) noexcept override {
        return calls_.mem_create(handle, bytes, properties, flags);
    }
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override { return calls_.mem_release(handle); }
    CUresult mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept override {
        return calls_.mem_retain_allocation_handle(handle, address);
    }
    CUresult mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                       CUmemGenericAllocationHandle handle) noexcept override {
        return calls_.mem_get_allocation_properties_from_handle(properties, handle);
    }
    CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                            CUmemAllocationHandleType type,
                                            unsigned long long flags) noexcept override {
        return calls_.mem_export_to_shareable_handle(shareable, handle, type, flags);
    }
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override {
        return calls_.mem_import_from_shareable_handle(handle, shareable, type);
    }
    CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                 unsigned long long flags) noexcept override {
        return calls_.mem_address_reserve(address, bytes, alignment, hint, flags);
    }
    CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept override {
        return calls_.mem_address_free(address, bytes);
    }
    CUresult mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                     unsigned long long flags) noexcept override {
        return calls_.mem_map(address, bytes, offset, handle, flags);
    }
    CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override {
        return calls_.mem_unmap(address, bytes);
    }
    CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                            std::size_t count) noexcept override {
        return calls_.mem_set_access(address, bytes, access, count);
    }
    CUresult mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                            CUdeviceptr address) noexcept override {
        return calls_.mem_get_access(flags, location, address);
    }
    CUresult mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept override {
        return calls_.mem_get_address_range(base, bytes, address);
    }
    CUresult mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                              CUmemRangeHandleType type, unsigned long long flags) noexcept override {
        return calls_.mem_get_handle_for_address_range(handle, address, bytes, type, flags);
    }
    CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept override {
        return calls_.mem_alloc(address, bytes);
    }
    CUresult mem_free(CUdeviceptr address) noexcept override { return calls_.mem_free(address); }
    CUresult mem_alloc_host(void** address, std::size_t bytes) noexcept override {
        return calls_.mem_alloc_host(address, bytes);
    }
    CUresult mem_free_host(void* address) noexcept override { return calls_.mem_free_host(address); }
    CUresult ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept override {
        return calls_.ipc_get_mem_handle(handle, address);
    }
    CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept override {
        return calls_.pointer_get_attribute(value, attribute, address);
    }
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override {
        return calls_.pointer_get_attributes(count, attributes, values, address);
    }
    CUresult memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override {
        return calls_.memcpy(destination, source, bytes);
    }
    CUresult memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept override {
        return calls_.memcpy_htod(destination, source, bytes);
    }
    CUresult memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept override {
        return calls_.memcpy_dtoh(destination, source, bytes);
    }
    CUresult memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override {
        return calls_.memcpy_dtod(destination, source, bytes);
    }
    CUresult memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                          CUstream stream) noexcept override {
        return calls_.memcpy_async(destination, source, bytes, stream);
    }
    CUresult memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes, std::size_t count,
                                CUstream stream) noexcept override {
        BatchAttributes attributes;
        std::size_t first_copy = 0;
        std::size_t failed_copy = 0;
        if (calls_.batch_of_13 != nullptr)
            return calls_.batch_of_13(destinations, sources, bytes, count, &attributes, &first_copy, 1, stream);
        if (calls_.batch_of_12 == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
        return calls_.batch_of_12(destinations, sources, bytes, count, &attributes, &first_copy, 1, &failed_copy,
                                  stream);
    }
    CUresult memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept override {
        return calls_.memset_d8(destination, value, count);
    }
    CUresult memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                             CUstream stream) noexcept override {
        return calls_.memset_d8_async(destination, value, count, stream);
    }
    CUresult stream_create(CUstream* stream, unsigned int flags) noexcept override {
        return calls_.stream_create(stream, flags);
    }
    CUresult stream_destroy(CUstream stream) noexcept override { return calls_.stream_destroy(stream); }
    CUresult stream_query(CUstream stream) noexcept override { return calls_.stream_query(stream); }
    CUresult stream_synchronize(CUstream stream) noexcept override { return calls_.stream_synchronize(stream); }
    CUresult stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                  unsigned int flags) noexcept override {
        return calls_.stream_write_value32(stream, address, value, flags);
    }
    CUresult stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                 unsigned int flags) noexcept override {
        return calls_.stream_wait_value32(stream, address, value, flags);
    }
    CUresult stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                  unsigned int flags) noexcept override {
        return calls_.stream_write_value64(stream, address, value, flags);
    }
    CUresult stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                 unsigned int flags) noexcept override {
        return calls_.stream_wait_value64(stream, address, value, flags);
    }
    CUresult stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept override {
        return calls_.stream_begin_capture(stream, mode);
    }
    CUresult stream_end_capture(CUstream stream, CUgraph* graph) noexcept override {
        return calls_.stream_end_capture(stream, graph);
    }
    CUresult stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept override {
        return calls_.stream_is_capturing(stream, status);
    }
    CUresult thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept override {
        return calls_.thread_exchange_stream_capture_mode(mode);
    }
    CUresult graph_destroy(CUgraph graph) noexcept override { return calls_.graph_destroy(graph); }

private:
    const Calls calls_;
    const std::shared_ptr<const Platform> platform_;
};

}  // namespace

std::shared_ptr<Driver> make_cuda_driver(const CudaDriverOptions& options) {
    const Library library(options.library);
    const std::shared_ptr<const Platform> platform =
        options.platform == nullptr ? make_system_platform() : options.platform;
    auto driver = std::make_shared<CudaDriver>(library.resolve(), platform);
    if (const CUresult result = driver->init(0); result != CUDA_SUCCESS) throw library.error_of_init(result, platform);
    return driver;
}

}  // namespace fabricmem

#undef FABRICMEM_CUDA_CALLS
