// SPDX-License-Identifier: Apache-2.0
// Where exceptions of the standard library become the driver's codes.
#pragma once

#include <new>
#include <system_error>

#include <cuda.h>

namespace fabricmem::detail::emulated {

template <typename Function>
CUresult guarded(Function&& function) noexcept {
    try {
        return function();
    } catch (const std::bad_alloc&) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    } catch (const std::system_error&) {  // no thread to be had
        return CUDA_ERROR_OUT_OF_MEMORY;
    } catch (...) {
        return CUDA_ERROR_UNKNOWN;
    }
}

}  // namespace fabricmem::detail::emulated
