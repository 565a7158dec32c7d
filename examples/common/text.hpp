// SPDX-License-Identifier: Apache-2.0
// fmt's formatting, compiled once: instantiated in every file it is most of the time that they take to compile.
#pragma once

#include <cstdio>
#include <string>

#include <fmt/core.h>

namespace examples {

[[nodiscard]] std::string vformatted(fmt::string_view format, fmt::format_args args);
void vprint(std::FILE* file, fmt::string_view format, fmt::format_args args);

template <typename... Args>
[[nodiscard]] std::string formatted(fmt::format_string<Args...> format, Args&&... args) {
    return examples::vformatted(format, fmt::make_format_args(args...));
}

template <typename... Args>
void print(std::FILE* file, fmt::format_string<Args...> format, Args&&... args) {
    examples::vprint(file, format, fmt::make_format_args(args...));
}

}  // namespace examples
