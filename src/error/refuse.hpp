// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include <fabricmem/error.hpp>

namespace fabricmem::detail {

// Inline, since the emulated library does not see the other's hidden symbols.
[[noreturn]] inline void refuse(std::string subject) {
    throw Error({.kind = ErrorKind::bad_argument, .subject = std::move(subject)});
}

}  // namespace fabricmem::detail
