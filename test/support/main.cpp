// SPDX-License-Identifier: Apache-2.0
// Catch2 2 wants its runner compiled in one file; Catch2 3 wants the same of us when its own main is not linked.
#if defined(FABRICMEM_CATCH2_V3)
#include <catch2/catch_session.hpp>
int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif
