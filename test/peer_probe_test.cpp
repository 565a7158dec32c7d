// SPDX-License-Identifier: Apache-2.0
// Two sides try each other's memory: what works, what does not, and whose business it is.
#include <fabricmem/peer_probe.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/fault_driver.hpp>

#include "buffer/deadline.hpp"
#include "driver/driver_state.hpp"
#include "probe/peer_probe_bytes.hpp"
#include "support/buffers.hpp"
#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/fabric_kit.hpp"
#include "support/hello_hex.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using Bytes = std::vector<std::byte>;
constexpr std::chrono::minutes kNever{10};

void check_failed(const PeerProbeResult& result, Side side, const char* check) {
    INFO(result.summary);
    CHECK_FALSE(result.usable());
    CHECK(to_string(result.side) == to_string(side));
    REQUIRE(result.why_not.has_value());
    CHECK(result.why_not->details().check == check);
    CHECK_FALSE(result.why_not->details().cure.empty());
}

}  // namespace

TEST_CASE("Another process's memory is imported and holds what its GPU wrote", "[probe][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const char* const place : {"device", "host"}) {
        CAPTURE(place);
        ChildProcess peer({FABRICMEM_TEST_BUFFER_PEER, place, "probe"});
        const auto line = peer.read_line(in_seconds(60));
        REQUIRE(line.has_value());
        const PeerProbeResult result = check_peer_probe(driver, hello_from_hex(*line), {.timeout = kNever});
        INFO(result.summary);
        CHECK(result.usable());
        CHECK_FALSE(result.why_not.has_value());
        CHECK(result.same_node);
        CHECK(contains(result.peer, "process " + std::to_string(peer.pid())));
        peer.signal(SIGKILL);
        REQUIRE(peer.wait(in_seconds(60)).has_value());
        check_failed(check_peer_probe(driver, hello_from_hex(*line), {.timeout = kNever}), Side::there, "FM-PEER-001");
    }
}

TEST_CASE("Nodes of one domain can use each other's memory", "[probe][peers]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const auto here = driver_on(fabric, fabric->scenario().nodes[0].name);
    const auto there = driver_on(fabric, fabric->scenario().nodes[5].name);
    const PeerProbe probe = make_peer_probe(there, Location::device(1));
    CHECK_FALSE(probe.why_not().has_value());
    const PeerProbeResult result = check_peer_probe(here, probe.bytes());
    INFO(result.summary);
    CHECK(result.usable());
    CHECK_FALSE(result.same_node);
    CHECK(emulated_counts(*here).allocations == 0);
}

TEST_CASE("Two nodes that can't reach each other are told why, and whose business it is", "[probe][peers]") {
    const Fabric fabric = ready_made("two-racks");
    const auto& nodes = fabric->scenario().nodes;
    const auto here = driver_on(fabric, nodes.front().name);
    const auto other_rack = driver_on(fabric, nodes.back().name);
    const auto neighbour = driver_on(fabric, nodes[1].name);
    const QuietLog quiet;
    const PeerProbe foreign = make_peer_probe(other_rack, Location::device(0));
    check_failed(check_peer_probe(here, foreign.bytes()), Side::between, "FM-PEER-002");

    const PeerProbe good = make_peer_probe(neighbour, Location::device(0));
    fabric->set_imex_daemon(nodes.front().name, ImexDaemon::down);
    check_failed(check_peer_probe(here, good.bytes()), Side::here, "FM-IMEX-001");
    fabric->set_imex_daemon(nodes.front().name, ImexDaemon::ready);
    CHECK(check_peer_probe(here, good.bytes()).usable());

    fabric->set_imex_daemon(nodes[1].name, ImexDaemon::down);
    const PeerProbe local_only = make_peer_probe(neighbour, Location::device(0));
    fabric->set_imex_daemon(nodes[1].name, ImexDaemon::ready);
    check_failed(check_peer_probe(here, local_only.bytes()), Side::there, "FM-IMEX-005");
}

TEST_CASE("An import that hangs ends at its time, and names the daemon", "[probe][peers]") {
    const Fabric fabric = ready_made("two-racks");
    const auto& nodes = fabric->scenario().nodes;
    const auto here = driver_on(fabric, nodes.front().name);
    const PeerProbe probe = make_peer_probe(driver_on(fabric, nodes[1].name), Location::device(0));
    fabric->set_imports(nodes.front().name, RemoteCalls::hang);
    const PeerProbeResult result = check_peer_probe(here, probe.bytes(), {.timeout = std::chrono::milliseconds(20)});
    check_failed(result, Side::unknown, "FM-IMEX-004");
    CHECK(result.why_not->kind() == ErrorKind::timed_out);
    fabric->set_imports(nodes.front().name, RemoteCalls::answer);
    REQUIRE(detail::wait_until_stuck(*here, 0, kNever));
}

TEST_CASE("Who has no channel is to blame, on whichever side, and different channels are nobody's alone",
          "[probe][peers]") {
    const auto with = [](std::optional<int> channel, int open_errno = 0) {
        return make_emulated_driver({.imex_channel = channel, .imex_channel_errno = open_errno});
    };
    const PeerProbe good = make_peer_probe(with(0), Location::device(0));
    check_failed(check_peer_probe(with(std::nullopt), good.bytes()), Side::here, "FM-CHANNEL-001");
    check_failed(check_peer_probe(with(0, EACCES), good.bytes()), Side::here, "FM-CHANNEL-002");
    check_failed(check_peer_probe(with(1), good.bytes()), Side::between, "FM-CHANNEL-007");

    const PeerProbe none = make_peer_probe(with(0, EACCES), Location::device(0));
    REQUIRE(none.why_not().has_value());
    CHECK(none.why_not()->details().check == "FM-CHANNEL-002");
    const PeerProbeResult result = check_peer_probe(with(0), none.bytes());
    check_failed(result, Side::there, "FM-PEER-006");
    CHECK(contains(result.why_not->details().cause, "FM-CHANNEL-002"));
    CHECK(contains(result.why_not->details().cause, "mode or owner"));
    CHECK(contains(result.why_not->details().cure, "on the peer's side: as administrator: `chmod"));
    CHECK(result.why_not->kind() == ErrorKind::not_permitted);
    CHECK(contains(result.peer, "process "));
}

TEST_CASE("Memory that holds something else than its exporter said is found out", "[probe][peers]") {
    const auto driver = make_emulated_driver();
    const PeerProbe probe = make_peer_probe(driver, Location::device(0));
    auto said = detail::PeerProbeBytes::from_bytes(probe.bytes());
    said.token[3] ^= 1U;
    check_failed(check_peer_probe(driver, said.to_bytes()), Side::unknown, "FM-PEER-008");
}

TEST_CASE("Memory that its exporter has given back is the exporter's business", "[probe][peers]") {
    const auto exporter = make_emulated_driver();
    Bytes bytes;
    {
        PeerProbe probe = make_peer_probe(exporter, Location::device(0));
        PeerProbe moved = std::move(probe);
        CHECK(error_of([&] { static_cast<void>(probe.bytes()); })->kind() == ErrorKind::closed);
        CHECK_FALSE(probe.why_not().has_value());
        bytes = moved.bytes();
        CHECK(bytes.size() == PeerProbe::kBytes);
        CHECK(check_peer_probe(make_emulated_driver(), bytes).usable());
    }
    CHECK(emulated_counts(*exporter) == EmulatedCounts());
    check_failed(check_peer_probe(make_emulated_driver(), bytes), Side::there, "FM-PEER-001");
}

TEST_CASE("Every flipped bit and every other length of a probe's bytes is refused before any driver call",
          "[probe][peers]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    const PeerProbe probe = make_peer_probe(make_emulated_driver(), Location::device(0));
    const Bytes good = probe.bytes();
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        Bytes bad = good;
        bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        const PeerProbeResult result = check_peer_probe(driver, bad);
        if (result.side != Side::there || result.why_not->details().check != "FM-PEER-005") {
            CAPTURE(bit, result.summary);
            CHECK(false);
        }
    }
    for (const std::size_t length : {0UL, 1UL, 8UL, 1023UL, 1025UL, 10UL << 20}) {
        Bytes other = good;
        other.resize(length);
        check_failed(check_peer_probe(driver, other), Side::there, "FM-PEER-005");
    }
    CHECK(driver->calls().empty());
}

TEST_CASE("A probe's bytes say what they were made of, with or without memory", "[probe][peers]") {
    detail::PeerProbeBytes said;
    said.kind = ErrorKind::not_permitted;
    said.code = 800;
    said.check = "FM-CHANNEL-001";
    said.why_not = "no channel";
    said.host_id = Id128{{1}};
    said.process_id = 77;
    CHECK(detail::PeerProbeBytes::from_bytes(said.to_bytes()) == said);
    said.boot_id = Id128{{2}};
    said.token = {1, 2, 3, 4};
    CHECK(detail::PeerProbeBytes::from_bytes(said.to_bytes()) == said);
    said.why_not = std::string(1000, 'x');
    said.check = std::string(20, 'y');
    const auto cut = detail::PeerProbeBytes::from_bytes(said.to_bytes());
    CHECK(cut.why_not == std::string(384, 'x'));
    CHECK(cut.check == std::string(16, 'y'));
    said.why_not = "tab\tbell\a";
    CHECK(detail::PeerProbeBytes::from_bytes(said.to_bytes()).why_not == "tab?bell?");
}

TEST_CASE("A probe without a driver, or with no time, is a mistake of the caller's", "[probe][peers]") {
    const auto driver = make_emulated_driver();
    FABRICMEM_CHECK_ERROR(make_peer_probe(nullptr, Location::device(0)), bad_argument, "no driver");
    FABRICMEM_CHECK_ERROR(check_peer_probe(nullptr, Bytes(PeerProbe::kBytes)), bad_argument, "no driver");
    FABRICMEM_CHECK_ERROR(check_peer_probe(driver, Bytes(PeerProbe::kBytes), {.timeout = std::chrono::milliseconds(0)}),
                          bad_argument, "a timeout of 0 ms");
    FABRICMEM_CHECK_ERROR(check_peer_probe(driver, Bytes(PeerProbe::kBytes), {.device = -2}), bad_argument,
                          "a device -2");
}

TEST_CASE("A GPU that does not get to a probe's work is told, and nothing is ended under it", "[probe][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    detail::DriverState::of(*driver).patience.probing = std::chrono::milliseconds(0);
    driver->add({.call = "stream_query", .result = CUDA_ERROR_NOT_READY});
    const QuietLog quiet;
    const PeerProbe probe = make_peer_probe(driver, Location::device(0));
    REQUIRE(probe.why_not().has_value());
    CHECK(probe.why_not()->details().check == "FM-MEMORY-011");
    CHECK(emulated_counts(*emulated).mappings == 1);
    CHECK(emulated_counts(*emulated).streams == 1);
}

TEST_CASE("The device that is asked for reads a peer's memory, and no other gets to it", "[probe][peers]") {
    class Watcher : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override {
            retained.push_back(device);
            return FaultDriver::device_primary_ctx_retain(context, device);
        }
        std::vector<CUdevice> retained;
    };
    const Fabric fabric = ready_made("gb200-nvl72");
    const auto exporter = driver_on(fabric, fabric->scenario().nodes[5].name);
    const PeerProbe probe = make_peer_probe(exporter, Location::device(1));
    const auto emulated = driver_on(fabric, fabric->scenario().nodes[0].name);
    for (const int device : {-1, 0, 2}) {
        CAPTURE(device);
        const auto driver = std::make_shared<Watcher>(emulated);
        const PeerProbeResult result = check_peer_probe(driver, probe.bytes(), {.device = device});
        INFO(result.summary);
        CHECK(result.usable());
        CHECK(result.device == std::max(0, device));
        CHECK(driver->retained == std::vector<CUdevice>{std::max(0, device)});
        CHECK(emulated_counts(*emulated).mappings == 0);
    }
    const PeerProbeResult none = check_peer_probe(emulated, probe.bytes(), {.device = 77});
    CHECK_FALSE(none.usable());
    CHECK(none.device == -1);
    REQUIRE(none.why_not.has_value());
    CHECK(none.why_not->kind() == ErrorKind::bad_argument);
}

TEST_CASE("A device that does not get to reading a peer's memory is told, and nothing is ended under it",
          "[probe][peers][fault]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const PeerProbe probe = make_peer_probe(driver_on(fabric, fabric->scenario().nodes[5].name), Location::device(0));
    const auto emulated = driver_on(fabric, fabric->scenario().nodes[0].name);
    const auto driver = std::make_shared<FaultDriver>(emulated);
    detail::DriverState::of(*driver).patience.probing = std::chrono::milliseconds(0);
    detail::DriverState::of(*driver).patience.calling = kNever;
    driver->add({.call = "stream_query", .result = CUDA_ERROR_NOT_READY});
    const QuietLog quiet;
    const PeerProbeResult result = check_peer_probe(driver, probe.bytes());
    check_failed(result, Side::unknown, "FM-MEMORY-011");  // the GPU, or the link
    CHECK(result.why_not->kind() == ErrorKind::timed_out);
    CHECK(emulated_counts(*emulated).mappings == 2);  // the import, and what it is copied to
    CHECK(emulated_counts(*emulated).streams == 1);
    CHECK(stuck_calls(*driver) == 0);
}

TEST_CASE("A driver that hangs where a peer's memory is read is given up at its time, and what it held ends with it",
          "[probe][peers][fault]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const PeerProbe probe = make_peer_probe(driver_on(fabric, fabric->scenario().nodes[5].name), Location::device(0));
    for (const char* const call : {"memcpy_async", "device_primary_ctx_retain", "stream_query"}) {
        CAPTURE(call);
        const auto emulated = driver_on(fabric, fabric->scenario().nodes[0].name);
        const auto driver = std::make_shared<FaultDriver>(emulated);
        detail::DriverState::of(*driver).patience.probing = std::chrono::milliseconds(10);
        detail::DriverState::of(*driver).patience.calling = std::chrono::milliseconds(10);
        driver->add({.effect = Fault::Effect::hang, .call = call});
        const QuietLog quiet;
        const PeerProbeResult result = check_peer_probe(driver, probe.bytes(), {.timeout = kNever});
        check_failed(result, Side::unknown, "FM-DRIVER-008");
        CHECK(result.why_not->kind() == ErrorKind::timed_out);
        CHECK(stuck_calls(*driver) == 1);
        driver->clear();
        REQUIRE(detail::wait_until_stuck(*driver, 0, kNever));
        CHECK(emulated_counts(*emulated).mappings == 0);
        CHECK(emulated_counts(*emulated).allocations == 0);
    }
}
