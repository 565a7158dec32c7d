// SPDX-License-Identifier: Apache-2.0
// What the driver answers by IMEX channels, visible devices and attributes, pinned by CUresult, on every driver at hand
// (docs/driver-notes.md). A process gets its channel and its devices once: each case is done by peers made for it.
#include <algorithm>
#include <cstdint>
#include <optional>

#include "support/channel_nodes.hpp"
#include "support/channel_peer.hpp"
#include "support/driver_under_test.hpp"
#include "support/peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr const char* kFabricSupported = "attribute 128";

// What the emulated driver has too.
int channel_count() { return testing_cuda() ? nvidia_parameter("ImexChannelCount").value_or(0) : 2048; }

// The code of an import, let go again.
int import_code(Peer& peer, const FabricBytes& bytes) {
    const int code = peer.code("import 0 " + to_hex(bytes));
    if (code == CUDA_SUCCESS) CHECK(peer.code("release 0") == CUDA_SUCCESS);
    return code;
}

void check_no_fabric_memory(Peer& peer) {
    CHECK(peer.code("create device 8") == CUDA_ERROR_NOT_PERMITTED);
    CHECK(peer.code("create device 9") == CUDA_ERROR_NOT_PERMITTED);
    CHECK(peer.code("create device 1") == CUDA_SUCCESS);
    CHECK(peer.code("create device 0") == CUDA_SUCCESS);
}

}  // namespace

TEST_CASE("Without a channel node fabric memory is NOT_PERMITTED, and attribute 128 is 1 all the same",
          "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_CHANNEL_PEER_OR_SKIP(peer, "none");
    check_no_fabric_memory(*peer);
    const PeerAnswer supported = peer->ask(kFabricSupported);
    CHECK(supported.code == CUDA_SUCCESS);
    CHECK(supported.values == std::vector<std::string>{"1"});
}

TEST_CASE("A channel node that this user may not open is as good as none", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    std::string why_not;
    const PeerPointer allowed = start_peer({"--channel", "0", "--channel-user", "other"}, &why_not);
    const PeerPointer denied = start_peer({"--channel", "0", "--channel-user", "denied"}, &why_not);
    if (!allowed || !denied) FABRICMEM_SKIP(why_not);
    CHECK(allowed->code("create device 8") == CUDA_SUCCESS);  // so it is not that user's being no root
    check_no_fabric_memory(*denied);
    CHECK(denied->ask(kFabricSupported).values == std::vector<std::string>{"1"});
}

TEST_CASE("A channel beyond ImexChannelCount is as good as none", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    const int count = channel_count();
    if (count == 0) FABRICMEM_SKIP("/proc/driver/nvidia/params tells no ImexChannelCount");
    FABRICMEM_CHANNEL_PEER_OR_SKIP(last, std::to_string(count - 1));
    FABRICMEM_CHANNEL_PEER_OR_SKIP(beyond, std::to_string(count));
    CHECK(last->code("create device 8") == CUDA_SUCCESS);
    check_no_fabric_memory(*beyond);
}

TEST_CASE("An importer of another channel than the exporter's is NOT_PERMITTED", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_CHANNEL_PEER_OR_SKIP(exporter, "0");
    FABRICMEM_CHANNEL_PEER_OR_SKIP(importer, "1");
    const FabricBytes bytes = exporter->export_memory();
    CHECK(import_code(*importer, bytes) == CUDA_ERROR_NOT_PERMITTED);
    CHECK(importer->code("create device 8") == CUDA_SUCCESS);  // its own channel is a good one
}

TEST_CASE("An importer without a channel is NOT_PERMITTED", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_CHANNEL_PEER_OR_SKIP(exporter, "0");
    FABRICMEM_CHANNEL_PEER_OR_SKIP(importer, "none");
    CHECK(import_code(*importer, exporter->export_memory()) == CUDA_ERROR_NOT_PERMITTED);
}

TEST_CASE("Two processes that open the same channel, whichever, share memory", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    for (const char* const channel : {"0", "1"}) {
        CAPTURE(channel);
        FABRICMEM_CHANNEL_PEER_OR_SKIP(exporter, channel);
        FABRICMEM_CHANNEL_PEER_OR_SKIP(importer, channel);
        const FabricBytes bytes = exporter->export_memory();
        CHECK(exporter->code("map 0 device 3") == CUDA_SUCCESS);
        CHECK(importer->code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
        CHECK(importer->code("map 0 device 3") == CUDA_SUCCESS);
        CHECK(exporter->code("write 0 0 4711") == CUDA_SUCCESS);
        CHECK(importer->ask("read 0 0").values == std::vector<std::string>{"4711"});
    }
}

TEST_CASE("Where no device is visible cuInit is NO_DEVICE", "[driver][each]") {
    FABRICMEM_PEER_OR_SKIP();
    std::string why_not;
    if (!start_peer({}, &why_not)) FABRICMEM_SKIP(why_not);  // where there is no driver at all
    try {
        const Peer peer({"--devices", "0"}, {{"CUDA_VISIBLE_DEVICES", ""}});
        FAIL_CHECK("the peer has a driver");
    } catch (const PeerRefused& refused) {
        CHECK(refused.code() == CUDA_ERROR_NO_DEVICE);
    }
}

TEST_CASE("An H100 has fabric handles and shares no host memory across nodes", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    char name[256] = {};
    REQUIRE(driver->device_get_name(name, sizeof name, 0) == CUDA_SUCCESS);
    if (testing_cuda() && std::string(name).find("H100") == std::string::npos) {
        FABRICMEM_SKIP("measured on an H100; this is an " + std::string(name));
    }
    const auto attribute = [&](int number) {
        int value = -1;
        CHECK(driver->device_get_attribute(&value, static_cast<CUdevice_attribute>(number), 0) == CUDA_SUCCESS);
        return value;
    };
    CHECK(attribute(128) == 1);  // HANDLE_TYPE_FABRIC_SUPPORTED
    CHECK(attribute(143) == 0);  // HOST_NUMA_MULTINODE_IPC_SUPPORTED
}

TEST_CASE("NVML lists the driver's devices by the driver's own bus ids, names and UUIDs", "[driver][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const std::optional<NvmlFacts> facts = driver->platform().nvml();
    if (!facts) FABRICMEM_SKIP("there is no NVML");
    int count = 0;
    REQUIRE(driver->device_get_count(&count) == CUDA_SUCCESS);
    for (int ordinal = 0; ordinal < count; ++ordinal) {
        CAPTURE(ordinal);
        char bus[32] = {};
        char name[256] = {};
        CUuuid uuid{};
        REQUIRE(driver->device_get_pci_bus_id(bus, sizeof bus, ordinal) == CUDA_SUCCESS);
        REQUIRE(driver->device_get_name(name, sizeof name, ordinal) == CUDA_SUCCESS);
        REQUIRE(driver->device_get_uuid(&uuid, ordinal) == CUDA_SUCCESS);
        const auto device = std::find_if(facts->devices.begin(), facts->devices.end(),
                                         [&](const NvmlDevice& each) { return each.pci_bus_id == bus; });
        REQUIRE(device != facts->devices.end());
        CHECK(device->name == name);
        CHECK(std::equal(device->uuid.bytes.begin(), device->uuid.bytes.end(), uuid.bytes,
                         [](std::uint8_t nvml, char cuda) { return nvml == static_cast<std::uint8_t>(cuda); }));
    }
    const std::optional<KernelModule> module = driver->platform().kernel_module();
    if (module && !module->version.empty()) CHECK(module->version == facts->driver_version);
}

// On the real driver alone: an emulated node is in an NVLink fabric unless its devices have none, and then attribute
// 128 is 0.
TEST_CASE("Where NVML tells of no fabric, fabric handles work on one machine all the same", "[driver][real]") {
    FABRICMEM_PEER_OR_SKIP();
    FABRICMEM_REAL_DRIVER_OR_SKIP(driver);
    char bus[32] = {};
    REQUIRE(driver->device_get_pci_bus_id(bus, sizeof bus, 0) == CUDA_SUCCESS);
    const std::optional<FabricInfo> info = driver->platform().fabric_info(bus);
    if (!info) FABRICMEM_SKIP("NVML does not know the device");
    if (info->state != FabricInfo::State::not_supported) FABRICMEM_SKIP("this device is in a fabric");
    CHECK(info->status == 0);
    CHECK(info->clique == 0);
    CHECK(info->cluster_uuid.is_zero());
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    Peer peer;
    CHECK(peer.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CHECK(peer.code("write 0 0 1") == CUDA_SUCCESS);
}

// On the real driver alone: they are parameters of its kernel module, and the emulated one has no such file.
TEST_CASE("The kernel module's parameters are 2048 channels and none made by itself", "[driver][real]") {
    FABRICMEM_REAL_DRIVER_OR_SKIP(driver);
    CHECK(nvidia_parameter("ImexChannelCount") == 2048);
    CHECK(nvidia_parameter("CreateImexChannel0") == 0);
}
