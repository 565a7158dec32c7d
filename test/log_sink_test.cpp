// SPDX-License-Identifier: Apache-2.0
// That no sink is called with a lock of the library held: one that calls the library would hang.
#include <cstdlib>

#include "support/child_process.hpp"
#include "support/test.hpp"

using namespace fabricmem::test;

TEST_CASE("A sink may call the driver that logs, whatever the emulated driver logs of", "[log][emulated]") {
    if (std::getenv("FABRICMEM_TEST_LAUNCHER") != nullptr) FABRICMEM_SKIP("qemu-user does not limit addresses");
    for (const char* const what : {"reserve", "alloc", "alloc_host", "write_word", "wait_for_word", "wait_in_thread"}) {
        CAPTURE(what);
        ChildProcess process({FABRICMEM_TEST_LOG_SINK, what});
        CHECK(process.wait(in_seconds(60)) == Ended{0, 0});
    }
}

TEST_CASE("A sink may ask for the NVLink fabric while NVML is found missing", "[log][platform]") {
    ChildProcess process({FABRICMEM_TEST_LOG_SINK, "nvml"});
    CHECK(process.wait(in_seconds(60)) == Ended{0, 0});
}
