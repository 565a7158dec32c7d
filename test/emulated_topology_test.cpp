// SPDX-License-Identifier: Apache-2.0
// What processes of each scenario see and can do: devices, channels, reach. What fails while it runs is in
// emulated_fabric_test.cpp.
#include <fabricmem/probe.hpp>

#include <cerrno>
#include <cstring>

#include "support/buffers.hpp"
#include "support/fabric_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

ProbeResult probe_device(const std::shared_ptr<Driver>& driver, int device = 0) {
    return probe(driver, Location::device(device));
}

// A scenario of two nodes with one device each, in one NVLink domain and one IMEX domain until `change` says else.
template <typename Change>
Fabric two_nodes(Change&& change) {
    Scenario scenario;
    scenario.name = "two-nodes";
    for (const char* const name : {"a", "b"}) {
        ScenarioNode node;
        node.name = name;
        node.imex_domain = "one";
        node.channels = {ImexChannel{}};
        ScenarioDevice device;
        device.cluster = "rack";
        device.clique = 1;
        device.fabric_state = FabricInfo::State::completed;
        node.devices = {device};
        scenario.nodes.push_back(node);
    }
    change(scenario.nodes[1]);
    return make_emulated_fabric(scenario);
}

// What the second node answers to the import of the first one's memory, to its map and to access by its device.
struct Answers {
    CUresult imported = CUDA_ERROR_UNKNOWN;
    CUresult mapped = CUDA_ERROR_UNKNOWN;
    CUresult accessed = CUDA_ERROR_UNKNOWN;

    friend bool operator==(const Answers&, const Answers&) = default;
};

Answers answers_of(Driver& importer, const FabricBytes& bytes) {
    Answers answers;
    CUmemGenericAllocationHandle handle = 0;
    answers.imported = import_fabric(importer, bytes, &handle);
    if (answers.imported != CUDA_SUCCESS) return answers;
    const Mapped unmapped(importer, handle, {});
    answers.mapped = unmapped.result();
    if (answers.mapped != CUDA_SUCCESS) return answers;
    const CUmemAccessDesc access = access_for(kDevice);
    answers.accessed = importer.mem_set_access(unmapped.address(), kTwoMiB, &access, 1);
    return answers;
}

template <typename Change>
Answers answers_when(Change&& change) {
    const Fabric fabric = two_nodes(std::forward<Change>(change));
    const auto a = driver_on(fabric, "a");
    const auto b = driver_on(fabric, "b");
    const Exported memory(*a);
    return answers_of(*b, memory.bytes());
}

std::optional<Error> import_error(const std::shared_ptr<Driver>& exporter, const std::shared_ptr<Driver>& importer,
                                  const Location& location = Location::device(0)) {
    const FabricBuffer buffer(exporter, 1, {.location = location});
    return error_of([&] { const ImportedFabricBuffer peer(importer, buffer.blob()); });
}

}  // namespace

TEST_CASE("On the single H100 without a channel fabric memory is not permitted, and why is said", "[emulated]") {
    const auto driver = driver_on(ready_made("single-h100-no-channel"), "node0");
    CHECK(driver->platform().imex_channels().empty());
    CHECK(try_create(*driver) == CUDA_ERROR_NOT_PERMITTED);
    CHECK(try_create(*driver, device_memory(kPosixFd)) == CUDA_SUCCESS);
    const ProbeResult result = probe_device(driver);
    REQUIRE(result.why_not.has_value());
    CHECK(result.why_not->kind() == ErrorKind::not_permitted);
    CHECK(contains(result.why_not->what(), "sees no IMEX channel node"));
}

TEST_CASE("On the single H100 with a channel fabric memory works, and NVML tells state 0", "[emulated]") {
    const auto driver = driver_on(ready_made("single-h100"), "node0");
    CHECK(probe_device(driver).usable());
    CHECK(attribute_of(*driver, 128) == 1);
    CHECK(attribute_of(*driver, 143) == 0);
    const FabricInfo info = info_of(*driver);
    CHECK(info.state == FabricInfo::State::not_supported);
    CHECK(info.cluster_uuid.is_zero());
    CHECK(info.clique == 0);
}

TEST_CASE("The HGX box has eight devices that reach each other, and no cluster", "[emulated]") {
    const auto driver = driver_on(ready_made("hgx-h100"), "node0");
    int count = 0;
    REQUIRE(driver->device_get_count(&count) == CUDA_SUCCESS);
    CHECK(count == 8);
    for (int device = 0; device < 8; ++device) {
        CHECK(attribute_of(*driver, 134, device) == device / 4);
        CHECK(info_of(*driver, device).state == FabricInfo::State::completed);
        CHECK(info_of(*driver, device).cluster_uuid.is_zero());
        CHECK(info_of(*driver, device).health_mask == 0xaaU);
    }
    const FabricBuffer buffer(driver, 1, {.location = Location::device(5)});
    CHECK(buffer.access().devices.size() == 8);
}

TEST_CASE("Every node of the NVL72 imports every other node's device and host memory", "[emulated]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    REQUIRE(fabric->scenario().nodes.size() == 18);
    const auto exporter = driver_on(fabric, "node3");
    CHECK(attribute_of(*exporter, 143) == 1);
    const FabricBuffer device(exporter, 1, {.location = Location::device(2), .zeroing = Zeroing::memset});
    const FabricBuffer host(exporter, 1, {.location = Location::host_numa(1)});
    REQUIRE(host.access().host);
    static_cast<unsigned char*>(host.address())[0] = 7;
    for (const ScenarioNode& node : fabric->scenario().nodes) {
        INFO(node.name);
        const auto importer = driver_on(fabric, node.name);
        const PrimaryContext context(importer, 0);
        const ImportedFabricBuffer peer(importer, device.blob());
        CHECK(peer.access().devices == std::vector<int>{0, 1, 2, 3});
        CHECK(read_back(*importer, peer)[0] == 0);
        const bool here = node.name == "node3";
        CHECK(peer.location() == Location::device(here ? 2 : -1));
        const QuietLog quiet;  // host access to another node's memory is refused, and gone without
        const ImportedFabricBuffer peers_host(importer, host.blob());
        CHECK(peers_host.access().host == here);
        CHECK(read_back(*importer, peers_host)[0] == 7);
    }
}

TEST_CASE("Another node's device is imported under no ordinal, and its location says so", "[emulated]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const auto exporter = driver_on(fabric, "node0");
    // The importer sees one device, and the exporter's number 3 is none of its.
    const auto importer = make_emulated_driver(fabric, {.node = "node1", .visible_devices = {{1}}});
    const Exported memory(*exporter, memory_at(kDevice, 3, kFabric));
    const Mapped peer(*importer, imported(*importer, memory.bytes()), {access_for(kDevice)});
    REQUIRE(peer.result() == CUDA_SUCCESS);
    CUmemAllocationProp properties{};
    REQUIRE(importer->mem_get_allocation_properties_from_handle(&properties, peer.handle()) == CUDA_SUCCESS);
    CHECK(static_cast<int>(properties.location.type) == kDevice);
    CHECK(properties.location.id == -2);
    int ordinal = 0;
    CHECK(importer->pointer_get_attribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, peer.address()) ==
          CUDA_SUCCESS);
    CHECK(ordinal == -2);
}

TEST_CASE("Two racks share a clique number and no memory", "[emulated]") {
    const Fabric fabric = ready_made("two-racks");
    const auto here = driver_on(fabric, "rack0-node0");
    const auto beside = driver_on(fabric, "rack0-node1");
    const auto there = driver_on(fabric, "rack1-node0");
    CHECK(info_of(*here).clique == info_of(*there).clique);
    CHECK(info_of(*here).cluster_uuid == info_of(*beside).cluster_uuid);
    CHECK(info_of(*here).cluster_uuid != info_of(*there).cluster_uuid);
    CHECK(!import_error(here, beside).has_value());
    const auto error = import_error(here, there);
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_INVALID_HANDLE);
    CHECK(error->kind() == ErrorKind::foreign_domain);
    CHECK(contains(error->what(), "different NVLink domains"));
}

TEST_CASE("In the mixed box three devices have fabric handles and the fourth silently has none", "[emulated]") {
    const auto driver = driver_on(ready_made("mixed-box"), "node0");
    CHECK(attribute_of(*driver, 128, 2) == 1);
    CHECK(attribute_of(*driver, 128, 3) == 0);
    CHECK(probe_device(driver, 2).usable());
    CHECK(try_create(*driver, memory_at(kDevice, 3, kFabric)) == CUDA_SUCCESS);
    const ProbeResult result = probe_device(driver, 3);
    REQUIRE(result.why_not.has_value());
    CHECK(result.why_not->kind() == ErrorKind::unsupported);
    CHECK(contains(result.why_not->what(), "silently granted none"));
    CHECK(probe(driver, Location::host_numa(0)).usable());
}

TEST_CASE("A device without P2P access to the memory is refused, and not asked for by default", "[emulated]") {
    const auto driver = driver_on(ready_made("mixed-box"), "node0");
    int can_access = -1;
    CHECK(driver->device_can_access_peer(&can_access, 0, 1) == CUDA_SUCCESS);
    CHECK(can_access == 1);
    CHECK(driver->device_can_access_peer(&can_access, 3, 1) == CUDA_SUCCESS);
    CHECK(can_access == 0);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice, 3, 1)});
    CHECK(memory.result() == CUDA_SUCCESS);
    const CUmemAccessDesc access = access_for(kDevice, 3, 3);
    CHECK(driver->mem_set_access(memory.address(), kTwoMiB, &access, 1) == CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    const CUmemAccessDesc host = access_for(kHostNuma);
    CHECK(driver->mem_set_access(memory.address(), kTwoMiB, &host, 1) == CUDA_ERROR_NOT_SUPPORTED);
    const FabricBuffer buffer(driver, 1, {.location = Location::device(0)});
    CHECK(buffer.access().devices == std::vector<int>{0, 1, 2});
    const auto error = error_of(
        [&] { const FabricBuffer other(driver, 1, {.location = Location::device(0), .access = std::vector<int>{3}}); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(contains(error->what(), "no P2P access"));
    const FabricBuffer on_host(driver, 1, {.location = Location::host_numa(0)});
    CHECK(on_host.access().devices == std::vector<int>{0, 1, 2, 3});
}

TEST_CASE("Without any P2P pair a device reaches its own memory alone", "[emulated]") {
    Scenario scenario = Scenario::ready_made("hgx-h100");
    scenario.nodes.front().p2p = std::vector<DevicePair>();
    const auto driver = make_emulated_driver(make_emulated_fabric(scenario));
    const FabricBuffer buffer(driver, 1, {.location = Location::device(5)});
    CHECK(buffer.access().devices == std::vector<int>{5});
    const PrimaryContext context(driver, 4);
    CUdeviceptr address = 0;
    REQUIRE(driver->mem_alloc(&address, 64) == CUDA_SUCCESS);
    {
        const PrimaryContext other(driver, 5);
        CHECK(driver->memset_d8(address, 1, 64) == CUDA_ERROR_INVALID_VALUE);
    }
    CHECK(driver->memset_d8(address, 1, 64) == CUDA_SUCCESS);
    CHECK(driver->mem_free(address) == CUDA_SUCCESS);
}

TEST_CASE("On a coherent node the CPU loads and stores device memory", "[emulated]") {
    const auto driver = driver_on(ready_made("gb200-nvl72"), "node0");
    const PrimaryContext context(driver, 0);
    const FabricBuffer buffer(driver, 64, {.location = Location::device(0), .host_access = HostAccess::required});
    REQUIRE(buffer.access().host);
    auto* const bytes = static_cast<volatile unsigned char*>(buffer.address());
    bytes[3] = 9;
    CHECK(read_back(*driver, buffer)[3] == 9);
    REQUIRE(driver->memset_d8(pointer(buffer), 5, 64) == CUDA_SUCCESS);
    CHECK(bytes[3] == 5);
}

TEST_CASE("A process's ordinals follow what it sees, and what travels does not", "[emulated]") {
    const Fabric fabric = ready_made("hgx-h100");
    const auto all = make_emulated_driver(fabric);
    const auto turned = make_emulated_driver(fabric, {.visible_devices = {{6, 2}}});
    const auto uuid = [](Driver& driver, int device) {
        CUuuid id{};
        REQUIRE(driver.device_get_uuid(&id, device) == CUDA_SUCCESS);
        return std::string(id.bytes, sizeof id.bytes);
    };
    CHECK(uuid(*turned, 0) == uuid(*all, 6));
    CHECK(uuid(*turned, 1) == uuid(*all, 2));
    CHECK(uuid(*turned, 0) != uuid(*turned, 1));
    CHECK(attribute_of(*turned, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 0) ==
          attribute_of(*all, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 6));
    CHECK(attribute_of(*turned, 134, 0) == 1);
    CHECK(attribute_of(*turned, 134, 1) == 0);
    const auto bus_id = [](Driver& driver, int device) {
        char text[32];
        REQUIRE(driver.device_get_pci_bus_id(text, sizeof text, device) == CUDA_SUCCESS);
        return std::string(text);
    };
    CHECK(bus_id(*turned, 0) == bus_id(*all, 6));
    CHECK(turned->platform().fabric_info(bus_id(*all, 5)).has_value());  // NVML sees what CUDA does not

    const FabricBuffer buffer(all, 1, {.location = Location::device(2)});
    const ImportedFabricBuffer peer(turned, buffer.blob());
    CHECK(peer.location() == Location::device(1));
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(turned->mem_retain_allocation_handle(&handle, peer.address()) == CUDA_SUCCESS);
    CUmemAllocationProp properties{};
    REQUIRE(turned->mem_get_allocation_properties_from_handle(&properties, handle) == CUDA_SUCCESS);
    CHECK(properties.location.id == 1);
    CHECK(turned->mem_release(handle) == CUDA_SUCCESS);

    const Exported own(*turned);
    handle = imported(*all, own.bytes());
    REQUIRE(all->mem_get_allocation_properties_from_handle(&properties, handle) == CUDA_SUCCESS);
    CHECK(properties.location.id == 6);
    CHECK(all->mem_release(handle) == CUDA_SUCCESS);

    // By descriptor too.
    const Mapped shared(*all, memory_at(kDevice, 6, kPosixFd), {});
    int descriptor = -1;
    REQUIRE(all->mem_export_to_shareable_handle(&descriptor, shared.handle(), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                                0) == CUDA_SUCCESS);
    REQUIRE(turned->mem_import_from_shareable_handle(&handle, reinterpret_cast<void*>(std::intptr_t{descriptor}),
                                                     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == CUDA_SUCCESS);
    close_descriptor(descriptor);
    REQUIRE(turned->mem_get_allocation_properties_from_handle(&properties, handle) == CUDA_SUCCESS);
    CHECK(properties.location.id == 0);
    CHECK(turned->mem_release(handle) == CUDA_SUCCESS);
}

TEST_CASE("Memory of a device of the same node that the process does not see is INVALID_DEVICE", "[emulated]") {
    const Fabric fabric = ready_made("hgx-h100");
    const auto exporter = make_emulated_driver(fabric);
    const auto importer = make_emulated_driver(fabric, {.visible_devices = {{1}}});
    const auto error = import_error(exporter, importer);
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_INVALID_DEVICE);
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(contains(error->what(), "does not see the exporter's GPU"));
    const Mapped shared(*exporter, device_memory(kPosixFd), {});
    int descriptor = -1;
    REQUIRE(exporter->mem_export_to_shareable_handle(&descriptor, shared.handle(),
                                                     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) == CUDA_SUCCESS);
    CUmemGenericAllocationHandle handle = 0;
    CHECK(importer->mem_import_from_shareable_handle(&handle, reinterpret_cast<void*>(std::intptr_t{descriptor}),
                                                     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) ==
          CUDA_ERROR_INVALID_DEVICE);
    close_descriptor(descriptor);
    CHECK(emulated_counts(*importer) == EmulatedCounts{});
}

TEST_CASE("The context of a device that is not the node's first takes its own memory with it", "[emulated]") {
    const auto driver = make_emulated_driver(ready_made("hgx-h100"), {.visible_devices = {{6, 2}}});
    {
        const PrimaryContext context(driver, 1);
        CUdeviceptr address = 0;
        REQUIRE(driver->mem_alloc(&address, 64) == CUDA_SUCCESS);
        const PrimaryContext other(driver, 0);
    }
    CHECK(emulated_counts(*driver).allocations == 0);
}

TEST_CASE("A process takes the lowest channel that it can open, and keeps it", "[emulated]") {
    Scenario scenario = Scenario::ready_made("single-h100");
    scenario.nodes.front().channels = {{.number = 9, .open_errno = 0, .major_matches = true},
                                       {.number = 3, .open_errno = 0, .major_matches = true},
                                       {.number = 1, .open_errno = EACCES, .major_matches = true},
                                       {.number = 2, .open_errno = 0, .major_matches = false}};
    const Fabric fabric = make_emulated_fabric(scenario);
    const auto first = make_emulated_driver(fabric);
    CHECK(first->platform().imex_channels().size() == 4);
    CHECK(first->platform().imex_channels().front().number == 1);
    const FabricBuffer buffer(first, 1, {.location = Location::device(0)});
    CHECK(buffer.blob().imex_channel == 3);

    const auto other = make_emulated_driver(fabric, {.imex_channel = 9});
    const Exported memory(*first);
    CHECK(try_import(*other, memory.bytes()) == CUDA_ERROR_NOT_PERMITTED);
    CHECK(kind_of([&] { static_cast<void>(make_emulated_driver(fabric, {.imex_channel = 1})); }) ==
          ErrorKind::bad_argument);

    fabric->set_channels("node0", ChannelNodes::absent);
    CHECK(first->platform().imex_channels().empty());
    CHECK(try_create(*first) == CUDA_SUCCESS);
    CHECK(try_create(*make_emulated_driver(fabric)) == CUDA_ERROR_NOT_PERMITTED);
}

TEST_CASE("A channel that is not openable, or of another boot, is told apart", "[emulated]") {
    const auto text_with = [](const ImexChannel& channel) {
        Scenario scenario = Scenario::ready_made("single-h100");
        scenario.nodes.front().channels = {channel};
        const ProbeResult result = probe_device(make_emulated_driver(make_emulated_fabric(scenario)));
        REQUIRE(result.why_not.has_value());
        CHECK(result.why_not->code() == CUDA_ERROR_NOT_PERMITTED);
        return std::string(result.why_not->what());
    };
    CHECK(contains(text_with({.number = 0, .open_errno = EACCES, .major_matches = true}), "mode or owner"));
    CHECK(contains(text_with({.number = 0, .open_errno = EPERM, .major_matches = true}), "cgroup"));
    CHECK(contains(text_with({.number = 0, .open_errno = 0, .major_matches = false}), "stale major"));
}

TEST_CASE("Memory travels within a clique, and each wrong domain has its own answer", "[emulated]") {
    CHECK(answers_when([](ScenarioNode&) {}) == Answers{CUDA_SUCCESS, CUDA_SUCCESS, CUDA_SUCCESS});
    // Another cluster, or none.
    CHECK(answers_when([](ScenarioNode& node) { node.devices[0].cluster = "other"; }).imported ==
          CUDA_ERROR_INVALID_HANDLE);
    CHECK(answers_when([](ScenarioNode& node) { node.devices[0].cluster = ""; }).imported == CUDA_ERROR_INVALID_HANDLE);
    // Another clique of the same cluster: noticed by the map.
    CHECK(answers_when([](ScenarioNode& node) { node.devices[0].clique = 2; }) ==
          Answers{CUDA_SUCCESS, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_UNKNOWN});
    // Another IMEX domain: by the import; on one clique by the access.
    CHECK(answers_when([](ScenarioNode& node) {
              node.imex_domain = "other";
              node.devices[0].clique = 2;
          }).imported == CUDA_ERROR_INVALID_HANDLE);
    CHECK(answers_when([](ScenarioNode& node) { node.imex_domain = "other"; }) ==
          Answers{CUDA_SUCCESS, CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE});
    // No daemon at all.
    CHECK(answers_when([](ScenarioNode& node) { node.imex_domain = ""; }).imported == CUDA_ERROR_NOT_READY);
}

TEST_CASE("Only the devices of the exporter's clique get access", "[emulated]") {
    const Fabric fabric = two_nodes([](ScenarioNode& node) {
        node.devices.resize(3, node.devices[0]);
        node.devices[1].clique = 2;
        node.devices[2].fabric = FabricAttribute::unsupported;
    });
    const auto exporter = driver_on(fabric, "a");
    const auto importer = driver_on(fabric, "b");
    const Exported memory(*exporter);
    const Mapped peer(*importer, imported(*importer, memory.bytes()), {access_for(kDevice, 3, 0)});
    CHECK(peer.result() == CUDA_SUCCESS);
    for (const int device : {1, 2}) {
        const CUmemAccessDesc access = access_for(kDevice, 3, device);
        CHECK(importer->mem_set_access(peer.address(), kTwoMiB, &access, 1) == CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    }
}

TEST_CASE("The library names foreign cliques and two IMEX domains as the cause", "[emulated]") {
    const auto text_when = [](auto change) {
        const Fabric fabric = two_nodes(change);
        const auto error = import_error(driver_on(fabric, "a"), driver_on(fabric, "b"));
        REQUIRE(error.has_value());
        INFO(error->what());
        CHECK(error->kind() == ErrorKind::foreign_domain);
        return std::string(error->what());
    };
    CHECK(contains(text_when([](ScenarioNode& node) { node.devices[0].clique = 2; }),
                   "different NVLink domains or cliques"));
    CHECK(contains(text_when([](ScenarioNode& node) { node.imex_domain = "other"; }), "two IMEX domains"));
}

TEST_CASE("Host memory travels to other nodes only where both nodes can", "[emulated]") {
    const auto answer_when = [](HostMemoryReach exporters, HostMemoryReach importers) {
        Scenario scenario = Scenario::ready_made("two-racks");
        scenario.nodes[0].host_memory = exporters;
        scenario.nodes[1].host_memory = importers;
        const Fabric fabric = make_emulated_fabric(scenario);
        const auto exporter = driver_on(fabric, scenario.nodes[0].name);
        const Exported memory(*exporter, host_memory(kFabric));
        CHECK(try_import(*exporter, memory.bytes()) == CUDA_SUCCESS);
        return try_import(*driver_on(fabric, scenario.nodes[1].name), memory.bytes());
    };
    CHECK(answer_when(HostMemoryReach::node, HostMemoryReach::node) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(answer_when(HostMemoryReach::node, HostMemoryReach::fabric) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(answer_when(HostMemoryReach::fabric, HostMemoryReach::node) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(answer_when(HostMemoryReach::fabric, HostMemoryReach::fabric) == CUDA_SUCCESS);
}

TEST_CASE("Nodes without a cluster do not reach each other, also in one IMEX domain", "[emulated]") {
    Scenario scenario = Scenario::ready_made("two-racks");
    for (ScenarioNode& node : scenario.nodes) {
        for (ScenarioDevice& device : node.devices) device.cluster.clear();
    }
    const Fabric fabric = make_emulated_fabric(scenario);
    const auto exporter = driver_on(fabric, scenario.nodes[0].name);
    const Exported memory(*exporter);
    CHECK(try_import(*driver_on(fabric, scenario.nodes[1].name), memory.bytes()) == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE("A handle of another fabric is INVALID_HANDLE", "[emulated]") {
    const Fabric fabric = ready_made("single-h100");
    const auto driver = make_emulated_driver(fabric);
    const Exported memory(*driver);
    CHECK(try_import(*make_emulated_driver(fabric), memory.bytes()) == CUDA_SUCCESS);
    // The same scenario run a second time, another scenario, and no scenario at all.
    CHECK(try_import(*make_emulated_driver(ready_made("single-h100")), memory.bytes()) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(try_import(*make_emulated_driver(ready_made("hgx-h100")), memory.bytes()) == CUDA_ERROR_INVALID_HANDLE);
    const auto alone = make_emulated_driver();
    CHECK(try_import(*alone, memory.bytes()) == CUDA_ERROR_INVALID_HANDLE);
    const Exported other(*alone);
    CHECK(try_import(*driver, other.bytes()) == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE("Nodes differ in host, boot and devices, and processes of one node agree", "[emulated]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const auto one = driver_on(fabric, "node1");
    const auto also_one = driver_on(fabric, "node1");
    const auto two = driver_on(fabric, "node2");
    CHECK(one->platform().host_id() == also_one->platform().host_id());
    CHECK(one->platform().boot_id() == also_one->platform().boot_id());
    CHECK(one->platform().host_id() != two->platform().host_id());
    CHECK(one->platform().boot_id() != two->platform().boot_id());
    CUuuid first{};
    CUuuid second{};
    REQUIRE(one->device_get_uuid(&first, 0) == CUDA_SUCCESS);
    REQUIRE(two->device_get_uuid(&second, 0) == CUDA_SUCCESS);
    CHECK(std::memcmp(first.bytes, second.bytes, sizeof first.bytes) != 0);
    CHECK(emulated_place(*one) == "scenario gb200-nvl72, node node1");
    CHECK(emulated_place(*make_emulated_driver()).empty());
}

TEST_CASE("A process that can't join is refused with the reason", "[emulated]") {
    const Fabric fabric = ready_made("hgx-h100");
    const auto refusal = [&](const EmulatedProcess& process) {
        return kind_of([&] { static_cast<void>(make_emulated_driver(fabric, process)); });
    };
    CHECK(refusal({.node = "node9"}) == ErrorKind::bad_argument);
    CHECK(refusal({.visible_devices = {{8}}}) == ErrorKind::bad_argument);
    CHECK(refusal({.visible_devices = {{-1}}}) == ErrorKind::bad_argument);
    CHECK(refusal({.visible_devices = {{1, 1}}}) == ErrorKind::bad_argument);
    CHECK(refusal({.visible_devices = std::vector<int>()}) == ErrorKind::unsupported);
    CHECK(kind_of([] { static_cast<void>(make_emulated_driver(nullptr)); }) == ErrorKind::bad_argument);
    Scenario failed = Scenario::ready_made("hgx-h100");
    failed.nodes.front().devices[3].fabric_status = 1;
    CHECK(kind_of([&] { static_cast<void>(make_emulated_driver(make_emulated_fabric(failed))); }) == ErrorKind::system);
    CHECK(any_call(*make_emulated_driver(make_emulated_fabric(failed), {.visible_devices = {{2, 4}}})) == CUDA_SUCCESS);
    const Scenario bare = Scenario::from_json(R"({"nodes": [{"name": "a", "devices": []}]})");
    CHECK(kind_of([&] { static_cast<void>(make_emulated_driver(make_emulated_fabric(bare))); }) ==
          ErrorKind::unsupported);
    Scenario wrong = bare;
    wrong.nodes.front().name = "";
    CHECK(kind_of([&] { static_cast<void>(make_emulated_fabric(wrong)); }) == ErrorKind::bad_argument);
}
