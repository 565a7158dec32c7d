// SPDX-License-Identifier: Apache-2.0
#include "pingpong_text.hpp"

#include <fmt/format.h>

namespace pingpong {

std::string vformatted(fmt::string_view format, fmt::format_args args) { return fmt::vformat(format, args); }

void vprint(std::FILE* file, fmt::string_view format, fmt::format_args args) { fmt::vprint(file, format, args); }

}  // namespace pingpong
