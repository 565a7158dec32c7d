// SPDX-License-Identifier: Apache-2.0
// Buffers between two processes: what arrives, and what an importer sees when its exporter closes or dies.
#include <chrono>
#include <csignal>
#include <string>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/import_cache.hpp>

#include "support/buffers.hpp"
#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr int kPatienceSeconds = 60;

// The exporting process, and the blob it printed.
struct Exporter {
    explicit Exporter(const std::string& location) : process({FABRICMEM_TEST_BUFFER_PEER, location}) {
        const auto line = process.read_line(in_seconds(kPatienceSeconds));
        REQUIRE(line.has_value());
        blob = HandleBlob::from_hex(*line);
    }
    std::string ask(const std::string& line) {
        REQUIRE(process.send_line(line));
        return process.read_line(in_seconds(kPatienceSeconds)).value_or("");
    }
    void kill() {
        process.signal(SIGKILL);
        REQUIRE(process.wait(in_seconds(kPatienceSeconds)) == Ended{-1, SIGKILL});
    }

    ChildProcess process;
    HandleBlob blob;
};

}  // namespace

TEST_CASE("What a peer's process writes by CPU and by GPU arrives in the exporter's", "[buffer][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Exporter exporter("host");
    CHECK(exporter.blob.process_id == static_cast<std::uint32_t>(exporter.process.pid()));
    CHECK(exporter.blob.boot_id == driver->platform().boot_id());
    const ImportedFabricBuffer imported(driver, exporter.blob);
    CHECK(imported.access().host);
    static_cast<unsigned char*>(imported.address())[70] = 0xb7;
    CHECK(exporter.ask("read 70") == "183");
    const PrimaryContext context(driver, 0);
    CHECK(driver->memset_d8(pointer(imported), 0x21, 64) == CUDA_SUCCESS);
    CHECK(driver->ctx_synchronize() == CUDA_SUCCESS);  // a memset returns before it is done
    CHECK(exporter.ask("read 63") == "33");
    CHECK(exporter.ask("read 64") == "0");
}

TEST_CASE("An import keeps the memory of an exporter that was killed, and no new one is made",
          "[buffer][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const char* const location : {"host", "device"}) {
        CAPTURE(location);
        Exporter exporter(location);
        const ImportedFabricBuffer imported(driver, exporter.blob);
        const PrimaryContext context(driver, 0);
        CHECK(driver->memset_d8(pointer(imported), 0x66, imported.bytes()) == CUDA_SUCCESS);
        exporter.kill();
        CHECK(read_back(*driver, imported) == std::vector<unsigned char>(imported.bytes(), 0x66));
        const auto error = error_of([&] { ImportedFabricBuffer(driver, exporter.blob); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::peer_gone);
        CHECK(error->code() == CUDA_ERROR_NOT_SUPPORTED);
        CHECK(contains(error->details().cause, "has ended"));
        CHECK_FALSE(import_if_alive(driver, exporter.blob).has_value());
    }
}

TEST_CASE("An exporter that closed while a peer holds an import has released its memory", "[buffer][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Exporter exporter("device");
    const ImportedFabricBuffer imported(driver, exporter.blob);
    CHECK(exporter.ask("close") == "released");
    CHECK_FALSE(import_if_alive(driver, exporter.blob).has_value());
    const PrimaryContext context(driver, 0);
    CHECK(read_back(*driver, imported) == std::vector<unsigned char>(imported.bytes(), 0));
}

TEST_CASE("A cached import of an exporter that was killed is still the same memory, and ages out",
          "[cache][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Exporter exporter("host");
    Exporter again("host");
    ImportCache cache(driver, {.idle_timeout = std::chrono::minutes(1)});
    ImportView view = cache.acquire(exporter.blob);
    static_cast<unsigned char*>(view.address())[0] = 0x5a;
    exporter.kill();
    CHECK(*static_cast<const unsigned char*>(cache.acquire(exporter.blob).address()) == 0x5a);
    // A process that starts anew has other memory, though it may say the same of itself but for when it started.
    HandleBlob same_process = again.blob;
    same_process.process_id = exporter.blob.process_id;
    CHECK(*static_cast<const unsigned char*>(cache.acquire(same_process).address()) == 0);
    const auto now = std::chrono::steady_clock::now();
    CHECK(cache.collect(now + std::chrono::hours(1)) == 0);  // both have been used at that time
    CHECK(cache.collect(now + std::chrono::hours(2)) == 1);
    view.let_go();
    CHECK(cache.collect(now + std::chrono::hours(3)) == 0);
    CHECK(cache.collect(now + std::chrono::hours(4)) == 1);
    const auto error = error_of([&] { static_cast<void>(cache.acquire(exporter.blob)); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::peer_gone);
    CHECK(cache.statistics().entries == 0);
    cache.close();
}
