// SPDX-License-Identifier: Apache-2.0
// Sets all of a buffer's memory to zero before anybody sees it.
#pragma once

#include "buffer/buffer_parts.hpp"

namespace fabricmem::detail {

/// By the CPU where it has access, else by a memset on a stream of our own: on `ordinal` (-1: the first device with
/// access). Throws Error; timed_out after 60 s, and then the memory is kept for ever, since unmapping it under the
/// queued memset would lose the context.
void zero(BufferParts& parts, int ordinal);

}  // namespace fabricmem::detail
