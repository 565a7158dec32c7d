// SPDX-License-Identifier: Apache-2.0
// What becomes of memory, stream and context where the GPU does not get to what the library queued, and who a probe
// touches memory with.
#include <algorithm>
#include <chrono>
#include <vector>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>
#include <fabricmem/probe.hpp>

#include "driver/driver_state.hpp"
#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// A GPU that is never done after `done` waits.
std::shared_ptr<FaultDriver> busy_driver(const std::shared_ptr<Driver>& emulated, std::uint64_t done = 0) {
    auto driver = std::make_shared<FaultDriver>(emulated);
    detail::DriverState::of(*driver).patience = {.zeroing = std::chrono::milliseconds(0),
                                                 .probing = std::chrono::milliseconds(0)};
    driver->add({.call = "stream_query", .number = done + 1, .result = CUDA_ERROR_NOT_READY});
    return driver;
}

// What ends memory, streams or contexts, or could wait for them.
std::vector<std::string> endings(const FaultDriver& driver) {
    std::vector<std::string> found;
    for (const std::string& call : driver.calls()) {
        for (const char* const ending :
             {"mem_unmap", "mem_release", "mem_address_free", "mem_free_host", "stream_destroy",
              "device_primary_ctx_release", "ctx_synchronize", "stream_synchronize"}) {
            if (call == ending) found.push_back(call);
        }
    }
    return found;
}

bool no_context_is_current(Driver& driver) {
    CUcontext current = nullptr;
    return driver.ctx_get_current(&current) == CUDA_SUCCESS && current == nullptr;
}

}  // namespace

TEST_CASE("Zeroing that the GPU does not get to times out, and ends nothing under it", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver = busy_driver(emulated);
    const CapturedLog log;
    const auto error = error_of([&] { FabricBuffer(driver, 1, {.zeroing = Zeroing::memset}); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::timed_out);
    CHECK(error->details().call == "cuMemsetD8Async");
    CHECK(contains(error->details().cause, "within 0 ms"));
    CHECK_FALSE(error->details().cure.empty());
    CHECK(contains(log.text(), "2097152 bytes are kept until the process ends"));
    CHECK(endings(*driver).empty());
    CHECK(no_context_is_current(*driver));
    const EmulatedCounts left = emulated_counts(*emulated);
    CHECK(left.allocations == 1);
    CHECK(left.mappings == 1);
    CHECK(left.ranges == 1);
    CHECK(left.streams == 1);
    CHECK(left.primary_contexts == 1);
}

TEST_CASE("A probe that the GPU does not get to times out, and ends nothing under it", "[probe][fault]") {
    for (const std::uint64_t done : {0U, 1U}) {
        CAPTURE(done);
        const auto emulated = make_emulated_driver();
        const auto driver = busy_driver(emulated, done);
        const ProbeResult result = probe(driver, Location::device(0));
        REQUIRE_FALSE(result.usable());
        CHECK(result.why_not->kind() == ErrorKind::timed_out);
        CHECK(result.why_not->details().call == (done == 0 ? "cuMemsetD8Async" : "cuMemcpyAsync"));
        CHECK(contains(result.summary, "within 0 ms"));
        CHECK(endings(*driver).empty());
        CHECK(no_context_is_current(*driver));
        const EmulatedCounts left = emulated_counts(*emulated);
        CHECK(left.mappings == 2);
        CHECK(left.ranges == 2);
        CHECK(left.handles == 2);
        CHECK(left.streams == 1);
        CHECK(left.primary_contexts == 1);
    }
}

TEST_CASE("A probe waits for no work but its own", "[probe]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    CHECK(probe(driver, Location::device(0)).usable());
    const std::vector<std::string> calls = driver->calls();
    // cuMemFreeHost waits for all of the GPU's work, and so do these.
    for (const char* waits : {"mem_alloc_host", "mem_free_host", "mem_free", "ctx_synchronize", "memcpy_dtoh"}) {
        CAPTURE(waits);
        CHECK(std::count(calls.begin(), calls.end(), waits) == 0);
    }
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("A probe says so where the GPU itself got no access", "[probe][fault]") {
    class Others : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                std::size_t count) noexcept override {
            for (std::size_t i = 0; i < count; ++i) {
                if (access[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE && access[i].location.id == 1)
                    return CUDA_ERROR_NOT_SUPPORTED;
            }
            return FaultDriver::mem_set_access(address, bytes, access, count);
        }
    };
    const QuietLog quiet;
    for (const Location& location : {Location::device(1), Location::host_nearest(1)}) {
        CAPTURE(to_string(location));
        const auto emulated = make_emulated_driver({.devices = 2});
        const auto driver = std::make_shared<Others>(emulated);
        const ProbeResult result = probe(driver, location);
        REQUIRE_FALSE(result.usable());
        CHECK(result.why_not->kind() == ErrorKind::unsupported);
        CHECK(contains(result.summary, "not even device 1 got access"));
        CHECK_FALSE(result.why_not->details().cause.empty());
        CHECK_FALSE(result.why_not->details().cure.empty());
        CHECK(count(driver->calls(), "memset_d8_async") == 0);
        CHECK(emulated_counts(*emulated) == EmulatedCounts());
    }
    const auto driver = std::make_shared<Others>(make_emulated_driver({.devices = 2}));
    CHECK(probe(driver, Location::device(0)).usable());
    CHECK(probe(driver, Location::host_numa(0)).usable());
}
