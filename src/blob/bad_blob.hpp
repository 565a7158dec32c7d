// SPDX-License-Identifier: Apache-2.0
// How all of the blob's readers refuse. Knows no format.
#pragma once

#include <string>

#include <fabricmem/error.hpp>

namespace fabricmem::detail {

[[noreturn, gnu::cold]] inline void refuse_blob(const std::string& why) {
    throw Error({.kind = ErrorKind::bad_blob, .subject = "bad handle blob: " + why, .check = "FM-PEER-005"});
}

}  // namespace fabricmem::detail
