// SPDX-License-Identifier: Apache-2.0
// Makes the Driver that calls libcuda. No CUDA type: other vendors' builds include it.
#pragma once

#include <memory>
#include <string>

#include <fabricmem/export.hpp>

namespace fabricmem {

class Driver;
class Platform;

struct CudaDriverOptions {
    /// What dlopen is given. It is never closed again: the driver keeps threads and exit handlers of its own.
    std::string library = "libcuda.so.1";
    /// The node that this process runs on; null: make_system_platform().
    std::shared_ptr<const Platform> platform{};
};

/// Loads libcuda, resolves every call of the seam by cuGetProcAddress and calls cuInit. Makes no context.
///
/// Throws Error{unsupported} where there is no libcuda, where it lacks a function (named), or where there is no device
/// (the text names the cause and the cure); Error{driver} where cuInit fails otherwise. Call it again after a failure.
/// After fork() the child's calls return CUDA_ERROR_NOT_INITIALIZED, as the driver does not survive a fork
/// (docs/driver-notes.md): exec the child instead.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> make_cuda_driver(const CudaDriverOptions& options = {});

}  // namespace fabricmem
