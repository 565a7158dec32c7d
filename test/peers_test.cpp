// SPDX-License-Identifier: Apache-2.0
// Buffers between two processes: what arrives, and what an importer sees when its exporter closes or dies.
#include <csignal>
#include <string>

#include <fabricmem/fabric_buffer.hpp>

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
