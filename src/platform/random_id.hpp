// SPDX-License-Identifier: Apache-2.0
// 128 random bits from the kernel, asked for many at a time.
#pragma once

#include <fabricmem/types.hpp>

namespace fabricmem::detail {

/// Never the same twice, in this process and in its children. Any thread. Throws Error{system} where the kernel has no
/// random bytes.
[[nodiscard]] Id128 random_id();

}  // namespace fabricmem::detail
