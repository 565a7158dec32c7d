// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/error.hpp>

#include <type_traits>

#include "support/test.hpp"

using namespace fabricmem;

TEST_CASE("An error's text names call, bytes, subject, code, cause and cure", "[error]") {
    const Error error({.kind = ErrorKind::not_permitted,
                       .code = 800,
                       .call = "cuMemCreate",
                       .bytes = 2097152,
                       .subject = "device 0",
                       .cause = "there is no channel",
                       .cure = "make one",
                       .identity = "Exporter: a"});
    CHECK(error.kind() == ErrorKind::not_permitted);
    CHECK(error.code() == 800);
    CHECK(std::string(error.what()) ==
          "cuMemCreate of 2097152 bytes (device 0) failed: CUDA_ERROR_NOT_PERMITTED (800). Cause: there is no channel. "
          "Cure: make one. Exporter: a");
}

TEST_CASE("An error without a call says its subject alone", "[error]") {
    const Error error({.kind = ErrorKind::closed, .subject = "the buffer is closed"});
    CHECK(error.code() == 0);
    CHECK(std::string(error.what()) == "the buffer is closed");
}

TEST_CASE("Copies of an error do not throw and say the same", "[error]") {
    static_assert(std::is_nothrow_copy_constructible_v<Error> && std::is_nothrow_copy_assignable_v<Error>);
    const Error error({.kind = ErrorKind::system, .subject = "x"});
    const Error copy = error;  // NOLINT(performance-unnecessary-copy-initialization)
    CHECK(copy.kind() == ErrorKind::system);
    CHECK(std::string(copy.what()) == error.what());
}

TEST_CASE("Every error kind has a name of its own", "[error]") {
    CHECK(to_string(ErrorKind::unsupported) == "unsupported");
    CHECK(to_string(ErrorKind::driver) == "driver");
}
