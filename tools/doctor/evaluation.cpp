// SPDX-License-Identifier: Apache-2.0
// The order of the evaluation, what was done, and what is said of a check about which nothing was found.
#include "doctor/evaluation.hpp"

#include <string.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/text.hpp"
#include "doctor/findings.hpp"
#include "doctor/watched_child.hpp"

namespace doctor {
namespace {

using fabricmem::Location;
using fabricmem::ProbeRung;
using fabricmem::ProbeStep;
using fabricmem::RungState;

/// Whether the step looks, rather than do.
bool looks(const ProbeStep& step) noexcept { return step.rung < ProbeRung::reserve; }

/// The step that a place's failure is about: what was done decides, unless the device says itself that it can't.
const ProbeStep* decisive(const PlaceFacts& place) noexcept {
    const ProbeStep* found = nullptr;
    for (const ProbeStep& step : place.steps) {
        if (step.state != RungState::failed) continue;
        if (step.check == "FM-FABRIC-001") return &step;
        if (!looks(step) || step.rung == ProbeRung::attributes) found = &step;
    }
    return found;
}

/// A step's words without its own place's name, so that those of several places are alike.
std::string facts_of(const ProbeStep& step, const Location& place) {
    std::string facts = step.facts;
    const std::string name = examples::formatted(" ({})", to_string(place));
    if (const std::size_t at = facts.find(name); at != facts.npos) facts.erase(at, name.size());
    return facts;
}

void judge_place(const PlaceFacts& place, Findings& findings) {
    const auto add = [&](const ProbeStep& step, CheckState state) {
        findings.add(step.check, state,
                     {.places = {place.place}, .facts = facts_of(step, place.place), .cause = step.cause});
    };
    const ProbeStep* const failure = works(place) ? nullptr : decisive(place);
    if (failure != nullptr) add(*failure, CheckState::failed);
    for (const ProbeStep& step : place.steps) {
        const bool not_well = step.state == RungState::failed || step.state == RungState::warning;
        if (!not_well || !looks(step) || &step == failure) continue;
        // The channels are the machine's, not a place's.
        if (step.rung != ProbeRung::channels) add(step, CheckState::warning);
    }
}

std::string in_seconds(std::chrono::milliseconds time) {
    return examples::formatted("{:.1f} s", static_cast<double>(time.count()) / 1000);
}

/// The place of a step that probes one.
std::vector<Location> places_of(const Facts& facts, const std::string& step) {
    for (const Location& place : facts.to_try) {
        if (to_string(place) == step) return {place};
    }
    return {};
}

}  // namespace

Expectation expectation_of(const Facts& facts, std::optional<Expectation> asked) noexcept {
    if (asked.has_value()) return *asked;
    return has_multinode_domain(facts) ? Expectation::multinode : Expectation::node;
}

bool any_works(const Facts& facts) noexcept {
    return std::any_of(facts.places.begin(), facts.places.end(), [](const PlaceFacts& place) { return works(place); });
}

bool driver_made(const Facts& facts) noexcept { return facts.driver.has_value() && !facts.driver->why_not.has_value(); }

void judge_stuck(const Facts& facts, Findings& findings) {
    for (const Stuck& stuck : facts.stuck) {
        const std::vector<Location> places = places_of(facts, stuck.step);
        const std::string about = places.empty() ? describe_step(stuck.step) : std::string();
        const bool beside = stuck.step == "machine" || stuck.step == "nvml";
        const CheckState state = beside ? CheckState::warning : CheckState::failed;
        const std::string what = places.empty() ? describe_step(stuck.step) : std::string("probe");
        if (stuck.how == Stuck::How::late) {
            findings.add("FM-DRIVER-008", state,
                         {.places = places,
                          .about = about,
                          .facts = examples::formatted("ended after {}", in_seconds(stuck.after)),
                          .cause = examples::formatted("the {} did not come to an end in time", what)});
            continue;
        }
        const std::string how = stuck.how == Stuck::How::signal
                                    ? examples::formatted("signal {} ({})", stuck.number, ::strsignal(stuck.number))
                                    : examples::formatted("exit code {}", stuck.number);
        findings.add("FM-DRIVER-009", state,
                     {.places = places,
                      .about = about,
                      .facts = examples::formatted("the process ended with {}", how),
                      .cause = examples::formatted("the {} ended its process", what)});
    }
}

void judge_places(const Facts& facts, Findings& findings) {
    for (const PlaceFacts& place : facts.places) judge_place(place, findings);
}

std::vector<Finding> evaluate(const Facts& facts, Expectation expected) {
    Findings findings;
    judge_stuck(facts, findings);
    judge_driver(facts, findings);
    judge_places(facts, findings);
    judge_channels(facts, findings);
    judge_fabric(facts, expected, findings);
    judge_nvml(facts, findings);
    judge_imex(facts, expected, findings);
    judge_meeting(facts, findings);
    return findings.take(facts);
}

}  // namespace doctor
