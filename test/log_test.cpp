// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/log.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <iostream>
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

TEST_CASE("By default warnings go to stderr, less goes nowhere, and stdout stays empty", "[log]") {
    std::array<int, 2> out{};
    std::array<int, 2> err{};
    REQUIRE(::pipe(out.data()) == 0);
    REQUIRE(::pipe(err.data()) == 0);
    std::cout.flush();  // else the child has what is buffered, too
    std::fflush(nullptr);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::dup2(out[1], STDOUT_FILENO);
        ::dup2(err[1], STDERR_FILENO);
        detail::log(LogLevel::info, "not told");
        detail::log(LogLevel::warning, "told {}", 7);
        std::fflush(nullptr);
        ::_exit(0);
    }
    ::close(out[1]);
    ::close(err[1]);
    const auto all_of = [](int fd) {
        std::string text;
        std::array<char, 512> part{};
        for (ssize_t got = 0; (got = ::read(fd, part.data(), part.size())) > 0;)
            text.append(part.data(), static_cast<std::size_t>(got));
        ::close(fd);
        return text;
    };
    CHECK(all_of(out[0]).empty());
    const std::string told = all_of(err[0]);
    CAPTURE(told);
    CHECK(told.find("[fabricmem] [warning] told 7") != std::string::npos);
    CHECK(told.find("not told") == std::string::npos);
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

TEST_CASE("The library's logger is not in the program's registry", "[log]") {
    set_log_sink({});
    set_log_level(LogLevel::trace);
    detail::log(LogLevel::trace, "to stderr");
    set_log_level(LogLevel::warning);
    CHECK(spdlog::get("fabricmem") == nullptr);
}
