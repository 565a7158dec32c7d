// SPDX-License-Identifier: Apache-2.0
// What the drop-in libcuda's test programs check with. Knows cuda.h alone.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <cuda.h>

/// The case fails here, and the process ends.
#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            std::_Exit(1);                                                               \
        }                                                                                \
    } while (false)
/// `call` answers `code`.
#define REQUIRE_CODE(code, call)                                                                         \
    do {                                                                                                 \
        const int answer = static_cast<int>(call);                                                       \
        if (answer != static_cast<int>(code)) {                                                          \
            std::fprintf(stderr, "%s:%d: %s is %d, not %s\n", __FILE__, __LINE__, #call, answer, #code); \
            std::_Exit(1);                                                                               \
        }                                                                                                \
    } while (false)
#define REQUIRE_OK(call) REQUIRE_CODE(CUDA_SUCCESS, call)

struct Case {
    const char* name;
    void (*run)();
};

/// Runs the case that the first argument names; an orphan, or what hangs, ends by SIGALRM.
template <std::size_t Count>
int run_case(const Case (&cases)[Count], int argc, char** argv) {
    ::alarm(120);
    for (const Case& one : cases) {
        if (argc < 2 || std::string_view(one.name) != argv[1]) continue;
        one.run();
        return 0;
    }
    std::fprintf(stderr, "usage: %s CASE\n", argv[0]);
    return 2;
}
