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
/// Null streams mean the legacy default stream, however the program is compiled. Thread-safe.
///
/// Throws Error{unsupported} where there is no libcuda, where it is the toolkit's stub, older than CUDA 12.0 or lacks a
/// function (named), where there is no device, and in a process forked from one that had called cuInit; Error{system}
/// where the machine has to be mended first (CUDA_ERROR_SYSTEM_NOT_READY, SYSTEM_DRIVER_MISMATCH,
/// COMPAT_NOT_SUPPORTED_ON_DEVICE); Error{driver} where cuInit fails otherwise. The text names the likely cause and the
/// cure. It may be called again after a failure; a library that was loaded by then stays. No limit holds for cuInit
/// itself; NVML, which is asked why it failed, has 10 s.
///
/// After fork() the child's calls return CUDA_ERROR_NOT_INITIALIZED, as the driver does not survive a fork
/// (docs/driver-notes.md): exec the child instead.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> make_cuda_driver(const CudaDriverOptions& options = {});

}  // namespace fabricmem
