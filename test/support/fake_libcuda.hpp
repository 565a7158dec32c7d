// SPDX-License-Identifier: Apache-2.0
// What a test and the fake libcuda (fake_libcuda.cpp, a module that is loaded at run time) say to each other.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

// X(the seam's function, libcuda's name, the CUDA version of the entry point that cuda.h declares today). Written down
// a second time, apart from the library's own table: cuda_driver_test.cpp holds it against the toolkit's
// cudaTypedefs.h.
// clang-format off
#define FABRICMEM_TEST_CUDA_CALLS(X) \
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

struct FakeLibcuda {
    struct Control {
        int init_result = 0;              ///< what cuInit returns
        int lookup_result = 0;            ///< what cuGetProcAddress_v2 returns; when not 0, it finds nothing
        std::string_view lacks{};         ///< one name that is not found
        std::string_view too_new{};       ///< one name that only a newer version of the ABI has
        int version = 12050;              ///< what cuDriverGetVersion says; from 12080 on there is cuMemcpyBatchAsync
        std::string_view null_success{};  ///< one name for which success and a null pointer are answered
    };
    /// The last call of any entry point; entry points return 600 + their place in the table above (cuInit: see above).
    struct Call {
        std::string_view name{};
        int count = 0;
        std::uint64_t arguments[8] = {};
    };
    static constexpr int kFirstResult = 600;

    Control control{};
    Call last{};
    int calls = 0;
    std::uint64_t lookup_flags = 0;
    bool batch_is_in_stream_order = false;  ///< what the attributes of the last cuMemcpyBatchAsync said
};

/// The symbol of the module by which a test gets at it: `FakeLibcuda* fake_libcuda()`.
inline constexpr const char* kFakeLibcuda = "fake_libcuda";

/// An argument of a driver call as a number.
template <typename Value>
std::uint64_t as_number(Value value) {
    if constexpr (std::is_pointer_v<Value>)
        return reinterpret_cast<std::uint64_t>(value);
    else
        return static_cast<std::uint64_t>(value);
}
