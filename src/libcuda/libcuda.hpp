// SPDX-License-Identifier: Apache-2.0
// What the exported functions of the drop-in libcuda.so.1 stand on: the one emulated driver of the process. Functions
// that the seam has go through the seam; the rest is asked of the emulator. Bears libcuda's names, and its types alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <cuda.h>

#include <fabricmem/driver.hpp>

#include "emulated/emulated_driver.hpp"
#include "emulated/numbers.hpp"

#ifndef __CUDA_API_VERSION_INTERNAL
#error "Without it cuda.h hides the names that are defined here behind macros"
#endif

/// Opens the definition of a function that the library exports.
#define FABRICMEM_CUDA extern "C" __attribute__((visibility("default"))) CUresult

namespace fabricmem::detail::libcuda {

using emulated::Context;
using emulated::World;

inline constexpr int kGreatestPriority = -5;  // invented: as an H100 is said to have it

struct Backend {
    std::shared_ptr<Driver> driver;
    emulated::EmulatedDriver* emulator = nullptr;  ///< what `driver` is, or wraps
    std::uint64_t born_in = 0;
};

/// Makes it at the first call. The code of cuInit.
CUresult start() noexcept;
/// Null, with the code that every call answers then: before cuInit, in a child of fork(), and when the process exits.
[[nodiscard]] const Backend* backend(CUresult* why_not) noexcept;

/// Runs function(Driver&).
template <typename Function>
CUresult with_driver(Function&& function) noexcept {
    CUresult why_not = CUDA_SUCCESS;
    const Backend* const found = backend(&why_not);
    return found == nullptr ? why_not : function(*found->driver);
}
/// Runs function(EmulatedDriver&).
template <typename Function>
CUresult with_emulator(Function&& function) noexcept {
    CUresult why_not = CUDA_SUCCESS;
    const Backend* const found = backend(&why_not);
    return found == nullptr ? why_not : function(*found->emulator);
}
/// Runs function(World&), with the standard library's exceptions made into codes.
template <typename Function>
CUresult with_world(Function&& function) noexcept {
    return with_emulator([&](emulated::EmulatedDriver& emulator) { return emulator.call(function); });
}
/// Runs function(World&, Context&) with the calling thread's context; INVALID_CONTEXT without one.
template <typename Function>
CUresult with_context(Function&& function) noexcept {
    return with_emulator([&](emulated::EmulatedDriver& emulator) { return emulator.call_with_context(function); });
}
/// Runs function(World&, shared_ptr<Stream>); INVALID_HANDLE for what is no stream.
template <typename Function>
CUresult with_stream(CUstream stream, Function&& function) noexcept {
    return with_emulator([&](emulated::EmulatedDriver& emulator) { return emulator.with_stream(stream, function); });
}

/// What the null stream is to the functions whose names end in _ptsz and _ptds.
[[nodiscard]] inline CUstream own(CUstream stream) noexcept {
    return stream == nullptr ? emulated::kStreamPerThread : stream;
}

/// NOT_SUPPORTED, after a line in the log at the first time that this name comes.
CUresult not_supported(const char* name) noexcept;

/// The exported function of that name; null where there is none. Made from cuda.h (cmake/FabricmemLibcudaStubs.cmake).
[[nodiscard]] void* find_symbol(std::string_view name) noexcept;

}  // namespace fabricmem::detail::libcuda
