// SPDX-License-Identifier: Apache-2.0
// The doctors of a whole job meet through a store: a matrix, with a cause for each cell that does not work.
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/store.hpp>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "doctor/meeting_words.hpp"
#include "support/doctor_program.hpp"
#include "support/stores.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

using Ids = std::vector<std::string>;

namespace {

std::unique_ptr<CapturedProcess> start_rank(const DoctorFolder& folder, const std::string& scenario,
                                            const std::string& node, int rank, int size, const Arguments& more) {
    const Environment environment(Variables{{"FABRICMEM_EMULATOR", scenario}, {"FABRICMEM_EMULATOR_NODE", node}});
    return std::make_unique<CapturedProcess>(Arguments{FABRICMEM_DOCTOR, "--driver", "emulated", "--store",
                                                       "dir:" + folder.path() + "/store", "--rank",
                                                       std::to_string(rank), "--size", std::to_string(size)} +
                                             more);
}

DoctorRun finish(CapturedProcess& program) {
    DoctorRun run;
    run.code = program.finish(kPatienceSeconds);
    run.out = program.out();
    run.err = program.err();
    return run;
}

/// Runs the ranks whose nodes are given; an empty node: that rank is not started.
std::vector<DoctorRun> run_job(const DoctorFolder& folder, const std::string& scenario, const Ids& nodes,
                               const Arguments& more = {}) {
    std::vector<std::unique_ptr<CapturedProcess>> ranks;
    for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
        const int number = static_cast<int>(rank);
        const int size = static_cast<int>(nodes.size());
        ranks.push_back(nodes[rank].empty() ? nullptr : start_rank(folder, scenario, nodes[rank], number, size, more));
    }
    std::vector<DoctorRun> runs;
    for (const auto& rank : ranks) runs.push_back(rank == nullptr ? DoctorRun{} : finish(*rank));
    return runs;
}

std::size_t keys_in(const DoctorFolder& folder) {
    std::error_code error;
    const std::filesystem::directory_iterator files(folder.path() + "/store", error);
    return error ? 0 : static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

std::string state_of(const DoctorDocument& told, const std::string& exporter, const std::string& importer) {
    for (const auto& peer : told.document.at("peers")) {
        if (peer.at("exporter") == exporter && peer.at("importer") == importer)
            return peer.at("state").get<std::string>();
    }
    return "no such cell";
}

}  // namespace

TEST_CASE("All ranks of a rack use each other's memory, rank 0 says so, and nothing stays in the store",
          "[doctor][peers]") {
    const DoctorFolder folder;
    const auto runs = run_job(folder, "gb200-nvl72", {"node0", "node1", "node2"});
    for (const DoctorRun& run : runs) CHECK(run.code == 0);
    CHECK(contains(runs[0].out, "all 3 ranks can use each"));
    CHECK(contains(runs[0].out, "  rank 0  -..\n  rank 1  .-.\n  rank 2  ..-\n"));
    CHECK(runs[1].out == "");
    CHECK(keys_in(folder) == 0);
}

TEST_CASE("Two racks in one job are two blocks of the matrix, with the cause in the legend", "[doctor][peers]") {
    const DoctorFolder folder;
    const auto runs = run_job(folder, "two-racks", {"rack0-node0", "rack0-node1", "rack1-node0"}, {"-v"});
    for (const DoctorRun& run : runs) {
        CHECK(run.code == 1);
        CHECK(contains(run.out, "  rank 0  -.a\n  rank 1  .-a\n  rank 2  aa-\n"));
        CHECK(contains(run.out, "  a FM-PEER-002: "));
    }
    CHECK(keys_in(folder) == 0);
}

TEST_CASE("Every cell is in the JSON, of every rank", "[doctor][peers]") {
    const DoctorFolder folder;
    for (const DoctorRun& run : run_job(folder, "gb200-nvl72", {"node0", "node1", "node2"}, {"--json"})) {
        const DoctorDocument told = document_of_run(run);
        CHECK(told.code == 0);
        CHECK(told.document["peers"].size() == 12);  // of 6 directions two places each
        CHECK(state_of(told, "rank 1", "rank 2") == "ok");
    }
}

TEST_CASE("A rank that does not come is named, and the others are known all the same", "[doctor][peers]") {
    const DoctorFolder folder;
    const auto runs = run_job(folder, "gb200-nvl72", {"node0", "", "node2"}, {"--json", "--time-limit", kShortLimit});
    for (const std::size_t rank : {std::size_t{0}, std::size_t{2}}) {
        const DoctorDocument told = document_of_run(runs[rank]);
        CHECK(told.code == 1);
        CHECK(told.checks("failed") == Ids{"FM-PEER-007"});
        CHECK(contains(told.verdict(), "nothing came from rank 1"));
        CHECK(state_of(told, "rank 0", "rank 2") == "ok");
        CHECK(state_of(told, "rank 2", "rank 0") == "ok");
        CHECK(state_of(told, "rank 1", "rank 0") == "unknown");
    }
    CHECK(keys_in(folder) == 0);
}

TEST_CASE("What an earlier run left in the store is not believed", "[doctor][peers]") {
    const DoctorFolder folder;
    {
        // Rank 1 leaves its offer, and is killed while it waits for rank 0.
        const auto killed = start_rank(folder, "gb200-nvl72", "node1", 1, 2, {});
        const auto store = make_store("dir:" + folder.path() + "/store");
        REQUIRE(
            store->wait("doctor/1/offer", std::chrono::steady_clock::now() + std::chrono::seconds(kPatienceSeconds)));
    }
    const std::string other = R"({"offers": {"rank 0": "old"}, "cells": [{"exporter": "rank 0", "state": "ok"}]})";
    const auto store = make_store("dir:" + folder.path() + "/store");
    store->set("doctor/1/results", bytes_of(other));
    // It had seen another rank 0 than the one that comes now.
    const auto left = nlohmann::json::parse(text_of(*store->try_get("doctor/1/offer")));
    const nlohmann::json seen{{"offers", {{"rank 0", "old"}, {"rank 1", left.at("nonce")}}},
                              {"cells", nlohmann::json::array()}};
    store->set("doctor/1/seen", bytes_of(seen.dump()));
    store->set("doctor/over", bytes_of("old"));
    const auto alone = run_job(folder, "gb200-nvl72", {"node0", ""}, {"--json", "--time-limit", kShortLimit});
    const DoctorDocument told = document_of_run(alone[0]);
    CHECK(told.code == 2);
    CHECK(state_of(told, "rank 0", "rank 1") == "unknown");
    CHECK(state_of(told, "rank 1", "rank 0") == "unknown");
    CHECK(told.checks("failed") == Ids{"FM-PEER-007"});
    // A new rank 1 takes its place.
    for (const DoctorRun& run : run_job(folder, "gb200-nvl72", {"node0", "node1"})) CHECK(run.code == 0);
}

TEST_CASE("Nonsense in the store is no rank", "[doctor][peers]") {
    const DoctorFolder folder;
    const auto store = make_store("dir:" + folder.path() + "/store");
    for (const char* const key : {"doctor/1/offer", "doctor/1/seen", "doctor/1/results", "doctor/1/read"})
        store->set(key, bytes_of({"\x00\xff what", 7}));
    const auto runs = run_job(folder, "gb200-nvl72", {"node0", ""}, {"--json", "--time-limit", kShortLimit});
    const DoctorDocument told = document_of_run(runs[0]);
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-PEER-007"});
}

TEST_CASE("A store that can't be used is the doctor's own failure", "[doctor][peers]") {
    for (const char* const url : {"dir:/proc/no-such/folder", "carrier-pigeon://here"}) {
        const DoctorRun run = run_doctor({"--driver", "emulated", "--store", url, "--rank", "0", "--size", "2"});
        CHECK(run.code == 4);
        CHECK(run.out == "");
        CHECK(lines_of(run.err).size() == 1);
    }
}

TEST_CASE("A job of one rank is a doctor by itself", "[doctor][peers]") {
    const DoctorFolder folder;
    CHECK(run_job(folder, "single-h100", {"node0"})[0].code == 0);
    CHECK(keys_in(folder) == 0);
}

TEST_CASE("Each cause has its mark, and one that is told twice has one", "[doctor][peers]") {
    using doctor::Cell;
    doctor::Meeting meeting{.kind = doctor::Meeting::Kind::job, .members = {"rank 0", "rank 1", "rank 2"}};
    const auto add = [&](const char* exporter, const char* importer, Cell::State state, const char* cause) {
        meeting.cells.push_back({.exporter = exporter,
                                 .importer = importer,
                                 .place = "device 0",
                                 .state = state,
                                 .check = "FM-PEER-001",
                                 .cause = cause,
                                 .side = "there"});
    };
    add("rank 0", "rank 1", Cell::State::failed, "one");
    add("rank 0", "rank 2", Cell::State::failed, "two");
    add("rank 1", "rank 0", Cell::State::ok, "");
    add("rank 1", "rank 2", Cell::State::failed, "one");
    add("rank 2", "rank 0", Cell::State::unknown, "");
    const std::string table = doctor::table_of(meeting, 80);
    CHECK(contains(table, "  rank 0  -.?\n  rank 1  a-?\n  rank 2  ba-\n"));
    CHECK(contains(table, "  a FM-PEER-001: one (to be mended by the one that exports)\n"));
    CHECK(contains(table, "  b FM-PEER-001: two"));
    CHECK(doctor::outcome_of(meeting) == doctor::Outcome::less);
    CHECK(doctor::describe(meeting) == "of 5 tries between 3 ranks 3 failed, and 1 are not known: one");
}

#else

TEST_CASE("All ranks of a rack use each other's memory", "[doctor][peers]") {
    FABRICMEM_SKIP("built without the tools");
}

#endif
