// SPDX-License-Identifier: Apache-2.0
// Runs something that has to throw an Error and hands that back, so that a test can look at its kind and text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <fabricmem/error.hpp>

#include "support/test.hpp"

namespace fabricmem::test {

template <typename Action>
std::optional<Error> error_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error;
    }
    return std::nullopt;
}

/// The Error's kind; fails the test where nothing is thrown.
template <typename Action>
ErrorKind kind_of(Action&& action) {
    const std::optional<Error> error = error_of(action);
    REQUIRE(error.has_value());
    INFO(error->what());
    return error->kind();
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace fabricmem::test

/// The expression has to throw an Error of that kind, with `part` in its text.
#define FABRICMEM_CHECK_ERROR(expression, expected, part)                              \
    do {                                                                               \
        const auto thrown = fabricmem::test::error_of([&] { (void)(expression); });    \
        REQUIRE(thrown.has_value());                                                   \
        CHECK(to_string(thrown->kind()) == to_string(fabricmem::ErrorKind::expected)); \
        INFO(thrown->what());                                                          \
        CHECK(fabricmem::test::contains(thrown->what(), part));                        \
    } while (false)
