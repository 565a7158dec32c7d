// SPDX-License-Identifier: Apache-2.0
#include "doctor/verdict.hpp"

#include <algorithm>
#include <utility>

#include "common/text.hpp"
#include "doctor/findings.hpp"
#include "doctor/meeting_words.hpp"
#include "doctor/words.hpp"

namespace doctor {
namespace {

using examples::formatted;
using fabricmem::HandleReach;
using fabricmem::Location;

constexpr const char* kProveIt = "only a peer there proves (--listen, --connect)";

/// The first finding with this state.
const Finding* first_of(const std::vector<Finding>& findings, CheckState state) noexcept {
    const auto found =
        std::find_if(findings.begin(), findings.end(), [&](const Finding& finding) { return finding.state == state; });
    return found == findings.end() ? nullptr : &*found;
}

/// What is to be said of why not: the first failure, else the first warning.
std::string why(const std::vector<Finding>& findings) {
    const Finding* finding = first_of(findings, CheckState::failed);
    if (finding == nullptr) finding = first_of(findings, CheckState::warning);
    if (finding == nullptr) return "why is not known";
    if (!finding->cause.empty()) return finding->cause;
    return finding->facts.empty() ? "not so: " + std::string(finding->check->statement) : finding->facts;
}

std::string emulated_prefix(const Facts& facts) {
    if (!facts.emulated) return {};
    const std::string place = facts.driver.has_value() ? facts.driver->place : std::string();
    return formatted("emulated driver{}{}: ", place.empty() ? "" : ", ", place);
}

class Judge {
public:
    Judge(const Facts& facts, const std::vector<Finding>& findings, Expectation expected)
        : facts_(facts), findings_(findings), expected_(expected) {
        for (const Location& place : facts.to_try) {
            const PlaceFacts* const tried = facts.at(place);
            if (tried == nullptr)
                unknown_.push_back(place);
            else
                (works(*tried) ? working_ : failing_).push_back(place);
            if (tried != nullptr) reach_ = std::max(reach_, tried->reach);
        }
    }

    Verdict verdict() {
        Verdict verdict{.expected = expected_, .reach = reach_};
        auto [outcome, sentence] = working_.empty() ? of_nothing() : of_something();
        verdict.outcome = outcome;
        verdict.sentence = emulated_prefix(facts_) + sentence;
        return verdict;
    }

private:
    using Said = std::pair<Outcome, std::string>;

    [[nodiscard]] std::string versions() const;
    [[nodiscard]] Said of_nothing() const;
    [[nodiscard]] Said of_something() const;
    [[nodiscard]] Said of_whole_node() const;
    [[nodiscard]] bool nothing_in_sight() const noexcept;
    [[nodiscard]] bool has_failed(std::string_view check) const noexcept;
    [[nodiscard]] bool is_curable() const noexcept;
    [[nodiscard]] std::string shortfall() const;

    const Facts& facts_;
    const std::vector<Finding>& findings_;
    Expectation expected_;
    std::vector<Location> working_{};
    std::vector<Location> failing_{};
    std::vector<Location> unknown_{};
    HandleReach reach_ = HandleReach::none;
};

// "(driver 580.159.04, CUDA 13.0)", as far as it is known.
std::string Judge::versions() const {
    std::string driver;
    if (facts_.machine.has_value() && facts_.machine->kernel_module.has_value())
        driver = facts_.machine->kernel_module->version;
    if (driver.empty() && facts_.nvml.has_value()) driver = facts_.nvml->driver_version;
    const std::string cuda = facts_.driver.has_value() ? describe_cuda(facts_.driver->cuda_version) : std::string();
    std::string text = driver.empty() ? std::string() : "driver " + driver;
    if (!cuda.empty()) text += (text.empty() ? "" : ", ") + cuda;
    return text.empty() ? text : formatted(" ({})", text);
}

bool Judge::has_failed(std::string_view check) const noexcept {
    return std::any_of(findings_.begin(), findings_.end(), [&](const Finding& finding) {
        return finding.check->id == check && finding.state == CheckState::failed;
    });
}

// Whether something failed that somebody can mend, rather than do without.
bool Judge::is_curable() const noexcept {
    return std::any_of(findings_.begin(), findings_.end(), [](const Finding& finding) {
        const std::string_view id = finding.check->id;
        return finding.state == CheckState::failed && id != "FM-FABRIC-001" && id != "FM-FABRIC-002";
    });
}

// No GPU of NVIDIA's, and nothing of its driver.
bool Judge::nothing_in_sight() const noexcept {
    if (facts_.nvml.has_value() && !facts_.nvml->devices.empty()) return false;
    if (!facts_.machine.has_value()) return facts_.emulated && has_failed("FM-DRIVER-003");
    return !facts_.machine->kernel_module.has_value() && !facts_.machine->gpu_on_pci.value_or(false);
}

Judge::Said Judge::of_nothing() const {
    if (!driver_made(facts_)) {
        if (facts_.driver.has_value() && nothing_in_sight())
            return {Outcome::impossible,
                    "this machine has no fabric memory: no NVIDIA GPU, and no kernel module of "
                    "NVIDIA's, is in sight"};
        return {
            Outcome::curable,
            formatted("fabric memory does not work here, for want of a CUDA driver that works: {}", why(findings_))};
    }
    const bool no_handles =
        !facts_.devices.empty() && std::none_of(facts_.devices.begin(), facts_.devices.end(),
                                                [](const DeviceFacts& device) { return device.fabric_handles; });
    const char* const descriptors =
        reach_ == HandleReach::posix_fd ? "; memory can be shared by file descriptors, within this node" : "";
    if (no_handles) {
        return {Outcome::impossible, formatted("this machine has no fabric memory{}: no device has fabric handles{}",
                                               versions(), descriptors)};
    }
    if (reach_ == HandleReach::posix_fd && unknown_.empty() && !is_curable()) {
        return {Outcome::less, formatted("fabric memory does not work here{}, file descriptors within this node do: {}",
                                         versions(), why(findings_))};
    }
    return {Outcome::curable, formatted("fabric memory does not work here, and can be mended{}: {}{}", versions(),
                                        why(findings_), descriptors)};
}

// Of what does not work besides what does.
std::string Judge::shortfall() const {
    std::string text;
    if (!failing_.empty()) text = formatted("not on {}", name_places(failing_));
    if (!unknown_.empty())
        text += formatted("{}what {} can is not known", text.empty() ? "" : ", and ", name_places(unknown_));
    return text;
}

Judge::Said Judge::of_something() const {
    if (failing_.empty() && unknown_.empty()) return of_whole_node();
    return {Outcome::less, formatted("fabric memory works on {}{}, but {}: {}", name_places(working_), versions(),
                                     shortfall(), why(findings_))};
}

// Every place works, within the node.
Judge::Said Judge::of_whole_node() const {
    const std::string where = name_places(working_);
    const bool all_in_domain = std::all_of(facts_.places.begin(), facts_.places.end(), [](const PlaceFacts& place) {
        return place.place.is_host() || place.reach == HandleReach::fabric_domain;
    });
    if (expected_ == Expectation::node) {
        const char* const beyond = has_multinode_domain(facts_)
                                       ? "other nodes were not tried"
                                       : "other nodes were not tried: the GPUs are in no multi-node NVLink domain";
        return {Outcome::as_expected,
                formatted("fabric memory works on this node on {}{}; {}", where, versions(), beyond)};
    }
    const bool daemon_is_well = !has_failed("FM-IMEX-001") && !has_failed("FM-IMEX-003");
    if (all_in_domain && daemon_is_well) {
        return {
            Outcome::as_expected,
            formatted("fabric memory works on {}{}, and the GPUs are in a multi-node NVLink domain; that it reaches "
                      "other nodes {}",
                      where, versions(), kProveIt)};
    }
    return {Outcome::less, formatted("fabric memory works on this node on {}{}, but not beyond it: {}", where,
                                     versions(), why(findings_))};
}

}  // namespace

Verdict judge(const Facts& facts, const std::vector<Finding>& findings, Expectation expected) {
    Verdict verdict = Judge(facts, findings, expected).verdict();
    if (!facts.meeting.has_value()) return verdict;
    const Meeting& meeting = *facts.meeting;
    const Outcome together = outcome_of(meeting);
    // What this process can't do by itself comes first.
    if (verdict.outcome == Outcome::curable || verdict.outcome == Outcome::impossible) {
        const char* const others = meeting.kind == Meeting::Kind::pair ? "the peer" : "the other ranks";
        verdict.sentence += together == Outcome::curable ? formatted("; nothing could be shared with {}", others)
                                                         : formatted("; {}", describe(meeting));
    } else {
        verdict.sentence = emulated_prefix(facts) + describe(meeting);
        verdict.outcome = std::max(verdict.outcome, together);
    }
    return verdict;
}

}  // namespace doctor
