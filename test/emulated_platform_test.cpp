// SPDX-License-Identifier: Apache-2.0
// What the Platform of an emulated node tells of its kernel module and by NVML, and what a channel count does.
#include <cerrno>
#include <cstring>

#include "support/fabric_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// The single H100, changed.
template <typename Change>
Fabric single_h100_with(Change change) {
    Scenario scenario = Scenario::ready_made("single-h100");
    change(scenario.nodes.front());
    return make_emulated_fabric(scenario);
}

// CUDA's words for a device, as NVML spells them.
NvmlDevice by_cuda(Driver& driver, int ordinal) {
    NvmlDevice device;
    char text[256];
    REQUIRE(driver.device_get_pci_bus_id(text, sizeof text, ordinal) == CUDA_SUCCESS);
    device.pci_bus_id = text;
    REQUIRE(driver.device_get_name(text, sizeof text, ordinal) == CUDA_SUCCESS);
    device.name = text;
    CUuuid uuid{};
    REQUIRE(driver.device_get_uuid(&uuid, ordinal) == CUDA_SUCCESS);
    std::memcpy(device.uuid.bytes.data(), uuid.bytes, sizeof uuid.bytes);
    return device;
}

}  // namespace

TEST_CASE("An emulated node's NVML lists all its devices, by CUDA's names and ids", "[emulated]") {
    Scenario scenario = Scenario::ready_made("hgx-h100");
    scenario.nodes.front().devices[6].name = "NVIDIA H200";
    const Fabric fabric = make_emulated_fabric(scenario);
    const auto all = make_emulated_driver(fabric);
    const auto turned = make_emulated_driver(fabric, {.visible_devices = {{6, 2}}});
    const NvmlFacts facts = turned->platform().nvml().value();
    CHECK(facts.driver_version == "580.159.04");
    REQUIRE(facts.devices.size() == 8);
    const auto check_same = [&](std::size_t number, Driver& driver, int ordinal) {
        CAPTURE(number);
        const NvmlDevice cuda = by_cuda(driver, ordinal);
        CHECK(facts.devices[number].pci_bus_id == cuda.pci_bus_id);
        CHECK(facts.devices[number].name == cuda.name);
        CHECK(facts.devices[number].uuid == cuda.uuid);
    };
    for (int device = 0; device < 8; ++device) check_same(static_cast<std::size_t>(device), *all, device);
    check_same(6, *turned, 0);
    check_same(2, *turned, 1);
    CHECK(facts.devices[6].name == "NVIDIA H200");
    CHECK(facts.devices[2].name == "Emulated GPU");
}

TEST_CASE("An emulated bus id has capitals, as CUDA's, and is found in small letters too", "[emulated]") {
    const auto driver = make_emulated_driver(EmulatedOptions{.devices = 12});
    CHECK(by_cuda(*driver, 9).pci_bus_id == "0000:0A:00.0");
    CHECK(driver->platform().fabric_info("0000:0A:00.0"));
    CHECK(driver->platform().fabric_info("0000:0a:00.0"));
    CHECK(!driver->platform().fabric_info("0000:0A:00.00"));
    CHECK(!driver->platform().fabric_info("0000:0A:00"));
    CHECK(!driver->platform().fabric_info(""));
    CHECK(!driver->platform().fabric_info("0000:0D:00.0"));
}

TEST_CASE("A device outlives a lost node under its name, and another node's is another", "[emulated]") {
    const Fabric fabric = ready_made("two-racks");
    const auto uuid_on = [&](const char* node) {
        return driver_on(fabric, node)->platform().nvml().value().devices.at(0).uuid;
    };
    const Id128 before = uuid_on("rack0-node0");
    CHECK(uuid_on("rack0-node1") != before);
    fabric->set_node("rack0-node0", NodeLife::lost);
    fabric->set_node("rack0-node0", NodeLife::up);
    CHECK(uuid_on("rack0-node0") == before);
}

TEST_CASE("What NVML tells of emulated devices follows the scenario and its switches", "[emulated]") {
    Scenario scenario = Scenario::ready_made("gb200-nvl72");
    scenario.nodes[0].driver_version = "595.45.04";
    scenario.nodes[0].devices[3].recovery_action = 4;
    const Fabric fabric = make_emulated_fabric(scenario);
    const auto driver = driver_on(fabric, "node0");
    const auto device = [&](std::size_t number) { return driver->platform().nvml().value().devices.at(number); };
    CHECK(driver->platform().nvml().value().driver_version == "595.45.04");
    CHECK(!device(0).recovery_action);
    CHECK(device(3).recovery_action == 4U);
    CHECK(device(3).fabric.value().state == FabricInfo::State::completed);
    CHECK(device(3).fabric->clique == 32766);

    fabric->set_clique("node0", 7U);
    fabric->set_health_mask("node0", 0xa9U);
    fabric->set_recovery_action("node0", 5U);
    CHECK(device(0).recovery_action == 5U);
    CHECK(device(3).recovery_action == 5U);
    CHECK(device(3).fabric.value().clique == 7);
    CHECK(device(3).fabric->health_mask == 0xa9U);
    CHECK(driver_on(fabric, "node1")->platform().nvml().value().devices.at(0).recovery_action == std::nullopt);
    fabric->set_fabric_state("node0", FabricInfo::State::in_progress);
    CHECK(device(3).fabric.value().state == FabricInfo::State::in_progress);

    fabric->set_recovery_action("node0", std::nullopt);
    CHECK(!device(0).recovery_action);
    CHECK(device(3).recovery_action == 4U);
}

TEST_CASE("Where an emulated node has no NVML nothing is known by it, and memory is had all the same", "[emulated]") {
    const Fabric fabric = single_h100_with([](ScenarioNode& node) { node.nvml = NvmlLibrary::absent; });
    const auto driver = make_emulated_driver(fabric);
    CHECK(!driver->platform().nvml());
    CHECK(!driver->platform().fabric_info(by_cuda(*driver, 0).pci_bus_id));
    CHECK(driver->platform().kernel_module());
    CHECK(try_create(*driver) == CUDA_SUCCESS);
    const auto with = make_emulated_driver(single_h100_with([](ScenarioNode&) {}));
    CHECK(with->platform().fabric_info(by_cuda(*with, 0).pci_bus_id));
}

TEST_CASE("An emulated node's kernel module is what its scenario says", "[emulated]") {
    const auto module_with = [](const auto& change) {
        return make_emulated_driver(single_h100_with(change))->platform().kernel_module().value();
    };
    const KernelModule usual = module_with([](ScenarioNode&) {});
    CHECK(usual.version == "580.159.04");
    CHECK(usual.imex_channel_count == 2048U);
    CHECK(usual.imex_channel_major.has_value());
    const KernelModule other = module_with([](ScenarioNode& node) {
        node.driver_version = "";
        node.imex_channel_count = 0;
    });
    CHECK(other.version.empty());
    CHECK(other.imex_channel_count == 0U);
    CHECK(!other.imex_channel_major);
    CHECK(make_emulated_driver()->platform().kernel_module().value().imex_channel_count == 2048U);
}

TEST_CASE("A channel from the count on can't be opened", "[emulated]") {
    const auto with_count = [](std::uint32_t count) {
        return make_emulated_driver(single_h100_with([count](ScenarioNode& node) {
            node.imex_channel_count = count;
            node.channels = {{.number = 4}, {.number = 2100}};
        }));
    };
    const auto errors = [](const Driver& driver) {
        std::vector<int> all;
        for (const ImexChannel& channel : driver.platform().imex_channels()) all.push_back(channel.open_errno);
        return all;
    };
    const auto all = with_count(2101);
    CHECK(errors(*all) == std::vector<int>{0, 0});
    CHECK(errors(*with_count(2100)) == std::vector<int>{0, ENXIO});
    CHECK(errors(*with_count(5)) == std::vector<int>{0, ENXIO});
    const auto none = with_count(4);
    CHECK(errors(*none) == std::vector<int>{ENXIO, ENXIO});
    CHECK(try_create(*all) == CUDA_SUCCESS);
    CHECK(try_create(*none) == CUDA_ERROR_NOT_PERMITTED);
}

TEST_CASE("With a channel count of 0 fabric memory is not supported, and other memory is", "[emulated]") {
    const auto driver = make_emulated_driver(single_h100_with([](ScenarioNode& node) { node.imex_channel_count = 0; }));
    CHECK(try_create(*driver) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_create(*driver, device_memory(kFabric | kPosixFd)) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_create(*driver, host_memory(kFabric)) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_create(*driver, device_memory(kPosixFd)) == CUDA_SUCCESS);

    Scenario racks = Scenario::ready_made("two-racks");
    racks.nodes[1].imex_channel_count = 0;
    const Fabric fabric = make_emulated_fabric(racks);
    const auto exporter = driver_on(fabric, "rack0-node0");
    const Exported memory(*exporter);
    CHECK(try_import(*driver_on(fabric, "rack0-node1"), memory.bytes()) == CUDA_ERROR_NOT_PERMITTED);
}
