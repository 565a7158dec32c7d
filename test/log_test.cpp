// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/log.hpp>

#include <string>

#include <spdlog/spdlog.h>

#include "log/log.hpp"
#include "support/buffers.hpp"
#include "support/test.hpp"

using namespace fabricmem;

TEST_CASE("A sink gets what is at or above the level, and only that", "[log]") {
    const test::CapturedLog caught(LogLevel::warning);
    detail::log(LogLevel::info, "not {}", 1);
    detail::log(LogLevel::warning, "yes {}", 2);
    detail::log(LogLevel::error, "yes {}", 3);
    CHECK(caught.text() == "yes 2\nyes 3\n");
    set_log_level(LogLevel::off);
    detail::log(LogLevel::error, "not {}", 4);
    CHECK(caught.text() == "yes 2\nyes 3\n");
}

TEST_CASE("A sink that throws does not harm the caller", "[log]") {
    set_log_sink([](LogLevel, std::string_view) { throw 1; });
    detail::log(LogLevel::error, "thrown away");
    set_log_sink({});
    SUCCEED();
}

TEST_CASE("The library's logger is not in the program's registry", "[log]") {
    set_log_sink({});
    set_log_level(LogLevel::trace);
    detail::log(LogLevel::trace, "to stderr");
    set_log_level(LogLevel::warning);
    CHECK(spdlog::get("fabricmem") == nullptr);
}
