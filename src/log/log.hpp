// SPDX-License-Identifier: Apache-2.0
// The library's own logging: one line of text goes to the replaceable sink. spdlog is behind log.cpp alone.
#pragma once

#include <string_view>

#include <fabricmem/log.hpp>

#include "text/text.hpp"

namespace fabricmem::detail {

[[nodiscard]] FABRICMEM_API bool log_enabled(LogLevel level) noexcept;
FABRICMEM_API void log_line(LogLevel level, std::string_view text) noexcept;

/// Formats only where the level is on. Never throws: what can't be logged is dropped, since it is called from
/// destructors.
template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) noexcept {
    if (!log_enabled(level)) return;
    try {
        log_line(level, formatted(format, std::forward<Args>(args)...));
    } catch (const std::exception& error) {
        log_line(level, error.what());
    }
}

}  // namespace fabricmem::detail
