// SPDX-License-Identifier: Apache-2.0
// Memory that the seam has no call for, from the real driver's libcuda itself.
#pragma once

#include <dlfcn.h>

#include <cstddef>

#include <fabricmem/driver.hpp>

namespace fabricmem::test {

template <typename Function>
[[nodiscard]] Function libcuda_function(const char* name) {
    static void* const library = ::dlopen("libcuda.so.1", RTLD_NOW);
    return library == nullptr ? nullptr : reinterpret_cast<Function>(::dlsym(library, name));
}

/// Of the current device's pool, by cuMemAllocAsync on the null stream; 0 where it can't be had. Needs a context.
[[nodiscard]] inline CUdeviceptr allocate_in_pool(std::size_t bytes) {
    CUdeviceptr address = 0;
    const auto call = libcuda_function<CUresult (*)(CUdeviceptr*, std::size_t, CUstream)>("cuMemAllocAsync");
    return call != nullptr && call(&address, bytes, nullptr) == CUDA_SUCCESS ? address : 0;
}
inline CUresult free_in_pool(CUdeviceptr address) {
    const auto call = libcuda_function<CUresult (*)(CUdeviceptr, CUstream)>("cuMemFreeAsync");
    return call != nullptr ? call(address, nullptr) : CUDA_ERROR_NOT_SUPPORTED;
}

/// By cuMemAllocManaged, for all streams; 0 where it can't be had. cuMemFree frees it.
[[nodiscard]] inline CUdeviceptr allocate_managed(std::size_t bytes) {
    CUdeviceptr address = 0;
    const auto call = libcuda_function<CUresult (*)(CUdeviceptr*, std::size_t, unsigned int)>("cuMemAllocManaged");
    return call != nullptr && call(&address, bytes, CU_MEM_ATTACH_GLOBAL) == CUDA_SUCCESS ? address : 0;
}

}  // namespace fabricmem::test
