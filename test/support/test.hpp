// SPDX-License-Identifier: Apache-2.0
// Catch2 2 (Debian 12) or 3 (Ubuntu 24.04), and the one macro for a test that can't run here. ctest shows such a test
// as skipped: it looks for kSkippedMark in the output (test/CMakeLists.txt).
#pragma once

#if defined(FABRICMEM_CATCH2_V3)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

#include <cstdio>

/// Ends the test case as skipped, with the reason. First thing in a test case: what failed before it would be hidden.
#define FABRICMEM_SKIP(reason)                                               \
    do {                                                                     \
        std::printf("FABRICMEM-SKIPPED: %s\n", std::string(reason).c_str()); \
        std::fflush(stdout);                                                 \
        SUCCEED("skipped");                                                  \
        return;                                                              \
    } while (false)
