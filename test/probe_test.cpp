// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/probe.hpp>

#include <fabricmem/checks.hpp>
#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/fault_driver.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "driver/driver_state.hpp"
#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/fabric_kit.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr auto kRungCount = static_cast<std::size_t>(ProbeRung::tear_down) + 1;

const ProbeStep& step_of(const ProbeResult& result, ProbeRung rung) {
    REQUIRE(result.steps.size() == kRungCount);
    const ProbeStep& step = result.steps[static_cast<std::size_t>(rung)];
    REQUIRE(step.rung == rung);
    return step;
}

// "passed passed failed skipped ...": the states of the rungs that do something.
std::string doing(const ProbeResult& result) {
    std::string states;
    for (const ProbeStep& step : result.steps) {
        if (step.rung >= ProbeRung::reserve) states += std::string(to_string(step.state)) + " ";
    }
    return states;
}

ProbeResult with_channel(const ImexChannel& channel) {
    Scenario scenario = Scenario::ready_made("single-h100");
    scenario.nodes[0].channels = {channel};
    return probe(make_emulated_driver(make_emulated_fabric(scenario)), Location::device(0));
}

}  // namespace

TEST_CASE("A probe that succeeds has touched memory, and leaves the context as it was", "[probe][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location& location : {Location::device(0), Location::host_numa(0), Location::host_nearest(0)}) {
        CAPTURE(to_string(location));
        const ProbeResult result = probe(driver, location);
        INFO(result.summary);
        CHECK(result.usable());
        CHECK(result.location == location);
        CHECK(result.kinds.has(HandleKind::fabric));
        CHECK(result.reach >= HandleReach::fabric_node);
        for (const ProbeStep& step : result.steps) {
            CAPTURE(to_string(step.rung), step.facts, step.cause);
            CHECK((step.state == RungState::passed || step.rung == ProbeRung::fabric_state));
        }
        CUcontext current = nullptr;
        CHECK(driver->ctx_get_current(&current) == CUDA_SUCCESS);
        CHECK(current == nullptr);
    }
}

TEST_CASE("A probe tells why not, and does not throw", "[probe]") {
    const ProbeResult no_channel = probe(make_emulated_driver({.imex_channel = std::nullopt}), Location::device(0));
    REQUIRE_FALSE(no_channel.usable());
    CHECK(no_channel.why_not->kind() == ErrorKind::not_permitted);
    CHECK(contains(no_channel.summary, "IMEX channel"));
    CHECK_FALSE(probe(make_emulated_driver({.fabric = FabricAttribute::unsupported}), Location::device(0)).usable());
    CHECK(probe(make_emulated_driver(), Location::device(3)).why_not->kind() == ErrorKind::bad_argument);
    CHECK(probe(nullptr, Location::device(0)).why_not->kind() == ErrorKind::bad_argument);
}

TEST_CASE("A probe finds out that a write through the import does not arrive", "[probe][fault]") {
    class Deaf : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult memset_d8_async(CUdeviceptr, unsigned char, std::size_t, CUstream) noexcept override {
            return CUDA_SUCCESS;
        }
    };
    const auto emulated = make_emulated_driver();
    const ProbeResult result = probe(std::make_shared<Deaf>(emulated), Location::device(0));
    REQUIRE_FALSE(result.usable());
    CHECK(contains(result.summary, "did not arrive"));
    CHECK(step_of(result, ProbeRung::touch).check == "FM-MEMORY-009");
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("A probe touches with the device that it is asked about, and makes no other's context", "[probe]") {
    class Watcher : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override {
            retained.push_back(device);
            return FaultDriver::device_primary_ctx_retain(context, device);
        }
        std::vector<CUdevice> retained;
    };
    for (const Location& location : {Location::device(2), Location::host_nearest(2)}) {
        CAPTURE(to_string(location));
        const auto driver = std::make_shared<Watcher>(make_emulated_driver({.devices = 4}));
        CHECK(probe(driver, location).usable());
        CHECK(driver->retained == std::vector<CUdevice>{2});
    }
}

TEST_CASE("A probe of host memory that no GPU gets access to says so", "[probe][fault]") {
    class HostAlone : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                std::size_t count) noexcept override {
            for (std::size_t i = 0; i < count; ++i) {
                if (access[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
            }
            return FaultDriver::mem_set_access(address, bytes, access, count);
        }
    };
    const QuietLog quiet;
    const auto emulated = make_emulated_driver();
    const ProbeResult result = probe(std::make_shared<HostAlone>(emulated), Location::host_numa(0));
    REQUIRE_FALSE(result.usable());
    CHECK(result.why_not->kind() == ErrorKind::unsupported);
    CHECK(contains(result.summary, "no GPU got access"));
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("Each driver call that fails fails the rung that it belongs to, and those after it are skipped",
          "[probe][fault]") {
    const std::map<std::string, ProbeRung> rungs{
        {"device_get_uuid", ProbeRung::attributes},
        {"mem_address_reserve", ProbeRung::reserve},
        {"mem_create", ProbeRung::create},
        {"mem_map", ProbeRung::map},
        {"mem_set_access", ProbeRung::set_access},
        {"pointer_get_attributes", ProbeRung::handle_types},
        {"mem_export_to_shareable_handle", ProbeRung::export_handle},
        {"mem_import_from_shareable_handle", ProbeRung::import_handle},
        {"memset_d8_async", ProbeRung::touch},
        {"memcpy_async", ProbeRung::touch},
        {"mem_unmap", ProbeRung::tear_down},
    };
    const QuietLog quiet;
    for (const auto& [call, rung] : rungs) {
        CAPTURE(call);
        const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
        driver->add({.call = call, .result = CUDA_ERROR_UNKNOWN});
        const ProbeResult result = probe(driver, Location::device(0));
        REQUIRE_FALSE(result.usable());
        CHECK(result.why_not->code() == CUDA_ERROR_UNKNOWN);
        CHECK(result.reach == HandleReach::none);
        for (const ProbeStep& step : result.steps) {
            CAPTURE(to_string(step.rung));
            if (step.rung < ProbeRung::reserve && rung >= ProbeRung::reserve) continue;  // those look, and do nothing
            const RungState expected = step.rung < rung    ? RungState::passed
                                       : step.rung == rung ? RungState::failed
                                                           : RungState::skipped;
            CHECK(to_string(step.state) == to_string(expected));
        }
        const ProbeStep& failed = step_of(result, rung);
        CHECK(find_check(failed.check) != nullptr);
        CHECK(failed.check == result.why_not->details().check);
        CHECK_FALSE(failed.cause.empty());
        CHECK_FALSE(failed.cure.empty());
    }
}

TEST_CASE("The second mapping's failure is the import's", "[probe][fault]") {
    const QuietLog quiet;
    for (const char* const call : {"mem_address_reserve", "mem_map", "mem_set_access"}) {
        CAPTURE(call);
        const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
        driver->add({.call = call, .number = 2, .result = CUDA_ERROR_UNKNOWN});
        const ProbeResult result = probe(driver, Location::device(0));
        const bool before_import = std::string(call) == "mem_address_reserve";
        CHECK(doing(result) == std::string("passed passed passed passed passed passed ") +
                                   (before_import ? "skipped" : "passed") + " failed skipped skipped ");
    }
}

TEST_CASE("What a probe did not come to is not passed, whatever comes before it in the list", "[probe]") {
    const std::string nothing_done = "skipped skipped skipped skipped skipped skipped skipped skipped skipped skipped ";
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    driver->add({.call = "mem_get_allocation_granularity", .result = CUDA_ERROR_UNKNOWN});
    const ProbeResult result = probe(driver, Location::device(0));
    CHECK_FALSE(result.usable());
    CHECK(doing(result) == nothing_done);

    // A handle of zeros is refused before it is imported.
    class Zeros : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle,
                                                CUmemAllocationHandleType, unsigned long long) noexcept override {
            std::fill_n(static_cast<unsigned char*>(shareable), 64, static_cast<unsigned char>(0));
            return CUDA_SUCCESS;
        }
    };
    CHECK(doing(probe(std::make_shared<Zeros>(make_emulated_driver()), Location::device(0))) ==
          "passed passed passed passed passed passed failed skipped skipped skipped ");
}

TEST_CASE("An own handle that is refused is no peer's fault, whatever the code", "[probe][fault]") {
    const QuietLog quiet;
    for (const int code : {1, 101, 400, 600, 801, 999}) {
        CAPTURE(code);
        const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
        driver->add({.call = "mem_import_from_shareable_handle", .number = 1, .result = static_cast<CUresult>(code)});
        const ProbeResult result = probe(driver, Location::device(0));
        CHECK(step_of(result, ProbeRung::import_handle).check == "FM-MEMORY-005");
        const auto second = std::make_shared<FaultDriver>(make_emulated_driver());
        second->add({.call = "mem_map", .number = 2, .result = static_cast<CUresult>(code)});
        CHECK(step_of(probe(second, Location::device(0)), ProbeRung::map_import).check == "FM-MEMORY-007");
    }
}

TEST_CASE("A yes is forgotten where a fresh probe fails", "[probe][fault]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    CHECK(probe(driver, Location::device(0)).usable());
    driver->add({.call = "mem_create", .result = CUDA_ERROR_LAUNCH_FAILED});
    CHECK_FALSE(probe(driver, Location::device(0), ProbeMemory::fresh).usable());
    CHECK(probe(driver, Location::device(0)).why_not.has_value());
}

TEST_CASE("A channel that can't be used fails its rung by name, and the making for the same reason", "[probe]") {
    struct Row {
        ImexChannel channel;
        const char* check;
    };
    for (const Row& row : {Row{{.number = 0, .open_errno = EACCES}, "FM-CHANNEL-002"},
                           Row{{.number = 0, .open_errno = EPERM}, "FM-CHANNEL-003"},
                           Row{{.number = 0, .open_errno = 0, .major_matches = false}, "FM-CHANNEL-004"},
                           Row{{.number = 0, .open_errno = ENXIO}, "FM-CHANNEL-005"}}) {
        CAPTURE(row.check);
        const ProbeResult result = with_channel(row.channel);
        REQUIRE_FALSE(result.usable());
        CHECK(result.why_not->details().check == row.check);
        CHECK(step_of(result, ProbeRung::channels).check == row.check);
        CHECK(step_of(result, ProbeRung::channels).state == RungState::failed);
        CHECK(step_of(result, ProbeRung::create).check == row.check);
        CHECK(doing(result) == "passed failed skipped skipped skipped skipped skipped skipped skipped skipped ");
    }
}

TEST_CASE("Where there are no fabric handles a file descriptor is tried, and nothing of it stays", "[probe]") {
    const auto no_channel = make_emulated_driver({.imex_channel = std::nullopt});
    ProbeResult result = probe(no_channel, Location::device(0));
    CHECK(result.reach == HandleReach::posix_fd);
    CHECK(result.kinds == HandleKinds(HandleKind::posix_fd));
    CHECK_FALSE(result.usable());
    CHECK(contains(result.summary, "file descriptors work"));
    CHECK(emulated_counts(*no_channel) == EmulatedCounts());

    const QuietLog quiet;
    const auto neither = std::make_shared<FaultDriver>(no_channel);
    neither->add({.call = "mem_import_from_shareable_handle", .result = CUDA_ERROR_NOT_SUPPORTED});
    result = probe(neither, Location::host_numa(0));
    CHECK(result.reach == HandleReach::none);
    CHECK(result.kinds.empty());
    CHECK(result.why_not->details().check == "FM-CHANNEL-001");
    CHECK(emulated_counts(*no_channel) == EmulatedCounts());

    // Memory that is short says nothing of handle types.
    const auto full = std::make_shared<FaultDriver>(make_emulated_driver());
    full->add({.call = "mem_create", .number = 1, .result = CUDA_ERROR_OUT_OF_MEMORY});
    CHECK(probe(full, Location::device(0)).reach == HandleReach::none);
}

TEST_CASE("A device without fabric handles fails by its attribute", "[probe]") {
    const ProbeResult result =
        probe(make_emulated_driver({.fabric = FabricAttribute::unsupported}), Location::device(0));
    CHECK(step_of(result, ProbeRung::attributes).state == RungState::failed);
    CHECK(step_of(result, ProbeRung::attributes).check == "FM-FABRIC-001");
    CHECK(result.why_not->details().check == "FM-FABRIC-001");
    CHECK(step_of(result, ProbeRung::create).state == RungState::passed);
    CHECK(step_of(result, ProbeRung::handle_types).state == RungState::failed);
    CHECK(result.reach == HandleReach::posix_fd);
}

TEST_CASE("How far memory travels follows from the device's NVLink domain, and for host memory from its attribute",
          "[probe]") {
    const auto rack = driver_on(ready_made("gb200-nvl72"), "");
    CHECK(probe(rack, Location::device(0)).reach == HandleReach::fabric_domain);
    CHECK(probe(rack, Location::host_nearest(0)).reach == HandleReach::fabric_domain);
    const auto box = driver_on(ready_made("hgx-h100"), "");
    CHECK(probe(box, Location::device(0)).reach == HandleReach::fabric_node);
    CHECK(probe(box, Location::host_numa(0)).reach == HandleReach::fabric_node);

    Scenario scenario = Scenario::ready_made("gb200-nvl72");
    for (ScenarioNode& node : scenario.nodes) node.host_memory = HostMemoryReach::node;
    const auto stays = make_emulated_driver(make_emulated_fabric(scenario));
    CHECK(probe(stays, Location::device(0)).reach == HandleReach::fabric_domain);
    const ProbeResult host = probe(stays, Location::host_nearest(0));
    CHECK(host.reach == HandleReach::fabric_node);
    CHECK(contains(step_of(host, ProbeRung::attributes).facts, "attribute 143 is 0"));
}

TEST_CASE("A place in the fabric that is not as it should be is a warning with its check", "[probe]") {
    class Placed : public Platform {
    public:
        [[nodiscard]] std::vector<ImexChannel> imex_channels() const override { return {{}}; }
        [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view) const override { return info; }
        FabricInfo info;
    };
    class OnNode : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        [[nodiscard]] const Platform& platform() const noexcept override { return node; }
        Placed node;
    };
    struct Row {
        FabricInfo::State state;
        int status;
        std::optional<std::uint32_t> health;
        const char* check;  // empty: passed
    };
    using State = FabricInfo::State;
    for (const Row& row :
         {Row{State::completed, 0, 0xaa, ""}, Row{State::completed, 0, {}, ""}, Row{State::not_supported, 0, {}, ""},
          Row{State::completed, 3, 0xaa, "FM-FABRIC-006"}, Row{State::not_started, 0, {}, "FM-FABRIC-003"},
          Row{State::in_progress, 0, {}, "FM-FABRIC-003"}}) {
        CAPTURE(static_cast<int>(row.state), row.status);
        const auto driver = std::make_shared<OnNode>(make_emulated_driver());
        driver->node.info = {.state = row.state, .status = row.status, .health_mask = row.health};
        const ProbeResult result = probe(driver, Location::device(0));
        CHECK(result.usable());
        const ProbeStep& step = step_of(result, ProbeRung::fabric_state);
        CAPTURE(step.facts, step.cause);
        CHECK(step.state == (*row.check == '\0' ? RungState::passed : RungState::warning));
        CHECK(step.check == row.check);
    }
}

TEST_CASE("A yes is kept for good, a no for its time, and what may pass not at all", "[probe]") {
    const auto creations = [](const std::vector<std::string>& calls) { return count(calls, "mem_create"); };
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver({.devices = 2}));
    CHECK(probe(driver, Location::device(0)).usable());
    CHECK(probe(driver, Location::device(0)).usable());
    CHECK(creations(driver->calls()) == 1);
    CHECK(probe(driver, Location::device(1)).usable());
    CHECK(creations(driver->calls()) == 2);
    CHECK(probe(driver, Location::device(0), ProbeMemory::fresh).usable());
    CHECK(creations(driver->calls()) == 3);

    const auto refusing = std::make_shared<FaultDriver>(make_emulated_driver({.imex_channel = std::nullopt}));
    detail::DriverState::of(*refusing).patience.no_of_a_probe = std::chrono::hours(1);
    CHECK_FALSE(probe(refusing, Location::device(0)).usable());
    const auto tried = creations(refusing->calls());
    const ProbeResult again = probe(refusing, Location::device(0));
    CHECK(again.why_not->details().check == "FM-CHANNEL-001");
    CHECK(again.steps.size() == kRungCount);
    CHECK(creations(refusing->calls()) == tried);
    detail::DriverState::of(*refusing).patience.no_of_a_probe = std::chrono::milliseconds(0);
    CHECK_FALSE(probe(refusing, Location::device(0)).usable());
    CHECK(creations(refusing->calls()) == 2 * tried);

    const auto full = std::make_shared<FaultDriver>(make_emulated_driver());
    full->add({.call = "mem_create", .number = 1, .result = CUDA_ERROR_OUT_OF_MEMORY});
    CHECK_FALSE(probe(full, Location::device(0)).usable());
    CHECK(probe(full, Location::device(0)).usable());
}
