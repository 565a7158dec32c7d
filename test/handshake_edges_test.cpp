// SPDX-License-Identifier: Apache-2.0
// What goes wrong at the edges of a meeting: calls that hang, hellos that lie or come late, memory that one side alone
// can't reach, peers that begin anew.
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/fault_driver.hpp>
#include <fabricmem/flag_slots.hpp>
#include <fabricmem/forwarding_driver.hpp>
#include <fabricmem/handshake.hpp>

#include "buffer/deadline.hpp"
#include "handshake/hello.hpp"
#include "handshake/import_queue.hpp"
#include "support/buffers.hpp"
#include "support/expect_error.hpp"
#include "support/fabric_kit.hpp"
#include "support/meeting.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using std::chrono::milliseconds;

// Copies that are lost, streams that never come to rest, and imports that a test lets through.
class Odd final : public ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;
    std::atomic<bool> never_at_rest{false};
    std::atomic<bool> loses_slots{false};
    std::atomic<bool> holds_imports{false};
    std::array<std::uint8_t, HandleBlob::kHandleBytes> refused{};

    CUresult memcpy_async(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) noexcept override {
        // A slot that is written to a peer; what is read comes in the other direction, by as many bytes.
        if (loses_slots && bytes == 64 && copies_++ % 2 == 0) return CUDA_SUCCESS;
        return ForwardingDriver::memcpy_async(to, from, bytes, stream);
    }
    CUresult stream_query(CUstream stream) noexcept override {
        return never_at_rest ? CUDA_ERROR_NOT_READY : ForwardingDriver::stream_query(stream);
    }
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override {
        if (std::memcmp(shareable, refused.data(), refused.size()) == 0) return CUDA_ERROR_INVALID_VALUE;
        while (holds_imports) std::this_thread::yield();
        return ForwardingDriver::mem_import_from_shareable_handle(handle, shareable, type);
    }

private:
    std::atomic<unsigned> copies_{0};
};

struct Rack {
    explicit Rack(int nodes) {
        for (int i = 0; i < nodes; ++i) drivers.push_back(driver_on(fabric, "node" + std::to_string(i)));
    }
    Fabric fabric = ready_made("gb200-nvl72");
    std::vector<std::shared_ptr<Driver>> drivers;
};

HandshakeOptions with_import_timeout(milliseconds timeout) {
    HandshakeOptions options;
    options.import_timeout = timeout;
    return options;
}

}  // namespace

TEST_CASE("A newer hello of one life can't bring other memory", "[handshake]") {
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver});
    const auto good = meeting[1].hello();
    CHECK(meeting[0].add_peer(1, good));
    const auto refused = [&](auto&& change) {
        detail::Hello hello = detail::Hello::from_bytes(good);
        ++hello.serial;
        change(hello);
        FABRICMEM_CHECK_ERROR(meeting[0].add_peer(1, hello.to_bytes()), bad_blob, "has other memory now");
    };
    refused([](detail::Hello& hello) { hello.host.blob.reset(); });
    refused([](detail::Hello& hello) { hello.device.blob.reset(); });
    refused([](detail::Hello& hello) { hello.device.blob->allocation_id = Id128{{1}}; });
    refused([](detail::Hello& hello) { hello.host.address += 64; });
    refused([](detail::Hello& hello) { hello.max_ranks = 2; });
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("Releases that hang hold up neither polling, nor closing, nor the end", "[handshake]") {
    const QuietLog quiet;
    Rack rack(4);
    const auto before = emulated_counts(*rack.drivers[0]);
    {
        Meeting meeting(rack.drivers, with_import_timeout(std::chrono::minutes(10)));
        meeting.exchange();
        REQUIRE(meeting.poll_until_done());
        rack.fabric->set_releases("node0", RemoteCalls::hang);
        meeting[0].remove_peer(3);
        CHECK(meeting[0].poll() == 0);
        meeting[0].close(soon(milliseconds(10)));
        meeting.replace(0, nullptr);
        CHECK(stuck_calls(*rack.drivers[0]) > 0);
        rack.fabric->set_releases("node0", RemoteCalls::answer);
    }
    // The thread that nobody waited for has given all of it back.
    REQUIRE(detail::wait_until_stuck(*rack.drivers[0], 0, std::chrono::seconds(60)));
    CHECK(emulated_counts(*rack.drivers[0]) == before);
}

TEST_CASE("An import that comes when nobody wants it any more is given back", "[handshake]") {
    const auto good = make_emulated_driver();
    const auto odd = std::make_shared<Odd>(good);
    Meeting meeting({odd, good});
    const auto before = emulated_counts(*good);
    odd->holds_imports = true;
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    CHECK(meeting[0].poll() == 1);
    meeting[0].remove_peer(1);
    odd->holds_imports = false;
    REQUIRE(meeting.poll_until([&] { return emulated_counts(*good) == before; }));
}

TEST_CASE("A peer whose imports hang leaves no more calls behind than it has kinds of memory", "[handshake]") {
    const QuietLog quiet;
    Rack rack(2);
    const auto beside = driver_on(rack.fabric, "node0");
    Meeting meeting({rack.drivers[0], rack.drivers[1], beside}, with_import_timeout(milliseconds(5)));
    rack.fabric->set_imports("node0", RemoteCalls::hang);
    meeting.exchange();
    // The peer of this node is met meanwhile.
    REQUIRE(meeting.poll_until([&] { return meeting[0].peer(2).stage == PeerStage::connected; }));
    REQUIRE(meeting.poll_until([&] { return stuck_calls(*rack.drivers[0]) == 2; }));
    const auto report = meeting[0].wait(soon(milliseconds(100)));
    CHECK(stuck_calls(*rack.drivers[0]) == 2);
    CHECK(report.peers[1].imports_tried == 2);
    CHECK(report.peers[1].error->kind() == ErrorKind::timed_out);
    rack.fabric->set_imports("node0", RemoteCalls::answer);
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("An echo of before a peer was removed is none", "[handshake]") {
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    meeting[1].remove_peer(0);
    meeting[0].remove_peer(1);
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    const auto report = meeting[0].wait(soon(milliseconds(50)));
    CHECK(report.connected == 0);
    // And where one side alone began anew, the other answers it.
    CHECK(meeting[1].add_peer(0, meeting[0].hello()));
    REQUIRE(meeting.poll_until_done());
    meeting[0].remove_peer(1);
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("A group grows, and who has not grown yet is told", "[handshake]") {
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    Handshake third(driver, {.rank = 2, .world_size = 3});
    FABRICMEM_CHECK_ERROR(meeting[0].add_peer(2, third.hello()), conflict, "world_size 3, and this rank says 2");
    FABRICMEM_CHECK_ERROR(meeting[0].grow(1), bad_argument, "1 ranks");
    FABRICMEM_CHECK_ERROR(meeting[0].grow(2000), bad_argument, "2000 ranks");
    for (std::size_t rank = 0; rank < 2; ++rank) {
        meeting[rank].grow(3);
        CHECK(meeting[rank].peer(2).stage == PeerStage::no_hello);
        CHECK(meeting[rank].add_peer(2, third.hello()));
        CHECK(third.add_peer(static_cast<std::uint32_t>(rank), meeting[rank].hello()));
    }
    REQUIRE(meeting.poll_until([&] { return third.poll() == 0 && meeting.all_connected(); }));
    CHECK(third.report().connected == 2);
    // Who does not know how many there are fits everywhere.
    Handshake fourth(driver, {.rank = 3});
    CHECK(meeting[0].add_peer(3, fourth.hello()));
}

TEST_CASE("A device without a path to the others fails its own pairs alone", "[handshake]") {
    const QuietLog quiet;
    Scenario scenario = Scenario::ready_made("mixed-box");
    scenario.nodes.front().devices.back().fabric = FabricAttribute::supported;
    const auto driver = make_emulated_driver(make_emulated_fabric(scenario), {});
    std::vector<std::unique_ptr<Handshake>> ranks;
    for (std::uint32_t rank = 0; rank < 3; ++rank)
        ranks.push_back(std::make_unique<Handshake>(
            driver, HandshakeOptions{.rank = rank, .world_size = 3, .device = rank == 2 ? 3 : 0}));
    Meeting meeting(std::move(ranks));
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].peer(1).stage == PeerStage::connected);
    CHECK(meeting[0].peer(2).stage == PeerStage::failed);
    CHECK(contains(meeting[0].peer(2).error->what(), "device 0 was given no access to its"));
    CHECK(contains(meeting[2].peer(0).error->what(), "device 3 was given no access to its"));
}

TEST_CASE("A device that is given no access to a peer's memory fails that peer, and no other", "[handshake]") {
    const QuietLog quiet;
    Scenario rack = Scenario::ready_made("gb200-nvl72");
    rack.nodes[1].devices[0].clique = 99;
    const Fabric fabric = make_emulated_fabric(rack);
    // Ranks 1 and 2 are on one node, whose devices are in two cliques; the process of rank 1 sees both.
    const std::vector<std::shared_ptr<Driver>> drivers{
        driver_on(fabric, "node0"), driver_on(fabric, "node1"),
        make_emulated_driver(fabric, {.node = "node1", .visible_devices = {{1, 0}}})};
    Meeting meeting(drivers);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].peer(2).stage == PeerStage::connected);
    CHECK(meeting[1].peer(2).stage == PeerStage::connected);
    CHECK(meeting[2].report().connected == 2);
    for (const auto& [from, to] : {std::pair(0, 1), {1, 0}}) {
        const PeerReport peer = meeting[static_cast<std::size_t>(from)].peer(static_cast<std::uint32_t>(to));
        CHECK(peer.stage == PeerStage::failed);
        REQUIRE(peer.error.has_value());
        CHECK(peer.error->kind() == ErrorKind::foreign_domain);
        CHECK(std::string(peer.error->what()).find("clique 99") != std::string::npos);
    }
    meeting.close();
}

TEST_CASE("Host memory that does not travel between nodes is done without at once", "[handshake]") {
    const QuietLog quiet;
    Scenario scenario = Scenario::ready_made("gb200-nvl72");
    for (auto& node : scenario.nodes) node.host_memory = HostMemoryReach::node;
    const Fabric fabric = make_emulated_fabric(scenario);
    Meeting meeting({driver_on(fabric, "node0"), driver_on(fabric, "node1"), driver_on(fabric, "node0")});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done(std::chrono::seconds(1)));  // less than host_patience
    const PeerReport peer = meeting[0].peer(1);
    CHECK(peer.stage == PeerStage::connected);
    CHECK(peer.device.state == PathState::proved);
    CHECK(peer.host.state == PathState::failed);
    CHECK(peer.slots == LocationKind::device);
    CHECK(meeting[0].peer(2).slots == LocationKind::host_numa);
}

TEST_CASE("Both sides agree on the slots in the end, whoever gave host memory up", "[handshake]") {
    const QuietLog quiet;
    const auto good = make_emulated_driver();
    const auto odd = std::make_shared<Odd>(good);
    Meeting meeting({odd, good});
    meeting.exchange();
    // Rank 0's host path is proved for rank 1, and not for rank 0 itself, which comes to its deadline.
    REQUIRE(meeting.poll_until([&] { return meeting[0].peer(1).device.state == PathState::proved; }));
    if (meeting[0].peer(1).host.state == PathState::pending)
        static_cast<void>(meeting[0].wait(std::chrono::steady_clock::now()));
    REQUIRE(meeting.poll_until_done());
    REQUIRE(meeting.poll_until([&] { return meeting[0].peer(1).slots == meeting[1].peer(0).slots; }));
}

TEST_CASE("Trust with a writer of the caller's needs nothing", "[handshake]") {
    HandshakeOptions options;
    options.policy = ProofPolicy::trust;
    options.writer = [](const WriteRequest&) { FAIL("nothing is to be written"); };
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver}, options);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].peer(1).device.state == PathState::trusted);
}

TEST_CASE("A writer may ask the handshake, and what it loses is written again", "[handshake]") {
    const auto driver = make_emulated_driver();
    const PrimaryContext context(driver, 0);
    Meeting* asked = nullptr;
    int writes = 0;
    HandshakeOptions options;
    options.writer = [&](const WriteRequest& request) {
        CHECK(asked->operator[](0).report().peers.size() == 2);
        if (++writes <= 4) return;  // lost on the way
        REQUIRE(driver->memcpy_htod(request.peer_address, request.bytes.data(), request.bytes.size()) == CUDA_SUCCESS);
    };
    Meeting meeting({driver, driver}, options);
    asked = &meeting;
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("A health check that loses its write is not well, whatever a former life wrote", "[handshake]") {
    const auto good = make_emulated_driver();
    const auto odd = std::make_shared<Odd>(good);
    HandshakeOptions options;
    options.placement = SlotPlacement::device;
    Meeting meeting({odd, good}, options);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    meeting[0].health_check(1, soon(std::chrono::seconds(60)));
    meeting.replace(0, nullptr);
    meeting.replace(0, std::make_unique<Handshake>(
                           odd, HandshakeOptions{.rank = 0, .world_size = 2, .placement = SlotPlacement::device}));
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    odd->loses_slots = true;
    FABRICMEM_CHECK_ERROR(meeting[0].health_check(1, soon(std::chrono::seconds(60))), driver,
                          "is not what is read there");
    odd->loses_slots = false;
    meeting[0].health_check(1, soon(std::chrono::seconds(60)));
}

TEST_CASE("A copy that never ends is named by a health check, by the next one, and by close, each in time",
          "[handshake]") {
    const QuietLog quiet;
    const auto good = make_emulated_driver();
    const auto odd = std::make_shared<Odd>(good);
    Meeting meeting({odd, good});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    odd->never_at_rest = true;
    FABRICMEM_CHECK_ERROR(meeting[0].health_check(1, soon(milliseconds(10))), timed_out, "is not here");
    FABRICMEM_CHECK_ERROR(meeting[0].health_check(1, soon(milliseconds(10))), timed_out, "before this one");
    std::thread other(
        [&] { FABRICMEM_CHECK_ERROR(meeting[0].health_check(1, soon(milliseconds(10))), timed_out, ""); });
    other.join();
    FABRICMEM_CHECK_ERROR(meeting[0].close(soon(milliseconds(10))), timed_out, "still under way");
    // What the copy goes to stays mapped.
    CHECK(emulated_counts(*good).mappings > 4);
}

TEST_CASE("Slots in memory that was mapped read-only are read, and not stored to", "[flags]") {
    const auto driver = make_emulated_driver();
    for (const Location location : {Location::host_numa(0), Location::device(0)}) {
        Arena arena(driver, kMiB, {.location = location});
        FlagSlots<std::uint32_t> own(arena.allocate(64));
        own.reset_all();
        own.store(3, 33);
        const auto imported = std::make_shared<const ImportedFabricBuffer>(
            driver, arena.blob(), ImportOptions{.permission = Permission::read_only});
        FlagSlots<std::uint32_t> peers(imported, 0, 16);
        CHECK(peers.load(3) == 33);
        FABRICMEM_CHECK_ERROR(peers.store(3, 1), bad_argument, "read-only");
        FABRICMEM_CHECK_ERROR(peers.reset(3), bad_argument, "read-only");
        FABRICMEM_CHECK_ERROR(peers.reset_all(), bad_argument, "read-only");
    }
}

TEST_CASE("An import that comes as it is given up is had or named, and never lost without a word", "[handshake]") {
    const QuietLog quiet;
    const auto emulated = make_emulated_driver();
    const FabricBuffer own(emulated, 1);
    const auto slow = std::make_shared<FaultDriver>(emulated);
    slow->add({.effect = Fault::Effect::delay,
               .call = "mem_import_from_shareable_handle",
               .delay = std::chrono::microseconds(1000)});
    for (int round = 0; round < 300; ++round) {
        detail::ImportQueue queue(slow, milliseconds(1));
        const auto task = queue.start(own.blob(), {.timeout = milliseconds(0)});
        while (!task->done()) queue.look();
        std::shared_ptr<const ImportedFabricBuffer> had;
        const auto error = error_of([&] { had = task->take(); });
        REQUIRE((had != nullptr) != error.has_value());
        queue.drop(std::move(had));
    }
    REQUIRE(detail::wait_until_stuck(*slow, 0, std::chrono::seconds(60)));
}
