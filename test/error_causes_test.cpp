// SPDX-License-Identifier: Apache-2.0
// The table of causes, row by row: what failed where, and what the error says of it.
#include <atomic>
#include <cerrno>
#include <optional>
#include <vector>

#include <fabricmem/checks.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// A node of its own, in a fabric that is joined, or is still being joined.
class Node : public Platform {
public:
    [[nodiscard]] std::optional<Id128> host_id() const override { return host; }
    [[nodiscard]] std::optional<Id128> boot_id() const override { return boot; }
    [[nodiscard]] std::vector<ImexChannel> imex_channels() const override { return channels; }
    [[nodiscard]] std::optional<KernelModule> kernel_module() const override { return module; }
    [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view) const override {
        ++asked;
        FabricInfo info;
        info.state = state;
        info.cluster_uuid.bytes.fill(9);
        return info;
    }

    Id128 host{{1}};
    Id128 boot{{2}};
    std::vector<ImexChannel> channels{{}};
    KernelModule module{};
    FabricInfo::State state = FabricInfo::State::completed;
    mutable std::atomic<int> asked{0};
};

// One call of it answers `result`, always.
class Failing : public FaultDriver {
public:
    Failing(std::shared_ptr<Driver> inner, const std::string& call, CUresult result) : FaultDriver(std::move(inner)) {
        add({.call = call, .result = result});
    }
    [[nodiscard]] const Platform& platform() const noexcept override { return node; }
    CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) noexcept override {
        asked_before_failure = node.asked;
        return FaultDriver::mem_create(handle, bytes, properties, flags);
    }
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override {
        asked_before_failure = node.asked;
        return FaultDriver::mem_import_from_shareable_handle(handle, shareable, type);
    }

    Node node;
    int asked_before_failure = 0;
};

using Action = void (*)(const std::shared_ptr<Driver>&);

void make(const std::shared_ptr<Driver>& driver) { FabricBuffer(driver, 1).close(); }
void make_zeroed(const std::shared_ptr<Driver>& driver) { FabricBuffer(driver, 1, {.zeroing = Zeroing::memset}); }
void make_for_one(const std::shared_ptr<Driver>& driver) { FabricBuffer(driver, 1, {.access = std::vector<int>{0}}); }
void make_on_host(const std::shared_ptr<Driver>& driver) {
    FabricBuffer(driver, 1, {.location = Location::host_numa(0)});
}

struct Row {
    const char* call;
    int result;
    Action action;
    ErrorKind kind;
    const char* cause;
    const char* check = "";
};

void check_whole(const Error& error, const Row& row) {
    INFO(error.what());
    CHECK(to_string(error.kind()) == to_string(row.kind));
    CHECK(error.code() == row.result);
    CHECK(contains(error.details().cause, row.cause));
    CHECK_FALSE(error.details().cure.empty());
    CHECK(error.details().check == row.check);
    CHECK((error.details().check.empty() || find_check(error.details().check) != nullptr));
}

}  // namespace

TEST_CASE("What fails while a buffer is made or closed has its cause and a cure", "[buffer][fault]") {
    const std::vector<Row> rows{
        {"mem_address_reserve", 1, make, ErrorKind::driver, "an alignment below its granularity", "FM-MEMORY-006"},
        {"mem_address_reserve", 2, make, ErrorKind::out_of_memory, "no free range of 2097152 bytes of addresses",
         "FM-MEMORY-006"},
        {"mem_create", 1, make, ErrorKind::bad_argument, "an unaligned size", "FM-MEMORY-002"},
        {"mem_create", 1, make_on_host, ErrorKind::bad_argument, "there is no host NUMA node 0", "FM-MEMORY-002"},
        {"mem_create", 2, make, ErrorKind::out_of_memory, "no more to give", "FM-MEMORY-003"},
        {"mem_create", 3, make, ErrorKind::driver, "cuInit was not called"},
        {"mem_create", 4, make, ErrorKind::closed, "the process is exiting"},
        {"mem_create", 100, make, ErrorKind::unsupported, "CUDA_VISIBLE_DEVICES hides all", "FM-DRIVER-003"},
        {"mem_create", 101, make, ErrorKind::bad_argument, "no such device", "FM-MEMORY-002"},
        {"mem_create", 220, make, ErrorKind::driver, "NVLink peer is gone", "FM-FABRIC-009"},
        {"mem_create", 226, make, ErrorKind::driver, "NVLink peer is gone", "FM-FABRIC-009"},
        {"mem_create", 801, make, ErrorKind::unsupported, "ImexChannelCount is 0", "FM-CHANNEL-006"},
        {"mem_create", 802, make, ErrorKind::system, "Fabric Manager", "FM-IMEX-002"},
        {"mem_create", 300, make, ErrorKind::driver, "no more than its code", "FM-MEMORY-001"},
        {"mem_map", 1, make, ErrorKind::driver, "does not take one of the call's arguments", "FM-MEMORY-007"},
        {"mem_map", 801, make, ErrorKind::unsupported, "does not do it", "FM-MEMORY-007"},
        {"mem_map", 800, make, ErrorKind::not_permitted, "may not do it", "FM-MEMORY-007"},
        {"mem_set_access", 1, make_for_one, ErrorKind::driver, "no such access to this memory", "FM-MEMORY-008"},
        {"mem_set_access", 101, make_for_one, ErrorKind::bad_argument, "access list names a device that this process",
         "FM-MEMORY-008"},
        {"mem_set_access", 217, make_for_one, ErrorKind::unsupported, "no P2P access", "FM-MEMORY-008"},
        {"mem_set_access", 801, make_for_one, ErrorKind::unsupported, "none of those asked for can access",
         "FM-MEMORY-008"},
        {"mem_export_to_shareable_handle", 1, make, ErrorKind::unsupported, "not created for fabric handles",
         "FM-MEMORY-004"},
        {"memset_d8_async", 201, make_zeroed, ErrorKind::driver, "no CUDA context is current"},
        {"stream_query", 700, make_zeroed, ErrorKind::driver, "the context is lost", "FM-DRIVER-010"},
        {"stream_query", 719, make_zeroed, ErrorKind::driver, "the context is lost", "FM-DRIVER-010"},
        {"mem_unmap", 1, make, ErrorKind::driver, "somebody else has unmapped", "FM-MEMORY-010"},
        {"mem_release", 1, make, ErrorKind::driver, "somebody else has unmapped, released", "FM-MEMORY-010"},
        {"mem_address_free", 1, make, ErrorKind::driver, "mapped something there", "FM-MEMORY-010"},
    };
    const QuietLog quiet;
    for (const Row& row : rows) {
        CAPTURE(row.call, row.result);
        const auto emulated = make_emulated_driver();
        const auto driver = std::make_shared<Failing>(emulated, row.call, static_cast<CUresult>(row.result));
        const auto error = error_of([&] { row.action(driver); });
        REQUIRE(error.has_value());
        check_whole(*error, row);
        CHECK(emulated_counts(*emulated) == EmulatedCounts());
    }
}

TEST_CASE("A code that the library has no name for is told by its number", "[buffer][fault]") {
    const auto driver = std::make_shared<Failing>(make_emulated_driver(), "mem_create", CUDA_ERROR_INVALID_SOURCE);
    const auto error = error_of([&] { make(driver); });
    REQUIRE(error.has_value());
    CHECK(contains(error->what(), "an unlisted CUresult (300)"));
}

TEST_CASE("The driver's number of channels tells why it has no fabric memory", "[buffer][fault]") {
    struct Count {
        std::optional<std::uint32_t> channels;
        const char* cause;
        const char* check;
    };
    const auto driver = std::make_shared<Failing>(make_emulated_driver(), "mem_create", CUDA_ERROR_NOT_SUPPORTED);
    for (const Count& count : {Count{std::nullopt, "likely ImexChannelCount is 0", "FM-CHANNEL-006"},
                               Count{0, "ImexChannelCount is 0 (/proc", "FM-CHANNEL-006"},
                               Count{2048, "ImexChannelCount is 2048, so it is not that", "FM-FABRIC-001"}}) {
        driver->node.module.imex_channel_count = count.channels;
        const auto error = error_of([&] { make(driver); });
        REQUIRE(error.has_value());
        check_whole(*error, {"", 801, nullptr, ErrorKind::unsupported, count.cause, count.check});
    }
}

TEST_CASE("A channel beyond the driver's number of them is told with both numbers", "[buffer][fault]") {
    const auto driver = std::make_shared<Failing>(make_emulated_driver(), "mem_create", CUDA_ERROR_NOT_PERMITTED);
    driver->node.channels = {{.number = 2048, .open_errno = ENXIO}};
    driver->node.module.imex_channel_count = 2048;
    auto error = error_of([&] { make(driver); });
    REQUIRE(error.has_value());
    check_whole(*error,
                {"", 800, nullptr, ErrorKind::not_permitted, "ImexChannelCount, which is 2048", "FM-CHANNEL-005"});
    driver->node.channels.clear();
    driver->node.module.imex_channel_count = 0;
    error = error_of([&] { make(driver); });
    REQUIRE(error.has_value());
    check_whole(*error, {"", 800, nullptr, ErrorKind::not_permitted, "no IMEX channels", "FM-CHANNEL-006"});
}

TEST_CASE("A GPU that is still joining the fabric is named where creating fails", "[buffer][fault]") {
    const auto driver = std::make_shared<Failing>(make_emulated_driver(), "mem_create", CUDA_ERROR_UNKNOWN);
    driver->node.state = FabricInfo::State::in_progress;
    auto error = error_of([&] { make(driver); });
    REQUIRE(error.has_value());
    check_whole(*error,
                {"", 999, nullptr, ErrorKind::system, "has not finished joining the NVLink fabric", "FM-FABRIC-003"});
    driver->node.state = FabricInfo::State::completed;
    error = error_of([&] { make(driver); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::driver);
}

TEST_CASE("What fails while memory is imported has its cause and a cure", "[buffer][fault]") {
    const std::vector<Row> rows{
        {"mem_address_reserve", 2, nullptr, ErrorKind::out_of_memory, "or the blob's size is not the allocation's",
         "FM-MEMORY-006"},
        {"mem_import_from_shareable_handle", 1, nullptr, ErrorKind::bad_blob, "no fabric handle, or were damaged",
         "FM-PEER-005"},
        {"mem_import_from_shareable_handle", 2, nullptr, ErrorKind::out_of_memory, "no more to give", "FM-MEMORY-003"},
        {"mem_import_from_shareable_handle", 101, nullptr, ErrorKind::unsupported, "does not see the exporter's GPU",
         "FM-PEER-004"},
        {"mem_import_from_shareable_handle", 400, nullptr, ErrorKind::foreign_domain, "likely another IMEX domain",
         "FM-PEER-003"},
        {"mem_import_from_shareable_handle", 600, nullptr, ErrorKind::system, "the IMEX daemon of this node",
         "FM-IMEX-001"},
        {"mem_import_from_shareable_handle", 800, nullptr, ErrorKind::not_permitted,
         "both see IMEX channel 0 as their first", "FM-CHANNEL-008"},
        {"mem_import_from_shareable_handle", 999, nullptr, ErrorKind::driver, "no more than its code"},
        {"mem_map", 801, nullptr, ErrorKind::foreign_domain, "cliques differ; or the allocation does not have",
         "FM-PEER-002"},
        {"mem_set_access", 1, nullptr, ErrorKind::foreign_domain, "in two IMEX domains on one clique", "FM-PEER-003"},
        {"mem_unmap", 1, nullptr, ErrorKind::driver, "somebody else has unmapped", "FM-MEMORY-010"},
    };
    const auto emulated = make_emulated_driver();
    const FabricBuffer own(emulated, 1);
    HandleBlob blob = own.blob();
    blob.fabric = std::nullopt;  // else the two places differ, which explains more
    const EmulatedCounts before = emulated_counts(*emulated);
    for (const Row& row : rows) {
        CAPTURE(row.call, row.result);
        const auto driver = std::make_shared<Failing>(emulated, row.call, static_cast<CUresult>(row.result));
        const auto error = error_of([&] { ImportedFabricBuffer(driver, blob).close(); });
        REQUIRE(error.has_value());
        check_whole(*error, row);
        CHECK_FALSE(contains(error->what(), "another user"));  // true of the emulated driver alone, whose log says so
        CHECK(contains(error->details().identity, "Importer: host 01"));
        CHECK(emulated_counts(*emulated) == before);
    }
}

TEST_CASE("Who imports by a node whose name and minor number differ is told so", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const FabricBuffer own(emulated, 1);
    const auto driver =
        std::make_shared<Failing>(emulated, "mem_import_from_shareable_handle", CUDA_ERROR_NOT_PERMITTED);
    driver->node.channels = {{.number = 0, .device_minor = 5}};
    const auto error = error_of([&] { ImportedFabricBuffer(driver, own.blob()).close(); });
    REQUIRE(error.has_value());
    check_whole(*error,
                {"", 800, nullptr, ErrorKind::not_permitted, "channel0 is of minor number 5", "FM-CHANNEL-009"});
    CHECK(side_of(*error) == Side::here);
}

TEST_CASE("Where an exporter is gone to is told by host, boot and process", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver =
        std::make_shared<Failing>(emulated, "mem_import_from_shareable_handle", CUDA_ERROR_NOT_SUPPORTED);
    const FabricBuffer own(emulated, 1);
    const auto told = [&](std::optional<Id128> host, std::optional<Id128> boot) {
        HandleBlob blob = own.blob();
        blob.host_id = host;
        blob.boot_id = boot;
        blob.process_id = std::nullopt;
        const auto error = error_of([&] { ImportedFabricBuffer(driver, blob); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::peer_gone);
        CHECK_FALSE(error->details().cure.empty());
        return error->details().cause;
    };
    const Id128 other{{7}};
    CHECK(contains(told(driver->node.host, driver->node.boot), "has released the memory or has ended"));
    CHECK(contains(told(driver->node.host, other), "this host was booted after the blob was made"));
    CHECK(contains(told(other, other), "its IMEX daemon was down when it exported"));
    CHECK(contains(told(std::nullopt, std::nullopt), "its IMEX daemon was down when it exported"));
}

TEST_CASE("Host memory of another node that can't be imported is told that it may not travel", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver =
        std::make_shared<Failing>(emulated, "mem_import_from_shareable_handle", CUDA_ERROR_NOT_SUPPORTED);
    const FabricBuffer own(emulated, 1, {.location = Location::host_numa(0)});
    HandleBlob blob = own.blob();
    blob.host_id = blob.boot_id = Id128{{7}};
    const auto error = error_of([&] { ImportedFabricBuffer(driver, blob); });
    REQUIRE(error.has_value());
    CHECK(error->details().check == "FM-FABRIC-010");
    CHECK(error->kind() == ErrorKind::peer_gone);
    CHECK(contains(error->details().cause, "likely, host memory does not travel between these nodes"));
}

TEST_CASE("An error is made without asking the driver or NVML for more", "[buffer][fault]") {
    const auto emulated = make_emulated_driver({.devices = 2});
    const FabricBuffer own(emulated, 1, {.location = Location::host_numa(0)});
    for (const char* const call : {"mem_create", "mem_import_from_shareable_handle"}) {
        for (const int result : {1, 2, 101, 400, 801, 999}) {
            CAPTURE(call, result);
            const auto driver = std::make_shared<Failing>(emulated, call, static_cast<CUresult>(result));
            HandleBlob blob = own.blob();
            blob.boot_id = Id128{{7}};
            const bool creates = std::string_view(call) == "mem_create";
            const auto fail = [&] {
                if (creates) FabricBuffer(driver, 1);
                ImportedFabricBuffer(driver, blob);
            };
            REQUIRE(error_of(fail).has_value());
            CHECK(driver->node.asked == driver->asked_before_failure);
            CHECK(driver->node.asked == (creates ? 1 : 0));  // of the one device; of no device for host memory
            const std::vector<std::string> calls = driver->calls();
            REQUIRE(calls.size() > 2);
            CHECK(calls[calls.size() - 2] == call);
            CHECK(calls.back() == "mem_address_free");
            // A blob of a multi-node fabric is compared with this node's places, which are learnt before the call.
            blob.fabric = FabricPlace{{{9}}, 3};
            if (creates) continue;
            REQUIRE(error_of(fail).has_value());
            REQUIRE(error_of(fail).has_value());
            CHECK(driver->asked_before_failure == 2);
            CHECK(driver->node.asked == 2);
        }
    }
}

TEST_CASE("A failed clean-up is logged as what it is, of memory or not", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto logged = [&](const char* call) {
        const CapturedLog log;
        {
            const auto driver = std::make_shared<FaultDriver>(emulated);
            driver->add({.call = call, .result = CUDA_ERROR_UNKNOWN});
            const FabricBuffer buffer(driver, 1, {.zeroing = Zeroing::memset});
        }
        return log.text();
    };
    CHECK(logged("mem_unmap") ==
          "cuMemUnmap of 2097152 bytes failed: CUDA_ERROR_UNKNOWN (999); the memory or its addresses may stay in use "
          "until the process ends\n");
    CHECK(logged("ctx_pop_current") ==
          "cuCtxPopCurrent failed: CUDA_ERROR_UNKNOWN (999); what it gives back may stay until the process ends\n");
}
