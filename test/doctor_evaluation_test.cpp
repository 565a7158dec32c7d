// SPDX-License-Identifier: Apache-2.0
// What the doctor makes of facts: one finding for a cause, and the doing before the looking. No process, no driver.
#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "doctor/evaluation.hpp"
#include "doctor/verdict.hpp"
#include "support/doctor_facts.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using doctor::CheckState;
using doctor::Expectation;
using doctor::Facts;
using doctor::Finding;
using doctor::Outcome;
using doctor::Stuck;

using Texts = std::vector<std::string>;

namespace {

doctor::Verdict verdict_of(const Facts& facts, std::optional<Expectation> asked = std::nullopt) {
    const Expectation expected = doctor::expectation_of(facts, asked);
    return doctor::judge(facts, doctor::evaluate(facts, expected), expected);
}

Facts without_driver(int code, const std::string& check) {
    Facts facts = good_facts();
    facts.devices.clear();
    facts.to_try.clear();
    facts.places.clear();
    facts.driver->why_not = doctor::Failure{.code = code, .text = "cuInit failed", .cause = "a cause", .check = check};
    return facts;
}

}  // namespace

TEST_CASE("Every check has a state, and nothing is wrong where nothing is", "[doctor]") {
    for (const Facts& facts : {good_facts(), domain_facts()}) {
        const auto findings = doctor::evaluate(facts, doctor::expectation_of(facts, std::nullopt));
        std::set<std::string_view> ids;
        for (const Finding& finding : findings) {
            INFO(finding.check->id);
            CHECK(finding.is_well());
            ids.insert(finding.check->id);
        }
        CHECK(ids.size() == all_checks().size());
        CHECK(verdict_of(facts).outcome == Outcome::as_expected);
    }
}

TEST_CASE("One cause in several places is one finding, without the places in its facts", "[doctor]") {
    Facts facts = failing_facts(ProbeRung::create, "FM-CHANNEL-001", "no channel node");
    facts.machine->channels.clear();
    for (auto& place : facts.places) {
        ProbeStep& looked = step_of(place, ProbeRung::channels);
        looked = {.rung = ProbeRung::channels, .state = RungState::failed, .check = "FM-CHANNEL-001", .cause = "other"};
    }
    const auto findings = doctor::evaluate(facts, Expectation::node);
    REQUIRE(troubles(findings) == Texts{"FM-CHANNEL-001 failed"});
    const Finding finding = finding_of(findings, "FM-CHANNEL-001");
    CHECK(finding.subject() == "devices 0-1 and host NUMA node 0");
    CHECK(finding.facts == "cuMemCreate of 2097152 bytes failed");
    CHECK(finding.cause == "no channel node");
}

TEST_CASE("Two causes of one check are two findings", "[doctor]") {
    Facts facts = failing_facts(ProbeRung::create, "FM-MEMORY-003", "no memory left");
    facts.places.front() = bad_place(Location::device(0), ProbeRung::create, "FM-MEMORY-003", "another");
    CHECK(troubles(facts) == Texts{"FM-MEMORY-003 failed", "FM-MEMORY-003 failed"});
}

TEST_CASE("A node whose name and minor number differ is a warning", "[doctor]") {
    Facts facts = good_facts();
    facts.machine->channels = {ImexChannel{.number = 0, .device_minor = 5}};
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-009 warning"});
    facts.machine->channels = {ImexChannel{.number = 5, .device_minor = 5}};
    CHECK(troubles(facts).empty());
}

TEST_CASE("A fact that looks wrong is a warning where memory works", "[doctor]") {
    Facts facts = good_facts();
    facts.machine->channels = {ImexChannel{.number = 0, .major_matches = false}};
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-004 warning"});
    CHECK(verdict_of(facts).outcome == Outcome::as_expected);
}

TEST_CASE("What is done decides: what was looked at first is no cause of another failure", "[doctor]") {
    Facts facts = failing_facts(ProbeRung::create, "FM-MEMORY-003", "no memory left");
    facts.machine->channels = {ImexChannel{.number = 0, .open_errno = EACCES}};
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-002 warning", "FM-MEMORY-003 failed"});
}

TEST_CASE("A device that says it has no fabric handles is that cause and no other", "[doctor]") {
    Facts facts = failing_facts(ProbeRung::create, "FM-CHANNEL-001", "no channel node", HandleReach::posix_fd);
    facts.machine->channels.clear();
    for (auto& device : facts.devices) device.fabric_handles = false;
    for (auto& place : facts.places) {
        ProbeStep& looked = step_of(place, ProbeRung::attributes);
        looked = {.rung = ProbeRung::attributes, .state = RungState::failed, .check = "FM-FABRIC-001", .cause = "none"};
    }
    CHECK(troubles(facts) == Texts{"FM-FABRIC-001 failed"});
    CHECK(verdict_of(facts).outcome == Outcome::impossible);
}

TEST_CASE("Each way in which no channel opens is its own check", "[doctor]") {
    struct Row {
        ImexChannel channel;
        std::string check;
    };
    const std::vector<Row> rows{{{.number = 0, .open_errno = EACCES}, "FM-CHANNEL-002"},
                                {{.number = 0, .open_errno = EPERM}, "FM-CHANNEL-003"},
                                {{.number = 0, .open_errno = ENXIO, .major_matches = false}, "FM-CHANNEL-004"},
                                {{.number = 4000, .open_errno = ENXIO}, "FM-CHANNEL-005"}};
    for (const Row& row : rows) {
        Facts facts = good_facts();
        facts.places.clear();  // the probes did not come to an end
        facts.machine->channels = {row.channel};
        CHECK(troubles(facts) == Texts{row.check + " failed"});
    }
    Facts facts = good_facts();
    facts.places.clear();
    facts.machine->channels.clear();
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-001 failed"});
    facts.machine->channels_errno = EACCES;  // of the folder: no node is seen in it
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-002 failed"});
    facts.machine->channels_errno = EIO;
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-001 failed"});
    facts.machine->kernel_module->imex_channel_count = 0;
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-006 failed"});
}

TEST_CASE("Another user's channel beside one that opens is nobody's trouble, a stale one is", "[doctor]") {
    Facts facts = good_facts();
    facts.machine->channels = {ImexChannel{.number = 0, .open_errno = EACCES}, ImexChannel{.number = 1}};
    CHECK(troubles(facts).empty());
    facts.machine->channels.push_back({.number = 2, .open_errno = ENXIO, .major_matches = false});
    CHECK(troubles(facts) == Texts{"FM-CHANNEL-004 warning"});
}

TEST_CASE("A step that hung and one that crashed are findings, and the places that are left unknown are named",
          "[doctor]") {
    Facts facts = good_facts(3);
    facts.stuck = {{.step = "device 1", .how = Stuck::How::late, .after = std::chrono::milliseconds(10'000)},
                   {.step = "device 2", .how = Stuck::How::signal, .number = 11}};
    facts.places = {good_place(Location::device(0)), good_place(Location::host_numa(0))};
    const auto findings = doctor::evaluate(facts, Expectation::node);
    CHECK(troubles(findings) == Texts{"FM-DRIVER-008 failed", "FM-DRIVER-009 failed"});
    CHECK(finding_of(findings, "FM-DRIVER-008").facts == "ended after 10.0 s");
    CHECK(finding_of(findings, "FM-DRIVER-009").facts.find("signal 11") != std::string::npos);
    const doctor::Verdict verdict = verdict_of(facts);
    CHECK(verdict.outcome == Outcome::less);
    CHECK(verdict.sentence.find("what devices 1-2 can is not known") != std::string::npos);
}

TEST_CASE("An NVML that hangs stands in nobody's way", "[doctor]") {
    Facts facts = good_facts();
    facts.stuck = {{.step = "nvml"}};
    facts.nvml.reset();
    facts.nvml_asked = false;
    CHECK(troubles(facts) == Texts{"FM-DRIVER-008 warning"});
    CHECK(verdict_of(facts).outcome == Outcome::as_expected);
}

TEST_CASE("GPUs that CUDA does not see are a warning, unless CUDA_VISIBLE_DEVICES hides them", "[doctor]") {
    Facts facts = good_facts();
    facts.nvml->devices.push_back({.pci_bus_id = "0000:41:00.0"});
    CHECK(troubles(facts) == Texts{"FM-NVML-002 warning"});
    facts.machine->visible_devices = "0,1";
    CHECK(troubles(facts).empty());
    const auto findings = doctor::evaluate(facts, Expectation::node);
    CHECK(finding_of(findings, "FM-NVML-002").facts ==
          "CUDA sees 2 of 3 GPUs: CUDA_VISIBLE_DEVICES=\"0,1\" hides 0000:41:00.0");
}

TEST_CASE("A device that is found by its UUID, where its bus is not known, is not hidden", "[doctor]") {
    Facts facts = good_facts(1);
    facts.devices.front().pci_bus_id.clear();
    facts.devices.front().uuid = kSomeCluster;
    facts.nvml->devices.front().uuid = kSomeCluster;
    CHECK(troubles(facts).empty());
}

TEST_CASE("NVML that is absent is a warning on a machine of NVIDIA's, and what it would tell is not known",
          "[doctor]") {
    Facts facts = good_facts();
    facts.nvml.reset();
    CHECK(troubles(facts) == Texts{"FM-NVML-001 warning"});
    const auto findings = doctor::evaluate(facts, Expectation::node);
    CHECK(finding_of(findings, "FM-FABRIC-005").state == CheckState::unknown);
}

TEST_CASE("Another version of NVML than the kernel module's is told", "[doctor]") {
    Facts facts = good_facts();
    facts.nvml->driver_version = "570.10";
    CHECK(troubles(facts) == Texts{"FM-DRIVER-005 warning"});
    facts = without_driver(803, "FM-DRIVER-005");
    facts.nvml->driver_version = "570.10";
    const auto findings = doctor::evaluate(facts, Expectation::node);
    CHECK(troubles(findings) == Texts{"FM-DRIVER-005 failed"});
    CHECK(finding_of(findings, "FM-DRIVER-005").facts.find("570.10") != std::string::npos);
}

TEST_CASE("A driver that names no check is told by its code", "[doctor]") {
    CHECK(troubles(without_driver(100, "")) == Texts{"FM-DRIVER-003 failed"});
    CHECK(troubles(without_driver(802, "")) == Texts{"FM-FABRIC-004 failed"});
    CHECK(troubles(without_driver(999, "")) == Texts{"FM-DRIVER-006 failed"});
}

TEST_CASE("A GPU that waits for a recovery action is a warning where it works, and a failure where it does not",
          "[doctor]") {
    Facts facts = good_facts();
    facts.nvml->devices[1].recovery_action = 1;
    auto findings = doctor::evaluate(facts, Expectation::node);
    CHECK(troubles(findings) == Texts{"FM-FABRIC-008 warning"});
    CHECK(finding_of(findings, "FM-FABRIC-008").subject() == "device 1");
    facts = failing_facts(ProbeRung::create, "FM-MEMORY-001", "a code");
    facts.nvml->devices[1].recovery_action = 5;
    CHECK(troubles(facts) == Texts{"FM-IMEX-002 failed", "FM-MEMORY-001 failed"});
}

TEST_CASE("A device that is ill in the fabric is told once, with the raw mask beside the words", "[doctor]") {
    Facts facts = domain_facts();
    for (auto& place : facts.places) {
        ProbeStep& looked = step_of(place, ProbeRung::fabric_state);
        looked = {.rung = ProbeRung::fabric_state,
                  .state = RungState::warning,
                  .facts = "health 0x9a: route unhealthy",
                  .check = "FM-FABRIC-005",
                  .cause = "route unhealthy"};
    }
    for (NvmlDevice& device : facts.nvml->devices) device.fabric->health_mask = 0x9a;
    const auto findings = doctor::evaluate(facts, Expectation::multinode);
    CHECK(troubles(findings) == Texts{"FM-FABRIC-005 warning"});
    CHECK(finding_of(findings, "FM-FABRIC-005").facts == "health 0x9a: route unhealthy");
}

TEST_CASE("Without a driver NVML tells how the GPUs are, with their bus ids", "[doctor]") {
    Facts facts = without_driver(802, "FM-FABRIC-003");
    facts.nvml->devices.front().fabric->state = FabricInfo::State::in_progress;
    const auto findings = doctor::evaluate(facts, Expectation::node);
    CHECK(troubles(findings) == Texts{"FM-FABRIC-003 failed", "FM-FABRIC-003 warning"});
    CHECK(findings.at(20).check->id < findings.at(40).check->id);
}

TEST_CASE("What is expected follows from the domain, unless it is said", "[doctor]") {
    CHECK(doctor::expectation_of(good_facts(), std::nullopt) == Expectation::node);
    CHECK(doctor::expectation_of(domain_facts(), std::nullopt) == Expectation::multinode);
    CHECK(doctor::expectation_of(domain_facts(), Expectation::node) == Expectation::node);
    Facts joining = domain_facts();
    for (NvmlDevice& device : joining.nvml->devices) device.fabric->state = FabricInfo::State::in_progress;
    CHECK(doctor::expectation_of(joining, std::nullopt) == Expectation::multinode);
}

TEST_CASE("Host memory that stays on its node is a warning where other nodes are expected", "[doctor]") {
    Facts facts = domain_facts();
    for (auto& device : facts.devices) device.host_memory_travels = false;
    CHECK(troubles(doctor::evaluate(facts, Expectation::multinode)) == Texts{"FM-FABRIC-010 warning"});
    CHECK(troubles(doctor::evaluate(facts, Expectation::node)).empty());
}

TEST_CASE("Each outcome has its exit code", "[doctor]") {
    CHECK(verdict_of(good_facts()).exit_code() == 0);
    CHECK(verdict_of(domain_facts()).exit_code() == 0);
    CHECK(verdict_of(domain_facts(), Expectation::node).exit_code() == 0);
    // On this node alone, where others were expected.
    CHECK(verdict_of(good_facts(), Expectation::multinode).exit_code() == 1);
    CHECK(troubles(doctor::evaluate(good_facts(), Expectation::multinode)) == Texts{"FM-FABRIC-007 failed"});
    Facts some = good_facts();
    some.places[1] = bad_place(Location::device(1), ProbeRung::create, "FM-MEMORY-003", "no memory left");
    CHECK(verdict_of(some).exit_code() == 1);
    CHECK(verdict_of(some).sentence ==
          "fabric memory works on device 0 and host NUMA node 0 (driver 580.159.04, CUDA 13.0), but not on device 1: "
          "no memory left");
    // File descriptors alone, where nobody can mend that.
    const Facts silent = failing_facts(ProbeRung::handle_types, "FM-FABRIC-002", "not granted", HandleReach::posix_fd);
    CHECK(verdict_of(silent).exit_code() == 1);
    CHECK(verdict_of(failing_facts(ProbeRung::create, "FM-CHANNEL-001", "none", HandleReach::posix_fd)).exit_code() ==
          2);
    CHECK(verdict_of(without_driver(803, "FM-DRIVER-005")).exit_code() == 2);
    // A kernel module, or a GPU on the bus, without a libcuda can be mended; without both there is nothing to mend.
    Facts bare = without_driver(0, "FM-DRIVER-001");
    bare.nvml.reset();
    CHECK(verdict_of(bare).exit_code() == 2);
    bare.machine->kernel_module.reset();
    bare.machine->gpu_on_pci = true;
    CHECK(verdict_of(bare).exit_code() == 2);
    bare.machine->gpu_on_pci = false;
    CHECK(verdict_of(bare).exit_code() == 3);
    bare.machine->gpu_on_pci.reset();
    CHECK(verdict_of(bare).exit_code() == 3);
}

TEST_CASE("The IMEX domain decides where other nodes are expected, and never by its tool's absence", "[doctor]") {
    using Answer = doctor::ImexFacts::Answer;
    Facts facts = domain_facts();
    facts.imex = {.answer = Answer::understood, .domain = "UP", .nodes = {{"node0", "READY"}, {"node1", "READY"}}};
    CHECK(troubles(facts).empty());
    facts.imex.domain = "DEGRADED";
    facts.imex.nodes[1].state = "UNAVAILABLE";
    CHECK(troubles(facts) == Texts{"FM-IMEX-003 warning"});
    CHECK(verdict_of(facts).exit_code() == 0);
    const auto findings = doctor::evaluate(facts, Expectation::multinode);
    CHECK(finding_of(findings, "FM-IMEX-003").facts == "1 of 2 nodes are not READY: node1 (UNAVAILABLE)");
    facts.imex.domain = "DOWN";
    CHECK(troubles(facts) == Texts{"FM-IMEX-003 failed"});
    CHECK(verdict_of(facts).exit_code() == 1);
    facts.imex.daemon = "WAITING_FOR_PEERS";
    CHECK(troubles(facts) == Texts{"FM-IMEX-001 failed"});
    CHECK(verdict_of(facts).exit_code() == 1);
    facts.imex = {.answer = Answer::understood, .daemon = "READY"};
    CHECK(troubles(facts) == Texts{"FM-IMEX-003 unknown"});
    facts.imex = {.answer = Answer::absent, .detail = "there is none"};
    CHECK(troubles(facts) == Texts{"FM-IMEX-001 unknown"});
    facts.imex = {.answer = Answer::nonsense};
    CHECK(troubles(facts) == Texts{"FM-IMEX-006 unknown"});
    facts.imex = {.answer = Answer::late};
    CHECK(troubles(facts) == Texts{"FM-IMEX-004 warning"});
    CHECK(verdict_of(facts).exit_code() == 0);
}

TEST_CASE("Places are named in words, runs of them shortly", "[doctor]") {
    const auto d = [](int number) { return Location::device(number); };
    const auto h = [](int number) { return Location::host_numa(number); };
    CHECK(doctor::name_places({}) == "");
    CHECK(doctor::name_places({d(3)}) == "device 3");
    CHECK(doctor::name_places({d(2), d(0), d(1), d(5), h(0)}) == "devices 0-2 and 5 and host NUMA node 0");
    CHECK(doctor::name_places({h(1), h(0), h(4), h(6)}) == "host NUMA nodes 0-1, 4 and 6");
}

#else

TEST_CASE("One cause in several places is one finding", "[doctor]") { FABRICMEM_SKIP("built without the tools"); }

#endif
