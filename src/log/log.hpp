// SPDX-License-Identifier: Apache-2.0
// The library's own logging: one line of text goes to the replaceable sink. spdlog is behind log.cpp alone.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fabricmem/log.hpp>

#include "text/text.hpp"

namespace fabricmem::detail {

[[nodiscard]] FABRICMEM_API bool log_enabled(LogLevel level) noexcept;
FABRICMEM_API void log_line(LogLevel level, std::string_view text) noexcept;

/// Keeps what its thread logs until it ends. Declared before a lock, it holds the promise that no sink is called under
/// one: a sink may call back. One inside another leaves its lines to the outer one.
class FABRICMEM_API DeferredLog {
public:
    DeferredLog() noexcept;
    DeferredLog(const DeferredLog&) = delete;
    DeferredLog& operator=(const DeferredLog&) = delete;
    ~DeferredLog();

private:
    friend void log_line(LogLevel level, std::string_view text) noexcept;

    std::vector<std::pair<LogLevel, std::string>> lines_;
    bool outermost_;
};

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
