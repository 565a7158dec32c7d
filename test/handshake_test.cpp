// SPDX-License-Identifier: Apache-2.0
// Ranks meet: connected when bytes went both ways, and otherwise told why, by the deadline.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/fault_driver.hpp>
#include <fabricmem/forwarding_driver.hpp>
#include <fabricmem/handshake.hpp>

#include "handshake/hello.hpp"
#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/fabric_kit.hpp"
#include "support/meeting.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::chrono::seconds kPatience{60};

struct Rack {
    Fabric fabric = ready_made("gb200-nvl72");
    [[nodiscard]] std::vector<std::shared_ptr<Driver>> drivers(int count) const {
        std::vector<std::shared_ptr<Driver>> made;
        for (int i = 0; i < count; ++i) made.push_back(driver_on(fabric, "node" + std::to_string(i)));
        return made;
    }
};

// A driver that can't import the memory of one arena.
class RefusesImports final : public ForwardingDriver {
public:
    RefusesImports(std::shared_ptr<Driver> inner, CUresult answer)
        : ForwardingDriver(std::move(inner)), answer_(answer) {}
    void refuse(const Arena& arena) { refused_ = arena.blob().handle; }
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override {
        if (std::memcmp(shareable, refused_.data(), refused_.size()) == 0) return answer_;
        return ForwardingDriver::mem_import_from_shareable_handle(handle, shareable, type);
    }

private:
    CUresult answer_;
    std::array<std::uint8_t, HandleBlob::kHandleBytes> refused_{};
};

void check_proved(const PeerReport& peer) {
    INFO(peer.rank << ": " << (peer.error.has_value() ? peer.error->what() : "no error"));
    CHECK(peer.stage == PeerStage::connected);
    CHECK(peer.device.state == PathState::proved);
    CHECK(peer.host.state == PathState::proved);
    CHECK(peer.device.from_device == 0);
    CHECK(peer.host.from_device == 0);
    CHECK(peer.slots == LocationKind::host_numa);
    CHECK_FALSE(peer.error.has_value());
}

}  // namespace

TEST_CASE("Two ranks are connected when bytes went both ways in both kinds of memory", "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Meeting meeting({driver, driver});
    CHECK(meeting[0].poll() == 1);
    CHECK(meeting[0].peer(1).stage == PeerStage::no_hello);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    check_proved(meeting[0].peer(1));
    check_proved(meeting[1].peer(0));
    CHECK(meeting[0].peer(0).stage == PeerStage::self);
    CHECK(meeting[0].peer(1).incarnation == meeting[1].incarnation());
    CHECK(meeting[0].report().all_connected());
    CHECK(meeting[0].report().peers.size() == 2);
    CHECK(meeting[0].report().describe().empty());
    meeting[0].health_check(1, soon(kPatience));
    meeting[1].health_check(0, soon(kPatience));
    REQUIRE(meeting[0].imported(1, LocationKind::device) != nullptr);
    CHECK(meeting[0].imported(1, LocationKind::device)->blob().allocation_id ==
          meeting[1].device_arena()->blob().allocation_id);
    CHECK(meeting[0].imported(1, LocationKind::host_numa)->location().is_host());
}

TEST_CASE("Whatever lies in a connected peer's arena is reached, by offset and by the peer's own address",
          "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Meeting meeting({driver, driver});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    Block block = meeting[1].host_arena()->allocate(4096, 4096);
    const auto imported = meeting[0].imported(1, LocationKind::host_numa);
    const auto address = reinterpret_cast<std::uintptr_t>(block.address());
    auto* const here = static_cast<std::uint32_t*>(meeting[0].translate(1, LocationKind::host_numa, address, 4096));
    CHECK(reinterpret_cast<std::byte*>(here) == static_cast<std::byte*>(imported->address()) + block.offset());
    *here = 0x5eed;
    CHECK(*static_cast<std::uint32_t*>(block.address()) == 0x5eed);
    const std::uint64_t end =
        reinterpret_cast<std::uintptr_t>(meeting[1].host_arena()->address()) + imported->mapped_bytes();
    CHECK(meeting[0].translate(1, LocationKind::host_numa, end - 8, 8) != nullptr);
    const auto wrong = [&](std::uint64_t at, std::uint64_t bytes) {
        FABRICMEM_CHECK_ERROR(meeting[0].translate(1, LocationKind::host_numa, at, bytes), bad_argument,
                              "are not in the");
    };
    wrong(end - 8, 9);
    wrong(end + 1, 0);
    wrong(address - block.offset() - 1, 1);
    wrong(address, ~std::uint64_t{0});
    FABRICMEM_CHECK_ERROR(meeting[0].translate(2, LocationKind::device, address, 1), bad_argument, "not connected");
}

TEST_CASE("A rank that is expected is named, and waited for, before anything was heard of it", "[handshake]") {
    const auto driver = make_emulated_driver();
    Handshake own(driver, {.rank = 0, .max_ranks = 4});
    own.expect_peer(2);
    own.expect_peer(0);
    FABRICMEM_CHECK_ERROR(own.expect_peer(4), bad_argument, "slots for 4 ranks");
    const auto report = own.wait(soon(std::chrono::milliseconds(5)));
    REQUIRE(report.peers.size() == 2);
    CHECK(report.pending == 1);
    CHECK(contains(report.describe(), "rank 2, no_hello: "));
    // How long it was waited for is told after its hello too.
    Handshake other(driver, {.rank = 2, .max_ranks = 4});
    CHECK(own.add_peer(2, other.hello()));
    CHECK(own.peer(2).in_no_hello >= std::chrono::milliseconds(5));
    own.remove_peer(2);
    CHECK(own.poll() == 0);
}

TEST_CASE("A rank is not connected before it has seen the other's echo", "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Meeting meeting({driver, driver});
    meeting.exchange();
    // Rank 1 does nothing: rank 0 writes, and goes no further.
    auto report = meeting[0].wait(soon(std::chrono::milliseconds(50)));
    REQUIRE(report.pending == 1);
    CHECK(report.peers[1].stage == PeerStage::proving);
    REQUIRE(report.peers[1].error.has_value());
    CHECK(report.peers[1].error->kind() == ErrorKind::timed_out);
    CHECK(contains(report.peers[1].error->what(), "has not come into this rank's device memory"));
    CHECK(contains(report.describe(), "rank 1, proving: "));
    // Rank 1 sees that token, and writes its own with the echo; it has no echo itself.
    report = meeting[1].wait(soon(std::chrono::milliseconds(50)));
    CHECK(report.pending == 1);
    CHECK(contains(report.peers[0].error->what(), "has not seen, by the deadline, what this rank wrote"));
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("Ranks on all nodes of a rack meet, those of one node too", "[handshake]") {
    const Rack rack;
    auto drivers = rack.drivers(5);
    drivers.push_back(driver_on(rack.fabric, "node3"));
    Meeting meeting(drivers);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    for (std::size_t rank = 0; rank < meeting.size(); ++rank) {
        for (const PeerReport& peer : meeting[rank].report().peers) {
            if (peer.rank != rank) check_proved(peer);
        }
    }
}

TEST_CASE("A rank that never comes is named at the deadline, and the others meet", "[handshake]") {
    const Rack rack;
    auto drivers = rack.drivers(3);
    drivers[1] = nullptr;
    Meeting meeting(drivers);
    meeting.exchange();
    REQUIRE(meeting.poll_until([&] { return meeting[0].peer(2).stage == PeerStage::connected; }));
    const auto report = meeting[0].wait(soon(std::chrono::milliseconds(20)));
    CHECK(report.connected == 1);
    CHECK(report.pending == 1);
    REQUIRE(report.peers[1].error.has_value());
    CHECK(report.peers[1].error->kind() == ErrorKind::timed_out);
    CHECK(contains(report.peers[1].error->what(), "rank 1: nothing was heard of it by the deadline"));
    CHECK(report.peers[1].error->details().check == "FM-PEER-007");
    CHECK(report.peers[1].side == Side::unknown);  // the channel for bytes may be at fault, on either side
    CHECK(report.peers[1].in_no_hello >= std::chrono::milliseconds(20));
}

TEST_CASE("A rank of another clique is a foreign domain on both sides", "[handshake]") {
    const Rack rack;
    rack.fabric->set_clique("node2", 99);
    Meeting meeting(rack.drivers(3));
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].peer(1).stage == PeerStage::connected);
    for (const auto& [from, to] : {std::pair(0, 2), {2, 0}, {1, 2}}) {
        const PeerReport peer = meeting[static_cast<std::size_t>(from)].peer(static_cast<std::uint32_t>(to));
        CHECK(peer.stage == PeerStage::failed);
        REQUIRE(peer.error.has_value());
        CHECK(peer.error->kind() == ErrorKind::foreign_domain);
        CHECK(contains(peer.error->what(), "clique 99"));
        CHECK(peer.error->details().check == "FM-PEER-002");
        CHECK(peer.side == Side::between);
    }
}

TEST_CASE("A rank without an IMEX channel tells the others why it can't be reached", "[handshake]") {
    const Rack rack;
    const QuietLog quiet;
    auto drivers = rack.drivers(2);
    rack.fabric->set_channels("node2", ChannelNodes::absent);
    drivers.push_back(driver_on(rack.fabric, "node2"));
    Meeting meeting(drivers);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].peer(1).stage == PeerStage::connected);
    const PeerReport peer = meeting[0].peer(2);
    CHECK(peer.stage == PeerStage::failed);
    REQUIRE(peer.error.has_value());
    CHECK(peer.error->kind() == ErrorKind::unsupported);
    CHECK(contains(peer.error->what(), "rank 2 has no device memory"));
    CHECK(contains(peer.error->what(), "cuMemCreate"));
    CHECK(contains(peer.error->what(), "(its check FM-CHANNEL-001)"));
    CHECK(peer.error->details().check == "FM-PEER-006");
    CHECK(peer.side == Side::there);
    CHECK(meeting[0].peer(1).side == Side::none);
    const PeerReport self = meeting[2].peer(2);
    REQUIRE(self.error.has_value());
    CHECK(contains(self.error->what(), "IMEX channel"));
    CHECK(self.error->details().check == "FM-CHANNEL-001");
    CHECK(self.side == Side::here);
    // Those whom it can't reach for want of a channel are not to blame.
    CHECK(meeting[2].peer(0).side == Side::here);
    CHECK(contains(meeting[2].report().describe(), "rank 2, self: "));
}

TEST_CASE("A handle from before the daemon was up is cured by the next hello", "[handshake]") {
    const Rack rack;
    rack.fabric->set_imex_daemon("node0", ImexDaemon::down);
    Meeting meeting(rack.drivers(2));
    meeting.exchange();
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    REQUIRE(meeting.poll_until([&] { return meeting[1].peer(0).device.error.has_value(); }));
    CHECK(meeting[1].peer(0).stage == PeerStage::importing);
    CHECK(meeting[1].peer(0).device.error->kind() == ErrorKind::peer_gone);
    meeting.tell_all(meeting[0]);
    REQUIRE(meeting.poll_until_done());
    check_proved(meeting[1].peer(0));
    check_proved(meeting[0].peer(1));
    CHECK(meeting[1].peer(0).imports_tried >= 3);
}

TEST_CASE("A daemon that comes up late is waited for", "[handshake]") {
    const Rack rack;
    Meeting meeting(rack.drivers(2));
    meeting.exchange();
    rack.fabric->set_imex_daemon("node1", ImexDaemon::down);
    REQUIRE(meeting.poll_until([&] { return meeting[1].peer(0).imports_tried > 4; }));
    const auto report = meeting[1].wait(soon(std::chrono::milliseconds(1)));
    REQUIRE(report.peers[0].error.has_value());
    CHECK(report.peers[0].error->kind() == ErrorKind::system);
    CHECK(contains(report.peers[0].error->what(), "nvidia-imex"));
    rack.fabric->set_imex_daemon("node1", ImexDaemon::ready);
    meeting.exchange();  // what was exported before is not known to the new daemon
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("An import that never returns is given up, named, and stops nobody else", "[handshake]") {
    const Rack rack;
    const QuietLog quiet;
    const auto drivers = rack.drivers(3);
    HandshakeOptions options;
    options.import_timeout = std::chrono::milliseconds(40);
    const auto before = emulated_counts(*drivers[0]);
    {
        Meeting meeting(drivers, options);
        meeting.exchange();
        rack.fabric->set_imports("node1", RemoteCalls::hang);
        REQUIRE(meeting.poll_until([&] { return meeting[0].peer(2).stage == PeerStage::connected; }));
        REQUIRE(meeting.poll_until([&] { return meeting[1].peer(0).device.error.has_value(); }));
        const auto report = meeting[1].wait(soon(std::chrono::milliseconds(1)));
        REQUIRE(report.peers[0].error.has_value());
        CHECK(report.peers[0].error->kind() == ErrorKind::timed_out);
        CHECK(contains(report.peers[0].error->what(), "cuMemImportFromShareableHandle"));
        CHECK(stuck_calls(*drivers[1]) > 0);
        rack.fabric->set_imports("node1", RemoteCalls::answer);
        REQUIRE(meeting.poll_until_done());
        CHECK(meeting.all_connected());
        meeting.close();
    }
    CHECK(emulated_counts(*drivers[0]) == before);
}

TEST_CASE("A rank that comes back is another one: what was is dropped, the others are left alone", "[handshake]") {
    const Rack rack;
    const auto drivers = rack.drivers(3);
    Meeting meeting(drivers);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    const auto others = meeting[0].imported(2, LocationKind::device);
    const auto old = meeting[0].imported(1, LocationKind::device);
    const std::uint64_t old_incarnation = meeting[1].incarnation();
    meeting.replace(1, nullptr);
    meeting.replace(1, std::make_unique<Handshake>(drivers[1], HandshakeOptions{.rank = 1, .world_size = 3}));
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    CHECK(meeting[0].peer(1).stage == PeerStage::importing);
    CHECK(meeting[0].imported(1, LocationKind::device) == nullptr);
    CHECK(meeting[0].imported(2, LocationKind::device) == others);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    check_proved(meeting[0].peer(1));
    check_proved(meeting[2].peer(1));
    CHECK(meeting[0].peer(1).incarnation != old_incarnation);
    CHECK(meeting[0].imported(1, LocationKind::device) != old);
    CHECK(meeting[0].imported(2, LocationKind::device) == others);
}

TEST_CASE("A token of a former life means nothing", "[handshake]") {
    const Rack rack;
    const auto drivers = rack.drivers(2);
    Meeting meeting(drivers);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    // Rank 1 comes back, and has not imported anything yet: what its former life wrote is still in rank 0's slots.
    const auto former = meeting[1].hello();
    meeting.replace(1, std::make_unique<Handshake>(drivers[1], HandshakeOptions{.rank = 1, .world_size = 2}));
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    const auto report = meeting[0].wait(soon(std::chrono::milliseconds(50)));
    CHECK(report.pending == 1);
    REQUIRE(report.peers[1].error.has_value());
    CHECK(contains(report.peers[1].error->what(), "its token has not come"));
    CHECK(contains(report.peers[1].error->what(), "Exporter: host"));
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
    // A channel that is late brings the former hello again.
    FABRICMEM_CHECK_ERROR(meeting[0].add_peer(1, former), conflict, "of a former life");
    check_proved(meeting[0].peer(1));
}

TEST_CASE("Tokens of a process that nobody has heard of are a conflict", "[handshake]") {
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver});
    Handshake other(driver, {.rank = 1, .world_size = 2});
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    CHECK(other.add_peer(0, meeting[0].hello()));
    REQUIRE(meeting.poll_until([&] {
        static_cast<void>(other.poll());
        return other.peer(0).stage == PeerStage::proving;
    }));
    const auto report = [&] {
        for (int i = 0; i < 20; ++i) {
            static_cast<void>(other.poll());
            static_cast<void>(meeting[0].wait(soon(std::chrono::milliseconds(5))));
        }
        return meeting[0].wait(soon(std::chrono::milliseconds(5)));
    }();
    REQUIRE(report.peers[1].error.has_value());
    CHECK(report.peers[1].error->kind() == ErrorKind::conflict);
    CHECK(contains(report.peers[1].error->what(), "another process uses its slot"));
}

TEST_CASE("Ranks come and go while others stay connected", "[handshake]") {
    const Rack rack;
    std::vector<std::unique_ptr<Handshake>> ranks;
    const auto drivers = rack.drivers(3);
    for (std::uint32_t rank = 0; rank < 3; ++rank)
        ranks.push_back(std::make_unique<Handshake>(drivers[rank], HandshakeOptions{.rank = rank, .max_ranks = 8}));
    Meeting meeting(std::move(ranks));
    CHECK(meeting[0].poll() == 0);
    CHECK(meeting[0].report().peers.size() == 1);
    const auto counts = emulated_counts(*drivers[0]);
    CHECK(meeting[0].add_peer(1, meeting[1].hello()));
    CHECK(meeting[1].add_peer(0, meeting[0].hello()));
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].add_peer(2, meeting[2].hello()));
    CHECK(meeting[2].add_peer(0, meeting[0].hello()));
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting[0].report().connected == 2);
    CHECK_FALSE(meeting[0].add_peer(2, meeting[2].hello()));
    meeting[0].remove_peer(1);
    meeting[0].remove_peer(2);
    meeting[0].remove_peer(2);
    FABRICMEM_CHECK_ERROR(meeting[0].peer(1), bad_argument, "rank 1 was neither expected nor added");
    CHECK(meeting[0].report().peers.size() == 1);
    // The imports end on a thread of their own.
    REQUIRE(meeting.poll_until([&] { return emulated_counts(*drivers[0]) == counts; }));
    FABRICMEM_CHECK_ERROR(meeting[0].add_peer(8, meeting[2].hello()), bad_argument, "slots for 8 ranks");
}

TEST_CASE("A lying channel is a typed error, and a connected peer stays connected", "[handshake]") {
    const Rack rack;
    Meeting meeting(rack.drivers(3));
    Handshake& here = meeting[0];
    const auto good = meeting[1].hello();
    const std::vector<std::byte> noise(10'000'000, std::byte{0x5c});
    const auto first = [&](std::size_t bytes) { return std::span(good).first(bytes); };
    FABRICMEM_CHECK_ERROR(here.add_peer(1, {}), bad_blob, "0 bytes");
    FABRICMEM_CHECK_ERROR(here.add_peer(1, noise), bad_blob, "10000000 bytes");
    FABRICMEM_CHECK_ERROR(here.add_peer(1, first(good.size() - 1)), bad_blob, "1279 bytes");
    FABRICMEM_CHECK_ERROR(here.add_peer(1, std::span(noise).first(good.size())), bad_blob, "something else");
    FABRICMEM_CHECK_ERROR(here.add_peer(2, good), conflict, "it is rank 1's");
    CHECK(contains(here.peer(2).error->what(), "it is rank 1's"));
    for (std::size_t i = 0; i < good.size(); ++i) {
        auto wrong = good;
        wrong[i] ^= std::byte{0x10};
        INFO("byte " << i);
        CHECK(kind_of([&] { here.add_peer(1, wrong); }) == ErrorKind::bad_blob);
    }
    detail::Hello other = detail::Hello::from_bytes(good);
    other.world_size = 7;
    FABRICMEM_CHECK_ERROR(here.add_peer(1, other.to_bytes()), conflict, "world_size 7, and this rank says 3");
    other = detail::Hello::from_bytes(good);
    other.group.bytes[0] = 1;
    FABRICMEM_CHECK_ERROR(here.add_peer(1, other.to_bytes()), conflict, "of the group 01");
    other = detail::Hello::from_bytes(good);
    other.device.blob = other.host.blob;
    FABRICMEM_CHECK_ERROR(here.add_peer(1, other.to_bytes()), bad_blob, "wrong kind of memory");
    other = detail::Hello::from_bytes(good);
    other.device.blob = other.device.blob->sub_range(0, 128);
    FABRICMEM_CHECK_ERROR(here.add_peer(1, other.to_bytes()), bad_blob, "a region of 128 bytes");
    CHECK(here.peer(1).stage == PeerStage::no_hello);
    CHECK(here.peer(1).error.has_value());
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    FABRICMEM_CHECK_ERROR(here.add_peer(1, noise), bad_blob, "no hello");
    check_proved(here.peer(1));
}

TEST_CASE("A hello with a handle that names nothing ends in an error by the deadline", "[handshake]") {
    const Rack rack;
    Meeting meeting(rack.drivers(2));
    detail::Hello wrong = detail::Hello::from_bytes(meeting[1].hello());
    wrong.device.blob->handle[20] ^= 0xff;
    CHECK(meeting[0].add_peer(1, wrong.to_bytes()));
    const auto report = meeting[0].wait(soon(std::chrono::milliseconds(60)));
    CHECK(report.connected == 0);
    CHECK(report.peers[1].error.has_value());
}

TEST_CASE("Two ranks of one number are a conflict", "[handshake]") {
    const auto driver = make_emulated_driver();
    Handshake zero(driver, {.rank = 0, .world_size = 2});
    Handshake other_zero(driver, {.rank = 0, .world_size = 2});
    FABRICMEM_CHECK_ERROR(zero.add_peer(0, other_zero.hello()), conflict, "another process is rank 0");
    CHECK_FALSE(zero.add_peer(0, zero.hello()));
    Handshake one(driver, {.rank = 1, .world_size = 2});
    CHECK(zero.add_peer(1, one.hello()));
    // As if of another process of this node.
    detail::Hello of_other_process = detail::Hello::from_bytes(one.hello());
    of_other_process.incarnation = 77;
    *of_other_process.device.blob->process_id += 1;
    FABRICMEM_CHECK_ERROR(zero.add_peer(1, of_other_process.to_bytes()), conflict, "two processes are rank 1");
    CHECK(zero.peer(1).incarnation == one.incarnation());
    zero.remove_peer(1);
    CHECK(zero.add_peer(1, of_other_process.to_bytes()));
}

TEST_CASE("Trust connects by the imports alone, and says so", "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    HandshakeOptions options;
    options.policy = ProofPolicy::trust;
    Meeting meeting({driver, driver}, options);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    const PeerReport peer = meeting[0].peer(1);
    CHECK(peer.stage == PeerStage::connected);
    CHECK(peer.device.state == PathState::trusted);
    CHECK(peer.host.state == PathState::trusted);
    CHECK(peer.device.from_device == -1);
    meeting[0].health_check(1, soon(kPatience));
}

TEST_CASE("Slots on devices alone are proved there alone", "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    HandshakeOptions options;
    options.placement = SlotPlacement::device;
    Meeting meeting({driver, driver}, options);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    const PeerReport peer = meeting[0].peer(1);
    CHECK(peer.stage == PeerStage::connected);
    CHECK(peer.device.state == PathState::proved);
    CHECK(peer.host.state == PathState::absent);
    CHECK(peer.slots == LocationKind::device);
    CHECK(contains(peer.slots_reason, "slots were asked for on devices"));
    CHECK(meeting[0].host_arena() == nullptr);
}

TEST_CASE("The caller's writer carries the tokens, and nothing is imported", "[handshake]") {
    // A transport of the process's own: it knows the ranks' arenas by their addresses.
    const auto driver = make_emulated_driver();
    const PrimaryContext context(driver, 0);
    std::size_t writes = 0;
    HandshakeOptions options;
    options.writer = [&](const WriteRequest& request) {
        ++writes;
        CHECK(request.bytes.size() == 64);
        REQUIRE(driver->memcpy_htod(request.peer_address, request.bytes.data(), request.bytes.size()) == CUDA_SUCCESS);
    };
    Meeting meeting({driver, driver}, options);
    const auto counts = emulated_counts(*driver);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
    CHECK(writes >= 4);
    CHECK(meeting[0].peer(1).device.state == PathState::proved);
    CHECK(meeting[0].peer(1).device.from_device == -1);
    CHECK(meeting[0].imported(1, LocationKind::device) == nullptr);
    CHECK(emulated_counts(*driver) == counts);
    FABRICMEM_CHECK_ERROR(meeting[0].health_check(1, soon(kPatience)), unsupported, "caller's writer");
}

TEST_CASE("A writer is asked again after a failure that may pass", "[handshake]") {
    const auto driver = make_emulated_driver();
    const PrimaryContext context(driver, 0);
    int failures = 0;
    HandshakeOptions options;
    options.retry_pause = std::chrono::milliseconds(1);
    options.writer = [&](const WriteRequest& request) {
        if (failures++ < 5) throw Error({.kind = ErrorKind::system, .subject = "the transfer engine is not up yet"});
        REQUIRE(driver->memcpy_htod(request.peer_address, request.bytes.data(), request.bytes.size()) == CUDA_SUCCESS);
    };
    Meeting meeting({driver, driver}, options);
    meeting.exchange();
    REQUIRE(meeting.poll_until([&] { return meeting[0].peer(1).device.error.has_value(); }));
    CHECK(contains(meeting[0].peer(1).device.error->what(), "not up yet"));
    REQUIRE(meeting.poll_until_done());
    CHECK(meeting.all_connected());
}

TEST_CASE("A writer that throws fails its path", "[handshake]") {
    const auto driver = make_emulated_driver();
    HandshakeOptions options;
    options.writer = [](const WriteRequest&) { throw std::runtime_error("Requested address not found"); };
    Meeting meeting({driver, driver}, options);
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    REQUIRE(meeting[0].peer(1).error.has_value());
    CHECK(contains(meeting[0].peer(1).error->what(), "Requested address not found"));
}

TEST_CASE("Groups side by side on one arena don't see each other", "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    auto device_arena = std::make_shared<Arena>(driver, kMiB, FabricBufferOptions{.location = Location::device(0)});
    auto host_arena = std::make_shared<Arena>(driver, kMiB, FabricBufferOptions{.location = Location::host_nearest(0)});
    HandshakeOptions options;
    options.device_arena = device_arena;
    options.host_arena = host_arena;
    options.group.bytes[15] = 1;
    {
        Meeting one({driver, driver}, options);
        options.group.bytes[15] = 2;
        Meeting two({driver, driver}, options);
        FABRICMEM_CHECK_ERROR(one[0].add_peer(1, two[1].hello()), conflict, "group");
        one.exchange();
        two.exchange();
        REQUIRE(one.poll_until_done());
        REQUIRE(two.poll_until_done());
        CHECK(one.all_connected());
        CHECK(two.all_connected());
        CHECK(device_arena->statistics().live_blocks == 4);
        one.close();
        CHECK(device_arena->statistics().live_blocks == 2);
        two[0].health_check(1, soon(kPatience));
    }
    CHECK(device_arena->statistics().live_blocks == 0);
    CHECK(host_arena->close() == CloseResult::released);
    CHECK(device_arena->close() == CloseResult::released);
}

TEST_CASE("What a handshake made is given back, with peers in any stage", "[handshake]") {
    const Rack rack;
    const auto drivers = rack.drivers(3);
    const auto before = emulated_counts(*drivers[0]);
    for (const int polls : {0, 1, 2, 3, 5, 8, 13, 100}) {
        INFO(polls << " polls");
        Meeting meeting(drivers);
        meeting.exchange();
        for (int i = 0; i < polls; ++i) {
            for (std::size_t rank = 0; rank < meeting.size(); ++rank) static_cast<void>(meeting[rank].poll());
        }
        meeting.close();
        meeting.close();
        CHECK(emulated_counts(*drivers[0]) == before);
        FABRICMEM_CHECK_ERROR(meeting[0].poll(), closed, "closed");
    }
    CHECK(stuck_calls(*drivers[0]) == 0);
}

TEST_CASE("Work that holds the null stream up stops neither a meeting nor a health check", "[handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FabricBuffer gate(driver, 64, {.location = Location::device(0), .zeroing = Zeroing::memset});
    const PrimaryContext context(driver, 0);
    REQUIRE(driver->stream_wait_value32(nullptr, pointer(gate), 1, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS);
    {
        Meeting meeting({driver, driver});
        meeting.exchange();
        CHECK(meeting.poll_until_done());
        CHECK(meeting.all_connected());
        meeting[0].health_check(1, soon(kPatience));
        meeting.close();
    }
    CHECK(driver->stream_query(nullptr) == CUDA_ERROR_NOT_READY);
    CUstream other = nullptr;
    REQUIRE(driver->stream_create(&other, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    REQUIRE(driver->stream_write_value32(other, pointer(gate), 1, 0) == CUDA_SUCCESS);
    CHECK(driver->stream_synchronize(nullptr) == CUDA_SUCCESS);
    driver->stream_destroy(other);
}

TEST_CASE("Host memory that one side can't reach is done without by both, and both say why", "[handshake]") {
    const QuietLog quiet;
    const auto good = make_emulated_driver();
    const auto refusing = std::make_shared<RefusesImports>(good, CUDA_ERROR_NOT_SUPPORTED);
    Meeting meeting({refusing, good});
    refusing->refuse(*meeting[1].host_arena());
    meeting.exchange();
    // It may be a daemon that comes up yet, so it is tried until the deadline.
    const auto report = [&] {
        REQUIRE(meeting.poll_until([&] { return meeting[0].peer(1).device.state == PathState::proved; }));
        return meeting[0].wait(soon(std::chrono::milliseconds(20)));
    }();
    CHECK(report.all_connected());
    CHECK(report.peers[1].host.state == PathState::failed);
    CHECK(report.peers[1].slots == LocationKind::device);
    CHECK(contains(report.peers[1].slots_reason, "cuMemImportFromShareableHandle"));
    REQUIRE(meeting.poll_until_done());
    const PeerReport other = meeting[1].peer(0);
    CHECK(other.stage == PeerStage::connected);
    CHECK(other.device.state == PathState::proved);
    CHECK(other.host.state == PathState::failed);
    CHECK(contains(other.slots_reason, "rank 0 could not reach this rank's host memory, and says so"));
    REQUIRE(other.host.error.has_value());
    CHECK(other.host.error->details().check == "FM-PEER-009");
}

TEST_CASE("Device memory that one side can't reach is a failure that both learn of", "[handshake]") {
    const QuietLog quiet;
    const auto good = make_emulated_driver();
    // What the driver answers here is final: no later try makes it better.
    const auto refusing = std::make_shared<RefusesImports>(good, CUDA_ERROR_INVALID_VALUE);
    Meeting meeting({refusing, good});
    refusing->refuse(*meeting[1].device_arena());
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    CHECK(contains(meeting[0].report().describe(), "rank 1, failed: cuMemImportFromShareableHandle"));
    CHECK(contains(meeting[1].report().describe(), "rank 0 could not reach this rank's device memory, and says so"));
}

TEST_CASE("A GPU that copies no more fails the peers that are not connected", "[handshake]") {
    const QuietLog quiet;
    const auto good = make_emulated_driver();
    const auto faulty = std::make_shared<FaultDriver>(good);
    Meeting meeting({faulty, good});
    meeting.exchange();
    faulty->add({.call = "cuMemcpyAsync", .result = CUDA_ERROR_LAUNCH_FAILED});
    REQUIRE(meeting.poll_until([&] { return meeting[0].peer(1).stage == PeerStage::failed; }));
    CHECK(meeting[0].peer(1).error->code() == CUDA_ERROR_LAUNCH_FAILED);
    const auto report = meeting[1].wait(soon(std::chrono::milliseconds(20)));
    CHECK(report.pending == 1);
    meeting.close();
}

TEST_CASE("Reports, hellos and health checks go on beside a thread that polls", "[handshake]") {
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver, driver});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::uint32_t rank = 0; rank < 3; ++rank) {
        threads.emplace_back([&, rank] {
            while (!stop) {
                static_cast<void>(meeting[rank].poll());
                static_cast<void>(meeting[rank].report().describe());
                static_cast<void>(meeting[rank].hello());
            }
        });
    }
    for (int i = 0; i < 40; ++i) {
        meeting[0].health_check(1, soon(kPatience));
        CHECK(meeting[0].imported(1, LocationKind::device) != nullptr);
        meeting[0].remove_peer(2);
        CHECK(meeting[0].add_peer(2, meeting[2].hello()));
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
}

TEST_CASE("A forked child's handshake does nothing and says so", "[handshake]") {
    const auto driver = make_emulated_driver();
    Meeting meeting({driver, driver});
    meeting.exchange();
    REQUIRE(meeting.poll_until_done());
    const pid_t child = ::fork();
    if (child == 0) {
        int wrong = 0;
        try {
            static_cast<void>(meeting[0].poll());
            wrong = 1;
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::unsupported) wrong = 2;
        }
        meeting.replace(0, nullptr);
        ::_exit(wrong);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    meeting[0].health_check(1, soon(kPatience));
}

TEST_CASE("Wrong options are refused", "[handshake]") {
    const auto driver = make_emulated_driver();
    const auto make = [&](HandshakeOptions options) { Handshake made(driver, std::move(options)); };
    FABRICMEM_CHECK_ERROR(make({.max_ranks = 0}), bad_argument, "max_ranks is 0");
    FABRICMEM_CHECK_ERROR(make({.max_ranks = 65'537}), bad_argument, "max_ranks is 65537");
    FABRICMEM_CHECK_ERROR(make({.rank = 9, .max_ranks = 9}), bad_argument, "rank 9, and at most 9");
    FABRICMEM_CHECK_ERROR(make({.rank = 3, .world_size = 3}), bad_argument, "rank 3 of 3");
    FABRICMEM_CHECK_ERROR(make({.world_size = 2000}), bad_argument, "world_size is 2000");
    FABRICMEM_CHECK_ERROR(make({.device = -1}), bad_argument, "device -1");
    FABRICMEM_CHECK_ERROR(make({.device = 99}), bad_argument, "device 99");
    FABRICMEM_CHECK_ERROR(make({.import_timeout = std::chrono::milliseconds(0)}), bad_argument, "import_timeout");
    FABRICMEM_CHECK_ERROR(Handshake(nullptr, {}), bad_argument, "null");
    const auto host_arena =
        std::make_shared<Arena>(driver, kMiB, FabricBufferOptions{.location = Location::host_numa(0)});
    FABRICMEM_CHECK_ERROR(make({.device_arena = host_arena}), bad_argument, "an arena on");
    FABRICMEM_CHECK_ERROR(make({.max_ranks = 65'536, .host_arena = host_arena}), bad_argument, "bytes");
}
