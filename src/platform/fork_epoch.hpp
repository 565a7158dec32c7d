// SPDX-License-Identifier: Apache-2.0
// Tells a forked child from its parent without a system call, and whichever way it was forked.
#pragma once

#include <cstdint>

#include <fabricmem/export.hpp>

namespace fabricmem::detail {

/// A number that is the same in a process for as long as it lives, and another one in each child that is forked (or
/// cloned without its memory) from it. Says nothing of unrelated processes. Any thread; takes no lock.
[[nodiscard]] FABRICMEM_API std::uint64_t fork_epoch() noexcept;

/// For a forked child: what can't be ended there (a condition variable that threads of the parent wait for) is left
/// alone, and kept reachable, since a leak checker can't know that this is meant.
FABRICMEM_API void leave_to_parent(const void* object) noexcept;

}  // namespace fabricmem::detail
