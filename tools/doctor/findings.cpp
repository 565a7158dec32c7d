// SPDX-License-Identifier: Apache-2.0
#include "doctor/findings.hpp"

#include <algorithm>
#include <utility>

namespace doctor {
namespace {

using fabricmem::Check;
using fabricmem::Location;

// Graver ones first: an unknown state hides what might be.
int gravity(CheckState state) noexcept {
    switch (state) {
        case CheckState::failed: return 0;
        case CheckState::warning: return 1;
        case CheckState::unknown: return 2;
        case CheckState::ok: return 3;
        case CheckState::skipped: return 4;
    }
    return 4;
}

// "a; b", unless it is there already.
void add_text(std::string& text, const std::string& more) {
    if (more.empty() || text.find(more) != text.npos) return;
    text += (text.empty() ? "" : "; ") + more;
}

}  // namespace

std::string_view to_string(CheckState state) noexcept {
    switch (state) {
        case CheckState::ok: return "ok";
        case CheckState::warning: return "warning";
        case CheckState::failed: return "failed";
        case CheckState::unknown: return "unknown";
        case CheckState::skipped: return "skipped";
    }
    return "unknown";
}

std::string Finding::subject() const {
    std::string text = name_places(places);
    add_text(text, about);
    return text;
}

bool Finding::is_well() const noexcept { return state == CheckState::ok || state == CheckState::skipped; }

void Findings::add(std::string_view check, CheckState state, Finding finding) {
    finding.check = fabricmem::find_check(check);
    if (finding.check == nullptr) return;
    finding.state = state;
    const auto same = std::find_if(findings_.begin(), findings_.end(), [&](const Finding& other) {
        return other.check == finding.check && other.state == state && other.cause == finding.cause &&
               other.mend == finding.mend;
    });
    if (same == findings_.end()) {
        findings_.push_back(std::move(finding));
        return;
    }
    for (const Location& place : finding.places) {
        if (std::find(same->places.begin(), same->places.end(), place) == same->places.end())
            same->places.push_back(place);
    }
    add_text(same->about, finding.about);
    add_text(same->facts, finding.facts);
}

bool Findings::has(std::string_view check) const noexcept {
    return std::any_of(findings_.begin(), findings_.end(),
                       [&](const Finding& finding) { return finding.check->id == check; });
}

bool Findings::has_failed(std::string_view check) const noexcept {
    return std::any_of(findings_.begin(), findings_.end(), [&](const Finding& finding) {
        return finding.state == CheckState::failed && (check.empty() || finding.check->id == check);
    });
}

bool Findings::add_facts(std::string_view check, const std::string& facts) {
    const auto found = std::find_if(findings_.begin(), findings_.end(),
                                    [&](const Finding& finding) { return finding.check->id == check; });
    if (found == findings_.end()) return false;
    add_text(found->facts, facts);
    return true;
}

std::vector<Finding> Findings::take(const Facts& facts) {
    for (const Check& check : fabricmem::all_checks()) {
        if (!has(check.id)) findings_.push_back(without_finding(facts, check));
    }
    std::stable_sort(findings_.begin(), findings_.end(), [](const Finding& a, const Finding& b) {
        return a.check != b.check ? a.check < b.check : gravity(a.state) < gravity(b.state);
    });
    return std::move(findings_);
}

}  // namespace doctor
