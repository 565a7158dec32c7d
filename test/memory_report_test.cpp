// SPDX-License-Identifier: Apache-2.0
// What a driver's buffers hold, told on call and at exit.
#include <fabricmem/memory_report.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <fabricmem/arena.hpp>
#include <fabricmem/fault_driver.hpp>

#include "buffer/deadline.hpp"
#include "driver/driver_state.hpp"
#include "support/buffers.hpp"
#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("The report names each open buffer and import with its place and bytes", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CHECK(memory_report(*driver).is_clean());
    std::optional<FabricBuffer> first(std::in_place, driver, 3 * kMiB);
    const Arena arena(driver, 1, {.location = Location::host_numa(0)});
    std::optional<ImportedFabricBuffer> imported(std::in_place, driver, first->blob().sub_range(10, 20));
    const MemoryReport report = memory_report(*driver);
    CHECK_FALSE(report.is_clean());
    REQUIRE(report.buffers.size() == 2);
    CHECK(report.buffers[0].base == first->address());
    CHECK(report.buffers[0].blob == first->blob());
    CHECK(report.buffers[0].location == Location::device(0));
    CHECK(report.buffers[0].kinds.has(HandleKind::fabric));
    CHECK(report.buffers[1].location == Location::host_numa(0));
    CHECK(report.buffer_bytes == first->mapped_bytes() + arena.granularity());
    REQUIRE(report.imports.size() == 1);
    CHECK(report.imports[0].base == static_cast<std::byte*>(imported->address()) - 10);
    CHECK(report.imports[0].blob == imported->blob());
    CHECK(report.import_bytes == imported->mapped_bytes());
    CHECK(contains(report.describe(), "2 buffers of 6291456 bytes, 1 imports of 4194304 bytes"));
    CHECK(contains(report.describe(), "import of 20 bytes (4194304 mapped) on device 0 at "));
    CHECK(contains(report.describe(), "exporter: host "));
    CHECK_FALSE(contains(report.describe(), first->blob().bare_hex().substr(0, 24)));

    const FabricBuffer moved = std::move(*first);  // is the same one
    first.reset();
    imported->close();
    const MemoryReport later = memory_report(*driver);
    CHECK(later.buffers.size() == 2);
    CHECK(later.imports.empty());
    CHECK(later.import_bytes == 0);
}

TEST_CASE("Nothing is reported once all is closed, and of another driver's buffers nothing ever", "[buffer]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    const std::shared_ptr<Driver> other = make_emulated_driver();
    {
        std::vector<FabricBuffer> many;
        for (int i = 0; i < 100; ++i) many.emplace_back(driver, 1);
        many.erase(many.begin() + 1, many.begin() + 50);  // out of the middle, by moves
        CHECK(memory_report(*driver).buffers.size() == 51);
        CHECK(memory_report(*other).is_clean());
        CHECK(contains(memory_report(*driver).describe(), "at "));
        many.pop_back();
        CHECK(memory_report(*driver).buffers.size() == 50);
    }
    CHECK(memory_report(*driver).is_clean());
    CHECK(memory_report(*driver).buffer_bytes == 0);
}

TEST_CASE("A buffer whose making fails is in no report", "[buffer][fault]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    const auto refuse = [&](const BufferInfo&) {
        CHECK(memory_report(*driver).buffers.size() == 1);
        throw std::runtime_error("no");
    };
    CHECK_THROWS_AS(FabricBuffer(driver, 1, {.on_make = refuse}), std::runtime_error);
    CHECK(memory_report(*driver).is_clean());
}

TEST_CASE("A buffer is out of the report before its memory goes", "[buffer]") {
    // Asks at the unmapping.
    class AskAtUnmap : public ForwardingDriver {
    public:
        using ForwardingDriver::ForwardingDriver;
        CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override {
            held = memory_report(*this).buffers.size();
            return ForwardingDriver::mem_unmap(address, bytes);
        }
        std::size_t held = 99;
    };
    const auto driver = std::make_shared<AskAtUnmap>(make_emulated_driver());
    { const FabricBuffer buffer(driver, 1); }
    CHECK(driver->held == 0);
}

TEST_CASE("Memory that was given up, retired, not taken back, or stuck in a call is reported", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    const QuietLog quiet;
    {
        const FabricBuffer retired(driver, 1, {.retire_address = RetireAddress::yes});
        const FabricBuffer failing(driver, 3 * kMiB);
        driver->add({.call = "mem_unmap", .number = 1, .result = CUDA_ERROR_UNKNOWN});  // the last one made
    }
    driver->clear();
    MemoryReport report = memory_report(*driver);
    CHECK(report.retired_ranges == 1);
    CHECK(report.retired_bytes == 2 * kMiB);
    CHECK(report.failed_tear_downs == 1);
    CHECK(report.failed_tear_down_bytes == 4 * kMiB);
    CHECK(report.given_up == 0);

    detail::DriverState::of(*driver).patience.zeroing = std::chrono::milliseconds(0);
    driver->add({.call = "stream_query", .result = CUDA_ERROR_NOT_READY});
    CHECK(kind_of([&] { FabricBuffer(driver, 1, {.zeroing = Zeroing::memset}); }) == ErrorKind::timed_out);
    driver->clear();
    report = memory_report(*driver);
    CHECK(report.given_up == 1);
    CHECK(report.given_up_bytes == 2 * kMiB);
    CHECK(report.failed_tear_downs == 1);

    const FabricBuffer own(emulated, 1);
    driver->add({.effect = Fault::Effect::hang, .call = "mem_import_from_shareable_handle"});
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.timeout = std::chrono::milliseconds(1)}); }) ==
          ErrorKind::timed_out);
    CHECK(memory_report(*driver).stuck_calls == 1);
    CHECK(contains(memory_report(*driver).describe(), "1 stuck calls"));
    driver->clear();
    CHECK(detail::wait_until_stuck(*driver, 0, std::chrono::seconds(60)));
}

TEST_CASE("In a forked child nothing is held", "[buffer][fork]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    const FabricBuffer own(driver, 1);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(memory_report(*driver).is_clean() ? 0 : 1);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(memory_report(*driver).buffers.size() == 1);
}

TEST_CASE("At exit it is told once what the driver holds then", "[buffer][exit][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const char* const how : {"return", "exit"}) {
        CAPTURE(how);
        ChildProcess process({FABRICMEM_TEST_EXIT, how, "report"});
        std::vector<std::string> lines;
        while (const auto line = process.read_line(in_seconds(60))) lines.push_back(*line);
        CHECK(process.wait(in_seconds(60)) == Ended{0, 0});
        REQUIRE(lines.size() == 5);
        // One in a static that was made before, two of a thread that still runs; the other static's are gone.
        CHECK(contains(lines[0], "holds 3 buffers of 6291456 bytes, 1 imports of 2097152 bytes"));
        CHECK(contains(lines[4], "import of 1 bytes"));
    }
    FABRICMEM_CHECK_ERROR(report_memory_at_exit(nullptr), bad_argument, "driver is null");
}
