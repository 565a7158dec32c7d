// SPDX-License-Identifier: Apache-2.0
// fabricmem-warmup as its users see it: who is connected to whom, what is said of the rest, what is left behind.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/build.hpp"
#include "support/warmup_program.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using Ranks = std::set<std::size_t>;

// Ranks 1, 2 and 3 of a rack of 72 places: in another clique, without a channel, and (left to --kill) dead.
constexpr std::size_t kForeign = 1;
constexpr std::size_t kWithoutChannel = 2;
constexpr std::size_t kDead = 3;
const Ranks kBroken{kForeign, kWithoutChannel, kDead};

Scenario broken_rack() {
    Scenario rack = Scenario::ready_made("gb200-nvl72");
    // One rank alone is to be in another clique or without a channel, so their nodes have one device. Six more nodes
    // make up for what that takes.
    for (const std::size_t node : {kForeign, kWithoutChannel}) rack.nodes[node].devices.resize(1);
    for (const char* name : {"lone0", "lone1", "lone2", "lone3", "lone4", "lone5"}) {
        rack.nodes.push_back(rack.nodes[kForeign]);
        rack.nodes.back().name = name;
    }
    rack.nodes[kForeign].devices[0].clique = 7;
    rack.nodes[kWithoutChannel].channels.clear();
    return rack;
}

/// For hellos, of which nobody here is told.
void wait_for_keys(const WarmupFolder& folder, std::size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kPatienceSeconds);
    while (folder.keys() < count) {
        REQUIRE(std::chrono::steady_clock::now() < deadline);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
}

void check_broken_rack(WarmupRun& run, std::size_t ranks) {
    CHECK(run.code == 1);
    CHECK_FALSE(run.document["ok"].get<bool>());
    CHECK(run.rest_is_connected(ranks, kBroken));
    CHECK(run.said_of(kForeign, ranks, kBroken) == std::set<std::string>{"foreign_domain"});
    CHECK(run.said_of(kWithoutChannel, ranks, kBroken) == std::set<std::string>{"unsupported"});
    CHECK(contains(run.peer(0, kWithoutChannel)["error"]["text"].get<std::string>(), "no IMEX channel node"));
    // Those that met it before it died may be connected to it; the last one was not there yet.
    CHECK(run.said_of(kDead, ranks, kBroken).count("no error") == 0);
    CHECK(run.stage(ranks - 1, kDead) != "connected");
    CHECK(run.document["reports"][kDead]["killed"].get<bool>());
    CHECK(run.document["reports"][kDead]["report"].is_null());
    CHECK(run.document["left_behind"].empty());
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        if (rank == kDead) continue;
        CAPTURE(rank);
        CHECK(run.document["reports"][rank]["closed"]["left"] == 0);
        CHECK(run.document["reports"][rank]["troubles"].empty());
    }
}

}  // namespace

TEST_CASE("Ranks of an emulated rack connect, and the matrix says how fast and by which memory", "[warmup]") {
    const WarmupFolder folder;
    CapturedProcess program({FABRICMEM_WARMUP, "--driver", "emulated"});
    CHECK(program.finish(kPatienceSeconds) == 0);
    CHECK(said_in(program.err()).empty());
    const std::vector<std::string> lines = lines_of(program.out());
    CAPTURE(program.out());
    REQUIRE(lines.size() == 1 + 2 + 4 + 1);
    CHECK(contains(lines[0], "emulated driver, scenario gb200-nvl72 (18 nodes, 72 devices): 4 ranks"));
    for (std::size_t rank = 0; rank < 4; ++rank) {
        const std::string& row = lines[3 + rank];
        CHECK(row.find('.') != row.npos);
        CHECK(std::count(row.begin(), row.end(), '*') == 3);
    }
    CHECK(contains(lines.back(), "12 of 12 pairs connected; the last hello was out"));
    CHECK(folder.left() == 0);
}

TEST_CASE("With --json stdout is one document, which has each pair's times and paths", "[warmup][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const WarmupFolder folder;
    WarmupRun run = run_warmup({"--ranks", "2", "--store", "dir:" + folder.store()});
    CHECK(run.code == 0);
    CHECK(said_in(run.err).size() == 1);
    CHECK(run.document["ok"].get<bool>());
    CHECK(run.document["driver"] == (testing_cuda() ? "cuda" : "emulated"));
    CHECK(run.document["pairs"]["connected"] == 2);
    CHECK(run.document["wall_ms"]["last_hello_to_last_connection"].is_number());
    CHECK(run.document["causes"].empty());
    CHECK(run.document["left_behind"].empty());
    CHECK(run.stage(0, 0) == "self");
    nlohmann::json peer = run.peer(0, 1);
    CHECK(peer["stage"] == "connected");
    CHECK(peer["device"]["state"] == "proved");
    CHECK(peer["device"]["from_device"] == 0);
    CHECK(peer["ms"]["importing"].get<double>() >= 0);
    CHECK(folder.keys() == 0);
    CHECK(folder.left() == 0);
}

TEST_CASE("What is asked for is done: slots on devices alone, no proof, one device", "[warmup]") {
    const WarmupFolder folder;
    WarmupRun device = run_warmup({"--ranks", "3", "--placement", "device", "--device", "2"});
    CHECK(device.code == 0);
    CHECK(device.peer(0, 1)["host"]["state"] == "absent");
    CHECK(device.peer(0, 1)["slots"] == "device");
    CHECK(device.peer(0, 1)["device"]["from_device"] == 2);
    for (const auto& report : device.document["reports"]) CHECK(report["device"] == 2);

    WarmupRun trust = run_warmup({"--ranks", "3", "--policy", "trust"});
    CHECK(trust.code == 0);
    CHECK(trust.document["policy"] == "trust");
    CHECK(trust.peer(2, 1)["device"]["state"] == "trusted");
}

TEST_CASE("Of a rank in another clique, one without a channel and one that dies, each is named with its cause",
          "[warmup]") {
    const WarmupFolder folder;
    WarmupRun run = run_warmup({"--ranks", "6", "--scenario", folder.write(broken_rack()), "--deadline",
                                kSlowBuild ? "20" : "6", "--kill", "3@hello", "--store", folder.store()});
    check_broken_rack(run, 6);
    CHECK(folder.keys() == 0);
}

TEST_CASE("72 ranks in processes connect to each other on slow calls", "[warmup]") {
    if (kSlowBuild) FABRICMEM_SKIP("72 processes of a slow build");
    const WarmupFolder folder;
    Scenario rack = Scenario::ready_made("gb200-nvl72");
    rack.latency = CallLatency::measured;
    WarmupRun run = run_warmup({"--ranks", "72", "--scenario", folder.write(rack), "--deadline", "60"});
    CHECK(run.code == 0);
    CHECK(run.document["pairs"]["connected"] == 72 * 71);
    CHECK(run.rest_is_connected(72, {}));
    CHECK(run.document["left_behind"].empty());
    std::set<std::pair<std::string, int>> places;
    for (const auto& report : run.document["reports"])
        places.emplace(report["node"].get<std::string>(), report["device"].get<int>());
    CHECK(places.size() == 72);
}

TEST_CASE("Of 72 ranks on slow calls, one dead, one foreign and one without a channel are named, and the rest connects",
          "[warmup]") {
    if (kSlowBuild) FABRICMEM_SKIP("72 processes of a slow build");
    const WarmupFolder folder;
    Scenario rack = broken_rack();
    rack.latency = CallLatency::measured;
    WarmupRun run =
        run_warmup({"--ranks", "72", "--scenario", folder.write(rack), "--deadline", "25", "--kill", "3@hello"});
    check_broken_rack(run, 72);
    CHECK(folder.left() == 0);
}

TEST_CASE("A rank that is killed at a random moment is named, and the others connect", "[warmup]") {
    const WarmupFolder folder;
    WarmupRun run =
        run_warmup({"--ranks", "4", "--kill", "2", "--deadline", kSlowBuild ? "20" : "5", "--store", folder.store()});
    CHECK(run.code == 1);
    CHECK(run.rest_is_connected(4, {2}));
    CHECK(run.document["reports"][2]["killed"].get<bool>());
    CHECK(contains(run.document["reports"][2]["troubles"][0].get<std::string>(), "was killed (--kill)"));
    CHECK(run.said_of(2, 4, {2}).count("no error") == 0);
    CHECK(folder.keys() == 0);
}

TEST_CASE("What many pairs have in common is said once", "[warmup]") {
    CapturedProcess program({FABRICMEM_WARMUP, "--scenario", "single-h100-no-channel"});
    CHECK(program.finish(kPatienceSeconds) == 1);
    CAPTURE(program.out());
    const std::vector<std::string> lines = lines_of(program.out());
    REQUIRE(lines.size() == 1 + 2 + 4 + 1 + 1 + 2);
    CHECK(contains(lines[7], "0 of 12 pairs connected"));
    CHECK(contains(lines[8], "ranks 0-3: "));
    CHECK(contains(lines[9], "A: 12 pairs, failed: among 0-3"));
    CHECK(contains(lines[10], "unsupported: "));

    CapturedProcess many({FABRICMEM_WARMUP, "--scenario", "two-racks", "--ranks", "18"});
    CHECK(many.finish(kPatienceSeconds) == 1);
    CAPTURE(many.out());
    CHECK(contains(many.out(), "\n    0 .*AA**AA**AA**AA**  "));
    CHECK(contains(many.out(), "A: 160 pairs, failed: "));
    CHECK(contains(many.out(), "0-1,4-5,8-9,12-13,16-17 -> 2-3,6-7,10-11,14-15"));
}

TEST_CASE("An import that hangs is named at the deadline, and the process ends all the same", "[warmup]") {
    const WarmupFolder folder;
    Scenario racks = Scenario::ready_made("two-racks");
    racks.switches = folder.switches();
    const auto fabric = make_emulated_fabric(racks);
    fabric->set_imports("rack0-node1", RemoteCalls::hang);
    WarmupRun run = run_warmup({"--ranks", "2", "--scenario", folder.write(racks), "--deadline", "3"});
    CHECK(run.code == 1);
    CHECK(run.kind(1, 0) == "timed_out");
    CHECK(contains(run.peer(1, 0)["error"]["text"].get<std::string>(), "had not returned after"));
    CHECK(run.kind(0, 1) == "timed_out");
    CHECK(run.document["reports"][1]["closed"]["stuck_calls"].get<int>() > 0);
    CHECK(run.document["left_behind"].empty());
}

TEST_CASE("A rank that can't begin says why, and the others name it", "[warmup]") {
    const WarmupFolder folder;
    Scenario racks = Scenario::ready_made("two-racks");
    racks.switches = folder.switches();
    make_emulated_fabric(racks)->set_node("rack0-node1", NodeLife::lost);
    WarmupRun run = run_warmup({"--ranks", "2", "--scenario", folder.write(racks), "--deadline", "2"});
    CHECK(run.code == 1);
    CHECK(run.document["reports"][1]["troubles"].size() == 1);
    CHECK(run.document["troubles"][0]["rank"] == 1);
    CHECK(run.stage(0, 1) == "no_hello");
    CHECK(contains(run.peer(0, 1)["error"]["text"].get<std::string>(), "rank 1 has not published itself"));
}

TEST_CASE("A signal ends all ranks, and neither a key nor a directory stays", "[warmup]") {
    const WarmupFolder folder;
    Scenario racks = Scenario::ready_made("two-racks");
    racks.switches = folder.switches();
    make_emulated_fabric(racks)->set_imports("rack0-node1", RemoteCalls::hang);
    for (const int signal : {SIGTERM, SIGINT}) {
        CAPTURE(signal);
        CapturedProcess program(warmup(
            {"--ranks", "2", "--scenario", folder.write(racks), "--deadline", "1000", "--store", folder.store()}));
        wait_for_keys(folder, 2);
        ::kill(program.id(), signal);
        // Its ranks have its stderr, so this is their end too.
        CHECK(program.finish(kPatienceSeconds) == 128 + signal);
        CHECK(folder.keys() == 0);
    }

    CapturedProcess program(warmup({"--ranks", "8", "--deadline", "1000"}));
    REQUIRE(program.wait_for("emulated driver, ", kPatienceSeconds));
    ::kill(program.id(), SIGTERM);
    CHECK(program.finish(kPatienceSeconds) == 128 + SIGTERM);
    CHECK(folder.left() == 0);
}

TEST_CASE("Ranks end with the process that started them, however it ends", "[warmup]") {
    const WarmupFolder folder;
    Scenario racks = Scenario::ready_made("two-racks");
    racks.switches = folder.switches();
    make_emulated_fabric(racks)->set_node("rack0-node1", NodeLife::lost);
    // Rank 1 can't begin, so rank 0 waits for it.
    CapturedProcess program(
        warmup({"--ranks", "2", "--scenario", folder.write(racks), "--deadline", "1000", "--store", folder.store()}));
    wait_for_keys(folder, 1);
    ::kill(program.id(), SIGKILL);
    CHECK(program.finish(kPatienceSeconds) == 128 + SIGKILL);
}

TEST_CASE("What is not there is one line on stderr and exit code 1", "[warmup]") {
    const WarmupFolder folder;
    const std::vector<std::pair<Arguments, std::string>> absent{
        {{"--scenario", "/nowhere.json"}, "/nowhere.json"},
        {{"--device", "99"}, "has a device 99"},
        {{"--store", "ftp://somewhere"}, "ftp"},
    };
    for (const auto& [arguments, named] : absent) {
        CAPTURE(arguments);
        CapturedProcess program(warmup(arguments + Arguments{"--json"}));
        CHECK(program.finish(kPatienceSeconds) == 1);
        CHECK(said_in(program.err()).size() == 1);
        CHECK(contains(program.err(), named));
        CHECK_FALSE(nlohmann::json::parse(program.out())["ok"].get<bool>());
    }
    CHECK(folder.left() == 0);
}

TEST_CASE("A wrong option is one line that names it and exit code 2", "[warmup]") {
    const std::vector<std::pair<Arguments, std::string>> wrong{
        {{"--rnaks", "2"}, "--rnaks"},
        {{"--ranks", "0"}, "--ranks"},
        {{"--ranks", "257"}, "--ranks"},
        {{"--ranks"}, "--ranks"},
        {{"--driver", "none"}, "--driver"},
        {{"--store", ""}, "--store"},
        {{"--scenario="}, "--scenario"},
        {{"--scenario", "two-racks", "--driver", "cuda"}, "--scenario"},
        {{"--kill", "4"}, "--kill"},
        {{"--kill", "x"}, "--kill"},
        {{"--kill", "1@noon"}, "--kill"},
        {{"--kill", "1@"}, "--kill"},
        {{"--deadline", "0"}, "--deadline"},
        {{"--device", "-1"}, "--device"},
        {{"--placement", "moon"}, "--placement"},
        {{"--policy", "hope"}, "--policy"},
        {{"--json=yes"}, "--json"},
    };
    for (const auto& [arguments, named] : wrong) {
        CAPTURE(arguments);
        CapturedProcess program(Arguments{FABRICMEM_WARMUP} + arguments);
        CHECK(program.finish(kPatienceSeconds) == 2);
        CHECK(program.out() == "");
        CHECK(said_in(program.err()).size() == 1);
        CHECK(contains(program.err(), named));
    }
}

TEST_CASE("Help and version are on stdout", "[warmup]") {
    CapturedProcess help({FABRICMEM_WARMUP, "--help"});
    CHECK(help.finish(kPatienceSeconds) == 0);
    CHECK(contains(help.out(), "--kill RANK[@hello]"));
    CHECK_FALSE(contains(help.out(), "--until"));
    CHECK(help.err() == "");

    CapturedProcess version({FABRICMEM_WARMUP, "--version"});
    CHECK(version.finish(kPatienceSeconds) == 0);
    CHECK(contains(version.out(), "fabricmem-warmup "));
}
