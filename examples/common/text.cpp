// SPDX-License-Identifier: Apache-2.0
#include "common/text.hpp"

#include <fmt/format.h>

namespace examples {

std::string vformatted(fmt::string_view format, fmt::format_args args) { return fmt::vformat(format, args); }

void vprint(std::FILE* file, fmt::string_view format, fmt::format_args args) { fmt::vprint(file, format, args); }

}  // namespace examples
