// SPDX-License-Identifier: Apache-2.0
// A fabric of several processes, which join by their environment.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "support/buffers.hpp"
#include "support/fabric_kit.hpp"
#include "support/peer.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using Environment = std::map<std::string, std::string>;

// The environment of this process, as long as this lives.
class Variables {
public:
    explicit Variables(const Environment& variables) : variables_(variables) {
        for (const auto& [name, value] : variables_) ::setenv(name.c_str(), value.c_str(), 1);
    }
    Variables(const Variables&) = delete;
    Variables& operator=(const Variables&) = delete;
    ~Variables() {
        for (const auto& [name, value] : variables_) ::unsetenv(name.c_str());
    }

private:
    Environment variables_;
};

class ScenarioFile {
public:
    explicit ScenarioFile(const std::string& name) {
        REQUIRE(::mkdtemp(folder_.data()) != nullptr);
        Scenario scenario = Scenario::ready_made(name);
        scenario.switches = "switches";
        std::ofstream(path()) << scenario.to_json();
    }
    ScenarioFile(const ScenarioFile&) = delete;
    ScenarioFile& operator=(const ScenarioFile&) = delete;
    ~ScenarioFile() {
        ::unlink(path().c_str());
        ::unlink((folder_ + "/switches").c_str());
        CHECK(::rmdir(folder_.c_str()) == 0);  // nothing else was left there
    }
    [[nodiscard]] std::string path() const { return folder_ + "/scenario.json"; }
    [[nodiscard]] Environment on(const std::string& node) const {
        return {{"FABRICMEM_EMULATOR", path()}, {"FABRICMEM_EMULATOR_NODE", node}};
    }

private:
    std::string folder_ = "/tmp/fabricmem-fabric-XXXXXX";
};

// A peer that has imported and mapped what `bytes` stand for.
void take(Peer& peer, const FabricBytes& bytes) {
    REQUIRE(peer.code("import 1 " + to_hex(bytes)) == CUDA_SUCCESS);
    REQUIRE(peer.code("map 1 device 3") == CUDA_SUCCESS);
}

}  // namespace

TEST_CASE("A process that joins by its environment is another node of the same fabric", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const Fabric fabric = ready_made("gb200-nvl72");
    Peer peer({}, fabric->environment("node7"));
    CHECK(peer.ask("place").values == std::vector<std::string>{"scenario", "gb200-nvl72,", "node", "node7"});
    const auto driver = driver_on(fabric, "node0");
    const CurrentContext context(*driver);
    const Mapped memory(*driver, imported(*driver, peer.export_memory()), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const std::uint32_t sent = 0x1234567;
    REQUIRE(driver->memcpy_htod(memory.address(), &sent, sizeof sent) == CUDA_SUCCESS);
    REQUIRE(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CHECK(peer.ask("read 0 0").values.at(0) == std::to_string(sent));
}

TEST_CASE("A switch that is flipped here is seen by the other process at once, and the other way round", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const Fabric fabric = ready_made("gb200-nvl72");
    Peer peer({}, fabric->environment("node1"));
    const auto driver = driver_on(fabric, "node0");
    const Exported memory(*driver);
    const FabricBytes bytes = memory.bytes();
    fabric->set_imex_daemon("node1", ImexDaemon::down);
    CHECK(peer.code("import 1 " + to_hex(bytes)) == CUDA_ERROR_NOT_READY);
    fabric->set_imex_daemon("node1", ImexDaemon::ready);
    take(peer, bytes);
    CHECK(peer.code("switch node1 imex_daemon killed") == CUDA_SUCCESS);
    CHECK(fabric->get("node1", "imex_daemon") == "killed");
    CHECK(any_call(*driver) == CUDA_SUCCESS);
    CHECK(peer.code("release 1") == CUDA_ERROR_NVLINK_UNCORRECTABLE);
}

TEST_CASE("A lost node takes the importers in other processes with it", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const Fabric fabric = ready_made("two-racks");
    Peer exporter({}, fabric->environment("rack0-node0"));
    Peer importer({}, fabric->environment("rack0-node1"));
    Peer bystander({}, fabric->environment("rack1-node0"));
    take(importer, exporter.export_memory());
    fabric->set_node("rack0-node0", NodeLife::lost);
    CHECK(exporter.code("count") == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(importer.code("read 1 0") == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(importer.code("count") == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(bystander.code("count") == CUDA_SUCCESS);
}

TEST_CASE("An import that hangs in the other process returns when the switch is taken back here", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const Fabric fabric = ready_made("gb200-nvl72");
    Peer peer({}, fabric->environment("node1"));
    const auto driver = driver_on(fabric, "node0");
    const Exported memory(*driver);
    fabric->set_imports("node1", RemoteCalls::hang);
    REQUIRE(peer.process().send_line("import 1 " + to_hex(memory.bytes())));
    const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
    CHECK(!peer.process().read_line(soon).has_value());
    fabric->set_imports("node1", RemoteCalls::answer);
    CHECK(peer.process().read_line(in_seconds(kPeerSeconds)) == "0");
}

TEST_CASE("A call that hangs returns, cut off, when the fabric's own process is killed", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    Peer owner;
    const std::string path = owner.ask("fabric gb200-nvl72").values.at(0);
    Peer exporter({}, {{"FABRICMEM_EMULATOR", path}, {"FABRICMEM_EMULATOR_NODE", "node2"}});
    Peer importer({}, {{"FABRICMEM_EMULATOR", path}, {"FABRICMEM_EMULATOR_NODE", "node3"}});
    const FabricBytes bytes = exporter.export_memory();
    REQUIRE(importer.code("switch node3 imports hang") == CUDA_SUCCESS);
    REQUIRE(importer.process().send_line("import 1 " + to_hex(bytes)));
    const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
    CHECK(!importer.process().read_line(soon).has_value());
    owner.process().signal(SIGKILL);
    CHECK(importer.process().read_line(in_seconds(kPeerSeconds)) == "220");
}

TEST_CASE("Processes of one file share what its switches say, also with those that come later", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const ScenarioFile file("two-racks");
    Peer first({}, file.on("rack0-node0"));
    const FabricBytes bytes = first.export_memory();
    {
        Peer second({}, file.on("rack0-node1"));
        CHECK(second.code("import 1 " + to_hex(bytes)) == CUDA_SUCCESS);
        CHECK(second.code("switch rack0-node1 imex_daemon down") == CUDA_SUCCESS);
        CHECK(second.leave() == Ended{0, 0});
    }
    Peer third({}, file.on("rack0-node1"));
    CHECK(third.code("import 1 " + to_hex(bytes)) == CUDA_ERROR_NOT_READY);
}

TEST_CASE("Processes of one ready-made name are in one fabric, each with its own switches", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const auto on = [](const std::string& node) {
        return Environment{{"FABRICMEM_EMULATOR", "gb200-nvl72"}, {"FABRICMEM_EMULATOR_NODE", node}};
    };
    Peer exporter({}, on("node0"));
    Peer importer({}, on("node1"));
    const std::string hex = to_hex(exporter.export_memory());
    CHECK(importer.code("import 1 " + hex) == CUDA_SUCCESS);
    CHECK(exporter.code("switch node1 imex_daemon down") == CUDA_SUCCESS);
    CHECK(importer.code("import 2 " + hex) == CUDA_SUCCESS);
}

TEST_CASE("The environment names the node and the devices, and what is wrong with it is said", "[emulated]") {
    const auto count = [](const Environment& variables) {
        const Variables set(variables);
        const auto driver = make_emulated_driver_from_environment();
        int devices = 0;
        REQUIRE(driver->device_get_count(&devices) == CUDA_SUCCESS);
        return devices;
    };
    CHECK(count({}) == 1);
    CHECK(count({{"FABRICMEM_EMULATOR", "hgx-h100"}}) == 8);
    CHECK(count({{"FABRICMEM_EMULATOR", "hgx-h100"}, {"FABRICMEM_EMULATOR_DEVICES", "5,0"}}) == 2);
    CHECK(make_emulated_fabric_from_environment() == nullptr);
    const auto refusal = [](const Environment& variables) {
        const Variables set(variables);
        return kind_of([] { static_cast<void>(make_emulated_driver_from_environment()); });
    };
    CHECK(refusal({{"FABRICMEM_EMULATOR", "/nowhere/scenario.json"}}) == ErrorKind::system);
    CHECK(refusal({{"FABRICMEM_EMULATOR", "/dev/null"}}) == ErrorKind::bad_argument);
    CHECK(refusal({{"FABRICMEM_EMULATOR", "hgx-h100"}, {"FABRICMEM_EMULATOR_NODE", "node1"}}) ==
          ErrorKind::bad_argument);
    for (const char* const wrong : {"8", "x", "0,,1", "1 0", "-1"}) {
        CHECK(refusal({{"FABRICMEM_EMULATOR", "hgx-h100"}, {"FABRICMEM_EMULATOR_DEVICES", wrong}}) ==
              ErrorKind::bad_argument);
    }
    CHECK(refusal({{"FABRICMEM_EMULATOR", "hgx-h100"}, {"FABRICMEM_EMULATOR_DEVICES", ""}}) == ErrorKind::unsupported);
    const Variables devices({{"FABRICMEM_EMULATOR", "hgx-h100"}, {"FABRICMEM_EMULATOR_DEVICES", "5"}});
    CHECK(info_of(*make_emulated_driver_from_environment()).health_mask == 0xaaU);
    CHECK(attribute_of(*make_emulated_driver_from_environment(), 134) == 1);
}

TEST_CASE("A fabric holds two descriptors at most, and none when it is gone", "[emulated]") {
    const auto descriptors = [] {
        int open = 0;
        for (int number = 0; number < 1024; ++number)
            open += ::access(("/proc/self/fd/" + std::to_string(number)).c_str(), F_OK) == 0 ? 1 : 0;
        return open;
    };
    const int before = descriptors();
    {
        const Fabric fabric = ready_made("gb200-nvl72");
        CHECK(descriptors() == before + 1);
        CHECK(fabric->environment() == fabric->environment("node0"));
        CHECK(descriptors() == before + 2);
        const auto driver = make_emulated_driver(fabric);
        CHECK(descriptors() == before + 2);
    }
    CHECK(descriptors() == before);
}
