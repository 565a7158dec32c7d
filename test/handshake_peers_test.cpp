// SPDX-License-Identifier: Apache-2.0
// Ranks in processes of their own: they meet, one dies, one comes back.
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/handshake.hpp>

#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/hello_hex.hpp"
#include "support/meeting.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr int kPatienceSeconds = 60;

struct Rank {
    Rank(std::uint32_t number, std::uint32_t world_size)
        : process({FABRICMEM_TEST_HANDSHAKE_PEER, std::to_string(number), std::to_string(world_size)}) {
        hello = read();
    }
    std::string read() {
        const auto line = process.read_line(in_seconds(kPatienceSeconds));
        REQUIRE(line.has_value());
        return *line;
    }
    void tell(const std::string& line) { REQUIRE(process.send_line(line)); }
    std::string ask(const std::string& line) {
        tell(line);
        return read();
    }

    ChildProcess process;
    std::string hello;
};

std::string told(std::uint32_t rank, const std::string& hello) { return "peer " + std::to_string(rank) + " " + hello; }

}  // namespace

TEST_CASE("Ranks in processes of their own prove both kinds of memory", "[handshake][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    std::vector<std::unique_ptr<Rank>> ranks;
    for (std::uint32_t i = 0; i < 3; ++i) ranks.push_back(std::make_unique<Rank>(i, 4));
    Handshake own(driver, {.rank = 3, .world_size = 4});
    const auto hello = own.hello();
    for (std::uint32_t to = 0; to < 3; ++to) {
        for (std::uint32_t from = 0; from < 3; ++from) {
            if (from != to) CHECK(ranks[to]->ask(told(from, ranks[from]->hello)) == "new");
        }
        CHECK(ranks[to]->ask(told(3, hello_to_hex(hello))) == "new");
        CHECK(own.add_peer(to, hello_from_hex(ranks[to]->hello)));
    }
    for (const auto& rank : ranks) rank->tell("wait 60000");
    const auto report = own.wait(soon(std::chrono::seconds(kPatienceSeconds)));
    INFO(report.describe());
    CHECK(report.connected == 3);
    for (const auto& rank : ranks) CHECK(rank->read() == "3 0 0");
    for (const PeerReport& peer : report.peers) {
        if (peer.rank == 3) continue;
        CHECK(peer.device.state == PathState::proved);
        CHECK(peer.host.state == PathState::proved);
        own.health_check(peer.rank, soon(std::chrono::seconds(kPatienceSeconds)));
    }
    CHECK(ranks[0]->ask("health 3 60000") == "well");
}

TEST_CASE("A rank that is killed is missed by a health check, and its next life is met", "[handshake][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    auto other = std::make_unique<Rank>(1, 2);
    Handshake own(driver, {.rank = 0, .world_size = 2});
    const auto meet = [&] {
        CHECK(own.add_peer(1, hello_from_hex(other->hello)));
        CHECK(other->ask(told(0, hello_to_hex(own.hello()))) == "new");
        other->tell("wait 60000");
        const auto report = own.wait(soon(std::chrono::seconds(kPatienceSeconds)));
        INFO(report.describe());
        CHECK(report.connected == 1);
        CHECK(other->read() == "1 0 0");
        own.health_check(1, soon(std::chrono::seconds(kPatienceSeconds)));
    };
    meet();
    const std::uint64_t first_life = own.peer(1).incarnation;
    other->process.signal(SIGKILL);
    REQUIRE(other->process.wait(in_seconds(kPatienceSeconds)) == Ended{-1, SIGKILL});
    FABRICMEM_CHECK_ERROR(own.health_check(1, soon(std::chrono::seconds(kPatienceSeconds))), peer_gone, "is gone");
    other = std::make_unique<Rank>(1, 2);
    meet();
    CHECK(own.peer(1).incarnation != first_life);
}

TEST_CASE("A rank that is killed before it could be met is named at the deadline", "[handshake][peers][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Rank other(1, 2);
    other.process.signal(SIGKILL);
    REQUIRE(other.process.wait(in_seconds(kPatienceSeconds)) == Ended{-1, SIGKILL});
    Handshake own(driver, {.rank = 0, .world_size = 2});
    CHECK(own.add_peer(1, hello_from_hex(other.hello)));
    const auto report = own.wait(soon(std::chrono::milliseconds(100)));
    CHECK(report.pending == 1);
    REQUIRE(report.peers[1].error.has_value());
    CHECK(report.peers[1].error->kind() == ErrorKind::peer_gone);
}
