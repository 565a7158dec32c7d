// SPDX-License-Identifier: Apache-2.0
// Scenarios as values and as JSON. What runs on them is in emulated_topology_test.cpp.
#include <fabricmem/emulated_scenario.hpp>

#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr const char* kGolden = R"({
  "name": "single-h100",
  "latency": "none",
  "latency_factor": 1.0,
  "nodes": [
    {
      "name": "node0",
      "driver_version": "580.159.04",
      "nvml": "present",
      "imex_domain": "",
      "imex_channel_count": 2048,
      "channels": [
        {
          "number": 0,
          "open_errno": 0,
          "major_matches": true
        }
      ],
      "coherent": false,
      "host_memory_across_nodes": false,
      "p2p": "all",
      "numa_node_bytes": [
        68719476736
      ],
      "devices": [
        {
          "name": "Emulated GPU",
          "memory_bytes": 85899345920,
          "fabric": true,
          "cluster": "",
          "clique": 0,
          "numa_node": 0,
          "fabric_state": "not_supported",
          "fabric_status": 0
        }
      ]
    }
  ]
}
)";

// A scenario of one node, whose fields are those given; and one of one device.
std::string with_node(const std::string& fields) { return R"({"nodes": [{)" + fields + "}]}"; }
std::string with_device(const std::string& fields) {
    return with_node(R"("name": "a", "devices": [{)" + fields + "}]");
}

struct Wrong {
    std::string json;
    std::string path;
};

const std::vector<Wrong>& wrong_ones() {
    static const std::string named = R"("name": "a", "devices": [], )";
    static const std::vector<Wrong> all{
        {"", "text is not JSON"},
        {"[]", "text is not an object"},
        {"{} {}", "text is not JSON"},
        {std::string("{}\0", 3), "text has a NUL byte"},
        {std::string((4 << 20) + 1, ' '), "text is longer"},
        {"{}", "/nodes is missing"},
        {R"({"nodes": {}})", "/nodes is not an array"},
        {R"({"nodes": []})", "/nodes has 0 entries"},
        {R"({"nodes": [3]})", "/nodes/0 is not an object"},
        {R"({"nodes": [], "noodles": []})", "/noodles is not a known field"},
        {R"({"nodes": [], "name": 3})", "/name is not a string"},
        {R"({"nodes": [], "name": "two words"})", "/name has a blank"},
        {R"({"nodes": [], "switches": false})", "/switches is not a string"},
        {R"({"nodes": [], "latency": "slow"})", "/latency is neither"},
        {R"({"nodes": [], "latency_factor": "2"})", "/latency_factor is not a number"},
        {R"({"nodes": [], "latency_factor": -1})", "/latency_factor is not 0 to"},
        {R"({"nodes": [], "latency_factor": 1e300})", "/latency_factor is not 0 to"},
        {with_node(R"("devices": [])"), "/nodes/0/name is missing"},
        {with_node(R"("name": "", "devices": [])"), "/nodes/0/name is empty"},
        {with_node(R"("name": "\u00e4", "devices": [])"), "/nodes/0/name has"},
        {with_node(R"("name": ")" + std::string(256, 'a') + R"(", "devices": [])"), "/nodes/0/name is longer"},
        {with_node(R"("name": "a")"), "/nodes/0/devices is missing"},
        {with_node(named + R"("device": [])"), "/nodes/0/device is not a known field"},
        {with_node(named + R"("imex_domain": null)"), "/nodes/0/imex_domain is not a string"},
        {with_node(named + R"("driver_version": 580)"), "/nodes/0/driver_version is not a string"},
        {with_node(named + R"("driver_version": "580 159")"), "/nodes/0/driver_version has a blank"},
        {with_node(named + R"("nvml": true)"), "/nodes/0/nvml is not a string"},
        {with_node(named + R"("nvml": "gone")"), "/nodes/0/nvml is neither"},
        {with_node(named + R"("imex_channel_count": 65537)"), "/nodes/0/imex_channel_count is 65537"},
        {with_node(named + R"("imex_channel_count": -1)"), "/nodes/0/imex_channel_count is not a whole number"},
        {with_node(named + R"("channels": [{}])"), "/nodes/0/channels/0/number is missing"},
        {with_node(named + R"("channels": [{"number": -1}])"), "/nodes/0/channels/0/number is not a whole number"},
        {with_node(named + R"("channels": [{"number": 65536}])"), "/nodes/0/channels/0/number is 65536"},
        {with_node(named + R"("channels": [{"number": 1}, {"number": 1}])"),
         "/nodes/0/channels/1/number is there twice"},
        {with_node(named + R"("channels": [{"number": 1, "open_errno": "EWHAT"}])"),
         "/nodes/0/channels/0/open_errno is neither"},
        {with_node(named + R"("channels": [{"number": 1, "open_errno": 4096}])"),
         "/nodes/0/channels/0/open_errno is 4096"},
        {with_node(named + R"("channels": [{"number": 1, "major_matches": 1}])"),
         "/nodes/0/channels/0/major_matches is not true or false"},
        {with_node(named + R"("channels": [{"number": 1, "mode": 1}])"),
         "/nodes/0/channels/0/mode is not a known field"},
        {with_node(named + R"("coherent": "yes")"), "/nodes/0/coherent is not true or false"},
        {with_node(named + R"("host_memory_across_nodes": 1)"), "/nodes/0/host_memory_across_nodes is not true"},
        {with_node(named + R"("p2p": "some")"), "/nodes/0/p2p is neither"},
        {with_node(named + R"("p2p": [[0]])"), "/nodes/0/p2p/0 is not a pair"},
        {with_node(named + R"("p2p": [[0, 0]])"), "/nodes/0/p2p/0/0 is 0"},
        {with_node(named + R"("numa_node_bytes": [])"), "/nodes/0/numa_node_bytes has 0 entries"},
        {with_node(named + R"("numa_node_bytes": [281474976710656])"), "/nodes/0/numa_node_bytes/0 is 281474976710656"},
        {with_device(R"("memory_bytes": 281474976710656)"), "/nodes/0/devices/0/memory_bytes is 281474976710656"},
        {with_device(R"("memory_bytes": 1.5)"), "/nodes/0/devices/0/memory_bytes is not a whole number"},
        {with_device(R"("fabric": "yes")"), "/nodes/0/devices/0/fabric is not true or false"},
        {with_device(R"("cluster": 7)"), "/nodes/0/devices/0/cluster is not a string"},
        {with_device(R"("clique": 4294967296)"), "/nodes/0/devices/0/clique is 4294967296"},
        {with_device(R"("numa_node": 1)"), "/nodes/0/devices/0/numa_node is 1, not 0 to 0"},
        {with_device(R"("fabric_state": "fine")"), "/nodes/0/devices/0/fabric_state is none of"},
        {with_device(R"("fabric_status": 1000)"), "/nodes/0/devices/0/fabric_status is 1000"},
        {with_device(R"("health_mask": true)"), "/nodes/0/devices/0/health_mask is not a whole number"},
        {with_device(R"("recovery_action": 4294967296)"), "/nodes/0/devices/0/recovery_action is 4294967296"},
        {with_device(R"("name": 7)"), "/nodes/0/devices/0/name is not a string"},
        {with_device(R"("name": "a\u0007")"), "/nodes/0/devices/0/name has a control"},
        {with_device(R"("name": "\u007f")"), "/nodes/0/devices/0/name has a control"},
        {with_device(R"("name": "\u00e4")"), "/nodes/0/devices/0/name has a control character or one that is not"},
        {with_device(R"("name": ")" + std::string(256, 'a') + R"(")"), "/nodes/0/devices/0/name is longer"},
        {with_device(R"("ordinal": 0)"), "/nodes/0/devices/0/ordinal is not a known field"},
        {R"({"nodes": [{"name": "a", "devices": []}, {"name": "a", "devices": []}]})",
         "/nodes/1/name is \"a\", as another"},
    };
    return all;
}

class TemporaryFolder {
public:
    TemporaryFolder() { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        ::unlink(file().c_str());
        ::rmdir(path_.c_str());
    }
    [[nodiscard]] std::string file() const { return path_ + "/scenario.json"; }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_ = "/tmp/fabricmem-scenario-XXXXXX";
};

}  // namespace

TEST_CASE("A scenario's JSON is the one that is written down", "[emulated]") {
    CHECK(Scenario::ready_made("single-h100").to_json() == kGolden);
    CHECK(Scenario::from_json(kGolden) == Scenario::ready_made("single-h100"));
}

TEST_CASE("Every ready-made scenario survives its JSON, and no two are alike", "[emulated]") {
    const std::vector<std::string>& names = Scenario::ready_made_names();
    CHECK(names.size() == 6);
    for (const std::string& name : names) {
        INFO(name);
        const Scenario scenario = Scenario::ready_made(name);
        CHECK(scenario.name == name);
        CHECK(Scenario::from_json(scenario.to_json()) == scenario);
        for (const std::string& other : names) CHECK((Scenario::ready_made(other) == scenario) == (other == name));
    }
    CHECK(kind_of([] { static_cast<void>(Scenario::ready_made("gb300")); }) == ErrorKind::bad_argument);
}

TEST_CASE("Every field of a scenario survives its JSON", "[emulated]") {
    Scenario scenario = Scenario::ready_made("single-h100");
    scenario.latency = CallLatency::measured;
    scenario.latency_factor = 2.5;
    scenario.switches = "beside";
    ScenarioNode& node = scenario.nodes.front();
    node.imex_domain = "one";
    node.channels = {{.number = 3, .open_errno = EACCES, .major_matches = true},
                     {.number = 4, .open_errno = 99, .major_matches = false}};
    node.coherence = Coherence::cpu_and_gpu;
    node.host_memory = HostMemoryReach::fabric;
    node.driver_version = "595.45.04";
    node.imex_channel_count = 5;
    node.nvml = NvmlLibrary::absent;
    node.numa_node_bytes = {1, 2};
    node.devices.resize(2);
    node.devices[1] = {.memory_bytes = 7,
                       .fabric = FabricAttribute::unsupported,
                       .cluster = "rack",
                       .clique = 9,
                       .numa_node = 1,
                       .fabric_state = FabricInfo::State::in_progress,
                       .fabric_status = 5,
                       .health_mask = 0xaa,
                       .recovery_action = 5,
                       .name = "NVIDIA H100 80GB HBM3"};
    for (const auto& p2p : {std::optional<std::vector<DevicePair>>(), std::optional(std::vector<DevicePair>()),
                            std::optional(std::vector<DevicePair>{{0, 1}})}) {
        node.p2p = p2p;
        CHECK(Scenario::from_json(scenario.to_json()) == scenario);
    }
}

TEST_CASE("Scenarios whose nodes differ in one field are not equal", "[emulated]") {
    const auto equal_after = [](const auto& change) {
        Scenario scenario = Scenario::ready_made("single-h100");
        change(scenario.nodes.front());
        return scenario == Scenario::ready_made("single-h100");
    };
    CHECK(equal_after([](ScenarioNode&) {}));
    CHECK(!equal_after([](ScenarioNode& node) { node.name = "a"; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.devices.front().clique = 1; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.numa_node_bytes = {1}; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.imex_domain = "a"; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.channels.clear(); }));
    CHECK(!equal_after([](ScenarioNode& node) { node.channels.front().number = 1; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.channels.front().open_errno = EACCES; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.channels.front().major_matches = false; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.coherence = Coherence::cpu_and_gpu; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.host_memory = HostMemoryReach::fabric; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.p2p.emplace(); }));
    CHECK(!equal_after([](ScenarioNode& node) { node.driver_version.clear(); }));
    CHECK(!equal_after([](ScenarioNode& node) { node.imex_channel_count = 1; }));
    CHECK(!equal_after([](ScenarioNode& node) { node.nvml = NvmlLibrary::absent; }));
}

TEST_CASE("What is left out of a scenario's JSON has the value of a new one", "[emulated]") {
    const Scenario scenario = Scenario::from_json(R"({"nodes": [{"name": "a", "devices": [{}]}]})");
    Scenario expected;
    expected.nodes = {ScenarioNode{.name = "a", .devices = {ScenarioDevice{}}}};
    CHECK(scenario == expected);
}

TEST_CASE("What is wrong with a scenario's JSON is a bad argument that names its place", "[emulated]") {
    for (const Wrong& wrong : wrong_ones()) {
        const auto error = error_of([&] { static_cast<void>(Scenario::from_json(wrong.json)); });
        INFO(wrong.path);
        REQUIRE(error.has_value());
        INFO(error->what());
        CHECK(error->kind() == ErrorKind::bad_argument);
        CHECK(contains(error->what(), wrong.path));
    }
}

TEST_CASE("A scenario's file names its switches beside itself", "[emulated]") {
    const TemporaryFolder folder;
    Scenario scenario = Scenario::ready_made("single-h100");
    const auto read_back = [&](const std::string& switches) {
        scenario.switches = switches;
        std::ofstream(folder.file()) << scenario.to_json();
        return Scenario::from_file(folder.file()).switches;
    };
    CHECK(read_back("my.switches") == folder.path() + "/my.switches");
    CHECK(read_back("/dev/shm/my.switches") == "/dev/shm/my.switches");
    CHECK(read_back("").empty());
    CHECK(kind_of([&] { static_cast<void>(Scenario::from_file(folder.path() + "/absent")); }) == ErrorKind::system);
    CHECK(kind_of([&] { static_cast<void>(Scenario::from_file(folder.path())); }) == ErrorKind::system);
    CHECK(kind_of([] { static_cast<void>(Scenario::from_file("/dev/zero")); }) == ErrorKind::bad_argument);
}
