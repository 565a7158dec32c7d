// SPDX-License-Identifier: Apache-2.0
// Made-up facts for tests of what the doctor makes of them.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "doctor/evaluation.hpp"
#include "doctor/facts.hpp"

namespace fabricmem::test {

inline constexpr Id128 kSomeCluster{{1, 2, 3}};

/// A place where all steps passed.
inline doctor::PlaceFacts good_place(const Location& place, HandleReach reach = HandleReach::fabric_node) {
    doctor::PlaceFacts facts{.place = place, .reach = reach, .kinds = "fabric"};
    for (int rung = 0; rung <= static_cast<int>(ProbeRung::tear_down); ++rung)
        facts.steps.push_back({.rung = static_cast<ProbeRung>(rung), .state = RungState::passed});
    return facts;
}

inline ProbeStep& step_of(doctor::PlaceFacts& place, ProbeRung rung) {
    return place.steps.at(static_cast<std::size_t>(rung));
}

/// A place where one step failed and nothing came after it.
inline doctor::PlaceFacts bad_place(const Location& place, ProbeRung rung, const std::string& check,
                                    const std::string& cause, HandleReach reach = HandleReach::none) {
    doctor::PlaceFacts facts = good_place(place, reach);
    for (ProbeStep& step : facts.steps) {
        if (step.rung > rung) step.state = RungState::skipped;
    }
    ProbeStep& failed = step_of(facts, rung);
    failed.state = RungState::failed;
    failed.check = check;
    failed.cause = cause;
    failed.facts = "cuMemCreate of 2097152 bytes (" + to_string(place) + ") failed";
    return facts;
}

/// A machine with so many GPUs and one host NUMA node, where nothing is wrong.
inline doctor::Facts good_facts(int devices = 2) {
    doctor::Facts facts;
    facts.machine = doctor::MachineFacts{};
    facts.machine->kernel_module =
        KernelModule{.version = "580.159.04", .imex_channel_count = 2048, .imex_channel_major = 234};
    facts.machine->channels = {ImexChannel{}};
    facts.driver = doctor::DriverFacts{.cuda_version = 13000};
    facts.nvml_asked = true;
    facts.nvml = NvmlFacts{.driver_version = "580.159.04"};
    for (int i = 0; i < devices; ++i) {
        const std::string bus = "0000:0" + std::to_string(i + 1) + ":00.0";
        facts.devices.push_back({.ordinal = i, .name = "GPU", .pci_bus_id = bus, .fabric_handles = true});
        facts.nvml->devices.push_back({.pci_bus_id = bus, .fabric = FabricInfo{}, .recovery_action = 0});
        facts.to_try.push_back(Location::device(i));
    }
    facts.to_try.push_back(Location::host_numa(0));
    for (const Location& place : facts.to_try) facts.places.push_back(good_place(place));
    return facts;
}

/// The same in a multi-node NVLink domain.
inline doctor::Facts domain_facts(int devices = 2) {
    doctor::Facts facts = good_facts(devices);
    for (NvmlDevice& device : facts.nvml->devices) {
        device.fabric = FabricInfo{
            .state = FabricInfo::State::completed, .cluster_uuid = kSomeCluster, .clique = 7, .health_mask = 0xaa};
    }
    for (doctor::PlaceFacts& place : facts.places) place.reach = HandleReach::fabric_domain;
    return facts;
}

/// Every place fails alike.
inline doctor::Facts failing_facts(ProbeRung rung, const std::string& check, const std::string& cause,
                                   HandleReach reach = HandleReach::none) {
    doctor::Facts facts = good_facts();
    facts.places.clear();
    for (const Location& place : facts.to_try) facts.places.push_back(bad_place(place, rung, check, cause, reach));
    return facts;
}

/// "FM-CHANNEL-001 failed", of what was found and is not well.
inline std::vector<std::string> troubles(const std::vector<doctor::Finding>& findings) {
    std::vector<std::string> all;
    for (const doctor::Finding& finding : findings) {
        if (finding.found && !finding.is_well())
            all.push_back(std::string(finding.check->id) + " " + std::string(to_string(finding.state)));
    }
    return all;
}

inline std::vector<std::string> troubles(const doctor::Facts& facts) {
    return troubles(doctor::evaluate(facts, doctor::expectation_of(facts, std::nullopt)));
}

/// The first finding about a check.
inline doctor::Finding finding_of(const std::vector<doctor::Finding>& findings, std::string_view check) {
    for (const doctor::Finding& finding : findings) {
        if (finding.check->id == check) return finding;
    }
    return {};
}

}  // namespace fabricmem::test
