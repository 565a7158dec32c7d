// SPDX-License-Identifier: Apache-2.0
// Two doctors try each other's memory, and one meets strangers: whose fault it is is named, and nothing hangs.
#include <stdlib.h>

#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "doctor/peers.hpp"
#include "support/doctor_program.hpp"
#include "support/raw_peer.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

using Ids = std::vector<std::string>;

namespace {

constexpr std::uint16_t kOffer = 1;
constexpr std::uint16_t kResults = 2;

/// A doctor on a node of a scenario, for the time that it takes to start it.
struct On {
    std::string scenario;
    std::string node{};
};

std::unique_ptr<CapturedProcess> start_on(const On& on, const Arguments& arguments) {
    const Environment environment(Variables{{"FABRICMEM_EMULATOR", on.scenario}, {"FABRICMEM_EMULATOR_NODE", on.node}});
    return std::make_unique<CapturedProcess>(Arguments{FABRICMEM_DOCTOR, "--driver", "emulated", "--json"} + arguments);
}

/// Starts one that listens, and waits until it does.
std::unique_ptr<CapturedProcess> listen_on(const On& on, std::string& port, const Arguments& more = {}) {
    auto program = start_on(on, Arguments{"--listen", "127.0.0.1:0"} + more);
    const auto said = program->wait_for("listening on 127.0.0.1:", kPatienceSeconds);
    REQUIRE(said.has_value());
    port = *said;
    return program;
}

DoctorDocument finish(CapturedProcess& program) {
    DoctorRun run;
    run.code = program.finish(kPatienceSeconds);
    run.out = program.out();
    run.err = program.err();
    return document_of_run(std::move(run));
}

/// The two documents: of the one that listened, and of the one that connected.
std::pair<DoctorDocument, DoctorDocument> meet(const On& listening, const On& connecting, const Arguments& more = {}) {
    std::string port;
    const auto first = listen_on(listening, port, more);
    const auto second = start_on(connecting, Arguments{"--connect", "127.0.0.1:" + port} + more);
    DoctorDocument connected = finish(*second);
    return {finish(*first), std::move(connected)};
}

/// The states of what is tried in this direction: "ok ok".
std::string states(const DoctorDocument& told, const std::string& importer) {
    std::string text;
    for (const auto& peer : told.document.at("peers")) {
        if (peer.at("importer") == importer) text += (text.empty() ? "" : " ") + peer.at("state").get<std::string>();
    }
    return text;
}

std::string side(const DoctorDocument& told, const std::string& importer) {
    for (const auto& peer : told.document.at("peers")) {
        if (peer.at("importer") == importer) return peer.at("side").get<std::string>();
    }
    return "none was tried";
}

std::string write_two_nodes(const DoctorFolder& folder, const ImexChannel& second) {
    Scenario scenario = Scenario::ready_made("gb200-nvl72");
    scenario.nodes.resize(2);
    scenario.nodes.back().channels = {second};
    return folder.write(scenario);
}

}  // namespace

TEST_CASE("Two processes of one node use each other's memory, and both say so", "[doctor][peers]") {
    const On here{"single-h100"};
    const auto [listened, connected] = meet(here, here);
    for (const DoctorDocument& told : {listened, connected}) {
        CHECK(told.code == 0);
        CHECK(states(told, "here") == "ok ok");
        CHECK(states(told, "there") == "ok ok");
        CHECK(told.checks("failed").empty());
        CHECK(told.state("FM-CHANNEL-007") == "ok");
        CHECK(contains(told.verdict(), "this side can use the peer's memory; the peer can use this side's memory"));
    }
}

TEST_CASE("Two nodes of one rack use each other's memory, and two racks do not fit together", "[doctor][peers]") {
    const auto [a, b] = meet({"gb200-nvl72", "node3"}, {"gb200-nvl72", "node12"});
    CHECK(a.code == 0);
    CHECK(b.code == 0);
    const auto [c, d] = meet({"two-racks", "rack0-node0"}, {"two-racks", "rack1-node0"});
    for (const DoctorDocument& told : {c, d}) {
        CHECK(told.code == 2);
        CHECK(told.check("FM-PEER-002")["state"] == "failed");
        CHECK(side(told, "here") == "between");
        CHECK(side(told, "there") == "between");
    }
}

TEST_CASE("Two channels are nobody's fault alone, and both sides name them", "[doctor][peers]") {
    const DoctorFolder folder;
    const std::string scenario = write_two_nodes(folder, {.number = 1});
    const auto [listened, connected] = meet({scenario, "node0"}, {scenario, "node1"});
    for (const DoctorDocument& told : {listened, connected}) {
        CHECK(told.code == 2);
        // Once as seen here, once as the peer tells it: each names the channels as it holds them.
        CHECK(told.checks("failed") == Ids{"FM-CHANNEL-007", "FM-CHANNEL-007"});
        CHECK(side(told, "here") == "between");
        CHECK(states(told, "there") == "failed failed");
    }
}

TEST_CASE("A side without a channel is to blame, on both sides", "[doctor][peers]") {
    const DoctorFolder folder;
    const std::string scenario = write_two_nodes(folder, {.number = 0, .open_errno = EACCES});
    const auto [good, bad] = meet({scenario, "node0"}, {scenario, "node1"});
    CHECK(good.code == 2);
    CHECK(good.check("FM-PEER-006")["state"] == "failed");
    CHECK(side(good, "here") == "there");
    CHECK(side(good, "there") == "here");
    CHECK(contains(good.check("FM-PEER-006")["cause"].get<std::string>(), "FM-CHANNEL-002"));
    CHECK(bad.code == 2);
    CHECK(bad.checks("failed") == Ids{"FM-CHANNEL-002"});  // all else follows from it
    CHECK(contains(bad.verdict(), "nothing could be shared with the peer"));
}

TEST_CASE("A side without any driver says so to the other", "[doctor][peers]") {
    std::string port;
    const On one{"single-h100"};
    const auto good = listen_on(one, port);
    const Environment environment(Variables{{"FABRICMEM_EMULATOR_DEVICES", ""}});
    const auto bad = start_on(one, {"--connect", "127.0.0.1:" + port});
    CHECK(finish(*bad).code >= 2);
    const DoctorDocument told = finish(*good);
    CHECK(told.code == 2);
    CHECK(told.checks("failed").front() == "FM-DRIVER-003");
    CHECK(told.check("FM-PEER-006")["state"] == "failed");
    CHECK(states(told, "there") == "failed failed");
}

TEST_CASE("An import that hangs ends at its time, and hides nothing of the other direction", "[doctor][peers]") {
    const DoctorFolder folder;
    Scenario scenario = Scenario::ready_made("gb200-nvl72");
    scenario.nodes.resize(2);
    scenario.switches = folder.path() + "/switches";
    const std::string file = folder.write(scenario);
    const auto fabric = make_emulated_fabric(Scenario::from_file(file));
    fabric->set("node1", "imports", "hang");
    const auto [listened, connected] =
        meet({file, "node0"}, {file, "node1"}, {"--time-limit", kSlowBuild ? "20" : "4"});
    fabric->end();
    CHECK(connected.code == 1);
    CHECK(states(connected, "here") == "failed failed");
    CHECK(states(connected, "there") == "ok ok");
    CHECK(connected.checks("failed") == Ids{"FM-IMEX-004"});
    CHECK(listened.code == 1);
    CHECK(states(listened, "here") == "ok ok");
}

TEST_CASE("A peer that is not there is a finding, and no hang", "[doctor][peers]") {
    std::string port;
    const auto listening = listen_on({"single-h100"}, port, {"--time-limit", kShortLimit});
    const DoctorDocument alone = finish(*listening);
    CHECK(alone.code == 2);
    CHECK(alone.checks("failed") == Ids{"FM-PEER-007"});
    CHECK(states(alone, "here") == "unknown");
    CHECK(states(alone, "there") == "unknown");
    const auto connecting = start_on({"single-h100"}, {"--connect", "127.0.0.1:" + port, "--time-limit", kShortLimit});
    CHECK(finish(*connecting).checks("failed") == Ids{"FM-PEER-007"});
}

TEST_CASE("An address that is taken is the doctor's own failure", "[doctor][peers]") {
    const RawPeer taken = RawPeer::listening();
    const DoctorRun run = run_doctor({"--driver", "emulated", "--listen", "127.0.0.1:" + std::to_string(taken.port())});
    CHECK(run.code == 4);
    CHECK(run.out == "");
    CHECK(contains(run.err, "can't listen"));
}

TEST_CASE("What a stranger sends, or does not, is a finding and never a crash", "[doctor][peers]") {
    struct Row {
        std::string bytes;
        const char* check;
        const char* says;
        bool closes;
    };
    const std::string version_7("FMDR\x07\x00\x01\x00\x00\x00\x00\x00", 12);
    const std::string other_kind("FMDR\x01\x00\x09\x00\x00\x00\x00\x00", 12);
    const std::string too_long("FMDR\x01\x00\x01\x00\xff\xff\xff\x7f", 12);
    const std::string unfinished("FMDR\x01\x00\x01\x00\x64\x00\x00\x00{\"probes\"", 21);
    const std::string nonsense("FMDR\x01\x00\x01\x00\x04\x00\x00\x00what", 16);
    for (const Row& row :
         {Row{"GET / HTTP/1.1\r\n\r\n", "FM-PEER-005", "it sent 'GET", false},
          Row{version_7, "FM-PEER-005", "version 7", false}, Row{other_kind, "FM-PEER-005", "another kind", false},
          Row{too_long, "FM-PEER-005", "2147483647 bytes", false},
          Row{nonsense, "FM-PEER-005", "makes no sense", false}, Row{unfinished, "FM-PEER-007", "went away", true},
          Row{unfinished, "FM-PEER-007", "says nothing", false}, Row{"FM", "FM-PEER-007", "went away", true},
          Row{"", "FM-PEER-007", "went away", true}, Row{"", "FM-PEER-007", "says nothing", false}}) {
        std::string port;
        const auto program = listen_on({"single-h100"}, port, {"--time-limit", kShortLimit});
        RawPeer peer = RawPeer::connected_to(static_cast<std::uint16_t>(std::stoi(port)));
        peer.send(row.bytes);
        if (row.closes) peer.close();
        const DoctorDocument told = finish(*program);
        INFO(row.bytes << " " << told.verdict());
        CHECK(told.code == 2);
        CHECK(told.checks("failed") == Ids{row.check});
        CHECK(contains(told.check(row.check)["cause"].get<std::string>(), row.says));
    }
}

TEST_CASE("A peer whose probe is damaged is to blame, and one that tells nonsense of its tries is not believed",
          "[doctor][peers]") {
    const RawPeer listening = RawPeer::listening();
    const auto program = start_on(
        {"single-h100"}, {"--connect", "127.0.0.1:" + std::to_string(listening.port()), "--time-limit", kShortLimit});
    const RawPeer peer = listening.accept();
    const auto offer = nlohmann::json::parse(peer.receive_message(kOffer, RawPeer::kDoctor));
    REQUIRE(offer.at("probes").size() == 2);
    nlohmann::json damaged = offer;
    std::string bytes = damaged["probes"][0]["bytes"].get<std::string>();
    bytes[100] = bytes[100] == '0' ? '1' : '0';
    damaged["probes"][0]["bytes"] = bytes;
    damaged["probes"][1]["bytes"] = "xyz";
    damaged["probes"][1]["place"] = "a place\x1b[31m of its own";
    peer.send_message(kOffer, damaged.dump(), RawPeer::kDoctor);
    const auto results = nlohmann::json::parse(peer.receive_message(kResults, RawPeer::kDoctor));
    CHECK(results.at("cells").size() == 2);
    peer.send_message(kResults,
                      R"({"offers": {}, "cells": [{"place": "device 0", "state": "failed", "check": "FM-NONE-999",
                      "side": "everywhere", "cause": "\u001b[2Jgone"}, {"state": 7}]})",
                      RawPeer::kDoctor);
    const DoctorDocument told = finish(*program);
    CHECK(told.code == 2);
    CHECK(told.check("FM-PEER-005")["state"] == "failed");
    CHECK(states(told, "here") == "failed failed");
    CHECK(side(told, "here") == "there");
    CHECK(states(told, "there") == "failed unknown");
    CHECK(side(told, "there") == "unknown");
    CHECK(told.document["peers"][2]["check"].is_null());
    CHECK(told.out.find("\\u001b") == told.out.npos);
}

TEST_CASE("Its own offer sent back is memory of the same process, and no crash", "[doctor][peers]") {
    const RawPeer listening = RawPeer::listening();
    const auto program = start_on(
        {"single-h100"}, {"--connect", "127.0.0.1:" + std::to_string(listening.port()), "--time-limit", kShortLimit});
    const RawPeer peer = listening.accept();
    peer.send_message(kOffer, peer.receive_message(kOffer, RawPeer::kDoctor), RawPeer::kDoctor);
    peer.send_message(kResults, peer.receive_message(kResults, RawPeer::kDoctor), RawPeer::kDoctor);
    const DoctorDocument told = finish(*program);
    CHECK(states(told, "here") == "ok ok");
    CHECK(states(told, "there") == "ok ok");
}

TEST_CASE("In words both directions are told, and what has to be mended by whom", "[doctor][peers]") {
    std::string port;
    const DoctorFolder folder;
    const std::string scenario = write_two_nodes(folder, {.number = 1});
    const auto first = listen_on({scenario, "node0"}, port);
    const Environment environment(Variables{{"FABRICMEM_EMULATOR", scenario}, {"FABRICMEM_EMULATOR_NODE", "node1"}});
    const DoctorRun run = run_doctor({"--driver", "emulated", "--connect", "127.0.0.1:" + port});
    CHECK(run.code == 2);
    CHECK(contains(run.out, "device 0 of the peer, imported by this side: failed"));
    CHECK(contains(run.out, "device 0 of this side, imported by the peer: failed"));
    CHECK(contains(run.out, "to be mended: between the two"));
    CHECK(contains(run.out, "failed FM-CHANNEL-007: the peer says: "));
    CHECK(contains(run.out, "the peer: host "));
    CHECK(contains(run.out, "this side: host "));
    CHECK(finish(*first).code == 2);
}

TEST_CASE("Offers and results are read as they were written, and nonsense is none", "[doctor][peers]") {
    const doctor::Offer offer{
        .nonce = "1f", .probes = {{"device 0", "0a0b"}}, .trouble = {"FM-DRIVER-001", "no \"libcuda\""}};
    const auto read = doctor::offer_from(doctor::to_text(offer));
    REQUIRE(read.has_value());
    CHECK(read->nonce == "1f");
    REQUIRE(read->probes.size() == 1);
    CHECK(read->probes[0].place == "device 0");
    CHECK(read->probes[0].bytes == "0a0b");
    CHECK(read->trouble.check == "FM-DRIVER-001");
    CHECK(read->trouble.cause == "no \"libcuda\"");
    doctor::Results results{.offers = {{"rank 1", "1f"}}};
    results.cells = {{.exporter = "rank 1",
                      .place = "device 0",
                      .state = doctor::Cell::State::failed,
                      .check = "FM-PEER-002",
                      .cause = "a",
                      .cure = "b",
                      .side = "between",
                      .peer = "c"}};
    const auto heard = doctor::results_from(doctor::to_text(results));
    REQUIRE(heard.has_value());
    CHECK(heard->offers == results.offers);
    REQUIRE(heard->cells.size() == 1);
    CHECK(heard->cells[0].exporter == "rank 1");
    CHECK(heard->cells[0].state == doctor::Cell::State::failed);
    CHECK(heard->cells[0].side == "between");
    CHECK(heard->cells[0].peer == "c");
    for (const char* const nonsense :
         {"", "[]", "null", "{}", "{\"probes\": 1, \"cells\": 1}", "{\"probes\": [1], \"cells\": [1], \"offers\": {}}",
          "{\"probes\": [{}, {}, {}, {}, {}]}", "{\"cells\": [], \"offers\": []}", "{\"probes\": [", "\xff"}) {
        CHECK_FALSE(doctor::offer_from(nonsense).has_value());
        CHECK_FALSE(doctor::results_from(nonsense).has_value());
    }
    const std::string deep(100'000, '[');
    CHECK_FALSE(doctor::offer_from(deep).has_value());
    CHECK(doctor::from_hex("0aFf") == std::vector<std::byte>{std::byte{0x0a}, std::byte{0xff}});
    CHECK(doctor::from_hex("0g").empty());
    CHECK(doctor::to_hex({std::byte{0x0a}, std::byte{0xff}}) == "0aff");
}

#else

TEST_CASE("Two processes of one node use each other's memory", "[doctor][peers]") {
    FABRICMEM_SKIP("built without the tools");
}

#endif
