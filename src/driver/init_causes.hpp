// SPDX-License-Identifier: Apache-2.0
// What a failed cuInit comes of.
#pragma once

#include <fabricmem/error.hpp>
#include <fabricmem/platform.hpp>

namespace fabricmem::detail {

/// Kind, check, cause and cure. Asks NVML, which is not cuInit, where it tells causes apart.
[[nodiscard]] ErrorDetails explain_init(int code, const Platform& platform);

}  // namespace fabricmem::detail
