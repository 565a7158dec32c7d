// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fabricmem/error.hpp>

namespace fabricmem::detail {

[[noreturn]] inline void refuse_forked_cache() {
    throw Error({.kind = ErrorKind::unsupported,
                 .subject = "the import cache was made before this process was forked",
                 .cause = "CUDA does not survive fork()",
                 .cure = "start the child with exec, and make its cache there",
                 .check = "FM-DRIVER-007"});
}

}  // namespace fabricmem::detail
