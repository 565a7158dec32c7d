// SPDX-License-Identifier: Apache-2.0
#include "error/result_name.hpp"

namespace fabricmem::detail {

std::string_view result_name(int code) noexcept {
    switch (code) {
        case 0: return "CUDA_SUCCESS";
        case 1: return "CUDA_ERROR_INVALID_VALUE";
        case 2: return "CUDA_ERROR_OUT_OF_MEMORY";
        case 3: return "CUDA_ERROR_NOT_INITIALIZED";
        case 4: return "CUDA_ERROR_DEINITIALIZED";
        case 34: return "CUDA_ERROR_STUB_LIBRARY";
        case 46: return "CUDA_ERROR_DEVICE_UNAVAILABLE";
        case 100: return "CUDA_ERROR_NO_DEVICE";
        case 101: return "CUDA_ERROR_INVALID_DEVICE";
        case 201: return "CUDA_ERROR_INVALID_CONTEXT";
        case 217: return "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED";
        case 220: return "CUDA_ERROR_NVLINK_UNCORRECTABLE";
        case 226: return "CUDA_ERROR_CONTAINED";
        case 304: return "CUDA_ERROR_OPERATING_SYSTEM";
        case 400: return "CUDA_ERROR_INVALID_HANDLE";
        case 401: return "CUDA_ERROR_ILLEGAL_STATE";
        case 500: return "CUDA_ERROR_NOT_FOUND";
        case 600: return "CUDA_ERROR_NOT_READY";
        case 700: return "CUDA_ERROR_ILLEGAL_ADDRESS";
        case 709: return "CUDA_ERROR_CONTEXT_IS_DESTROYED";
        case 719: return "CUDA_ERROR_LAUNCH_FAILED";
        case 800: return "CUDA_ERROR_NOT_PERMITTED";
        case 801: return "CUDA_ERROR_NOT_SUPPORTED";
        case 802: return "CUDA_ERROR_SYSTEM_NOT_READY";
        case 803: return "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
        case 804: return "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE";
        case 900: return "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
        case 901: return "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED";
        case 999: return "CUDA_ERROR_UNKNOWN";
        default: return "an unlisted CUresult";
    }
}

}  // namespace fabricmem::detail
