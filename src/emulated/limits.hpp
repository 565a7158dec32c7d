// SPDX-License-Identifier: Apache-2.0
// Names the limit of the process or the machine behind a failed system call.
#pragma once

#include <cuda.h>

namespace fabricmem::detail::emulated {

/// OUT_OF_MEMORY, after a log line that names the limit behind `error` (an errno) and its value, where it has one.
[[nodiscard]] CUresult out_of_memory(const char* call, int error) noexcept;

}  // namespace fabricmem::detail::emulated
