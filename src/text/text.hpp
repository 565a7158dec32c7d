// SPDX-License-Identifier: Apache-2.0
// fmt's formatting, compiled once: its engine, instantiated in every file that formats, took more than half of the time
// that this library takes to compile.
#pragma once

#include <string>
#include <string_view>

#include <fmt/core.h>

#include <fabricmem/export.hpp>

namespace fabricmem::detail {

[[nodiscard]] FABRICMEM_API std::string vformatted(fmt::string_view format, fmt::format_args args);

/// As fmt::format, for numbers, characters, strings and pointers.
template <typename... Args>
[[nodiscard]] std::string formatted(fmt::format_string<Args...> format, Args&&... args) {
    return detail::vformatted(format, fmt::make_format_args(args...));
}

/// The elements in a row: "0,1,2".
template <typename Range>
[[nodiscard]] std::string joined(const Range& range, std::string_view separator) {
    std::string text;
    std::string_view before;
    for (const auto& element : range) {
        text += before;
        text += formatted("{}", element);
        before = separator;
    }
    return text;
}

}  // namespace fabricmem::detail
