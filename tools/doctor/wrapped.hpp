// SPDX-License-Identifier: Apache-2.0
// Text for a terminal: lines of a width, words whole, commands whole where they can be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace doctor {

enum class Paint : std::uint8_t { plain, coloured };

enum class Style : std::uint8_t { none, good, bad, doubtful, dim, strong };

[[nodiscard]] std::string painted(std::string_view text, Style style, Paint paint);

/// `text` in lines of at most `width` columns: the first begins with `head`, the others are indented by `indent`
/// columns. Broken at spaces; what stands between backticks only where it is longer than a line, and then outside of
/// single quotes and with a backslash, so that it can still be copied into a shell. Each line ends with a line end.
[[nodiscard]] std::string wrapped(std::string_view head, std::string_view text, std::size_t indent, std::size_t width);

}  // namespace doctor
