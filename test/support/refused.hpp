// SPDX-License-Identifier: Apache-2.0
// Checks that something is refused with an Error of one kind whose text says a certain thing.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <string_view>

#include <fabricmem/error.hpp>

#include "support/test.hpp"

namespace fabricmem::test {

/// The text of the Error of that kind that `work` throws; any other exception, or none, fails the test.
inline std::string error_text(ErrorKind kind, const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& error) {
        CHECK(to_string(error.kind()) == to_string(kind));
        return error.what();
    } catch (const std::exception& error) {
        FAIL_CHECK("another exception: " << error.what());
        return {};
    }
    FAIL_CHECK("no exception");
    return {};
}

inline void check_refused(std::string_view part_of_text, const std::function<void()>& work,
                          ErrorKind kind = ErrorKind::bad_blob) {
    const std::string text = error_text(kind, work);
    CAPTURE(text, part_of_text);
    CHECK(text.find(part_of_text) != std::string::npos);
}

}  // namespace fabricmem::test
