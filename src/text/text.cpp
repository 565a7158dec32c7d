// SPDX-License-Identifier: Apache-2.0
#include "text/text.hpp"

#include <fmt/format.h>

namespace fabricmem::detail {

std::string vformatted(fmt::string_view format, fmt::format_args args) { return fmt::vformat(format, args); }

}  // namespace fabricmem::detail
