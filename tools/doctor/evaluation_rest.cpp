// SPDX-License-Identifier: Apache-2.0
// What is said of a check about which nothing was found: well, as far as that was looked at or done.
#include <algorithm>
#include <string_view>

#include "doctor/findings.hpp"
#include "doctor/meeting_words.hpp"

namespace doctor {
namespace {

using fabricmem::Check;

/// What shows that a check holds.
enum class Basis : std::uint8_t {
    libcuda,   ///< the driver was made, from libcuda
    driver,    ///< the driver was made
    answers,   ///< the children came to their ends
    channel,   ///< a channel can be opened
    count,     ///< the kernel module tells its number of channels
    works,     ///< memory was made, shared and touched somewhere
    nvml,      ///< NVML answers
    domain,    ///< the GPUs are in a multi-node domain
    imex,      ///< nvidia-imex-ctl answered
    two_sides  ///< only a peer shows it
};

struct BasisRow {
    std::string_view prefix;  // of ids; the first that fits holds
    Basis basis;
};

constexpr BasisRow kBasisRows[] = {
    {"FM-DRIVER-001", Basis::libcuda},    {"FM-DRIVER-002", Basis::libcuda}, {"FM-DRIVER-005", Basis::libcuda},
    {"FM-DRIVER-006", Basis::libcuda},    {"FM-DRIVER-008", Basis::answers}, {"FM-DRIVER-009", Basis::answers},
    {"FM-DRIVER-010", Basis::works},      {"FM-DRIVER", Basis::driver},      {"FM-CHANNEL-006", Basis::count},
    {"FM-CHANNEL-007", Basis::two_sides}, {"FM-CHANNEL-008", Basis::works},  {"FM-CHANNEL", Basis::channel},
    {"FM-FABRIC-003", Basis::nvml},       {"FM-FABRIC-004", Basis::driver},  {"FM-FABRIC-005", Basis::nvml},
    {"FM-FABRIC-006", Basis::nvml},       {"FM-FABRIC-007", Basis::domain},  {"FM-FABRIC-008", Basis::nvml},
    {"FM-FABRIC-010", Basis::domain},     {"FM-FABRIC", Basis::works},       {"FM-IMEX-002", Basis::works},
    {"FM-IMEX-005", Basis::two_sides},    {"FM-IMEX", Basis::imex},          {"FM-MEMORY", Basis::works},
    {"FM-PEER", Basis::two_sides},        {"FM-NVML", Basis::nvml},
};

Finding as(CheckState state, std::string facts = {}) { return {.state = state, .facts = std::move(facts)}; }

Finding of_nvml(const Facts& facts) {
    if (facts.nvml.has_value()) return as(CheckState::ok);
    return as(driver_made(facts) ? CheckState::unknown : CheckState::skipped, "NVML is not to be had");
}

Finding of_channels(const Facts& facts, Basis basis) {
    if (!facts.machine.has_value()) return as(CheckState::unknown, "the channel nodes could not be looked at");
    if (basis == Basis::count) {
        const auto& module = facts.machine->kernel_module;
        if (module.has_value() && module->imex_channel_count.has_value()) return as(CheckState::ok);
        return as(CheckState::unknown, "/proc/driver/nvidia/params does not tell");
    }
    if (any_channel_opens(*facts.machine)) return as(CheckState::ok);
    return as(CheckState::skipped, "no channel can be opened");
}

Finding of_domain(const Facts& facts) {
    if (has_multinode_domain(facts)) return as(CheckState::ok);
    return as(CheckState::skipped,
              facts.nvml.has_value() ? "there is none: normal on a machine of its own" : "NVML is not to be had");
}

Finding of_imex(const Facts& facts) {
    const ImexFacts& imex = facts.imex;
    if (imex.answer == ImexFacts::Answer::understood) return as(CheckState::ok);
    const bool asked = imex.answer != ImexFacts::Answer::not_asked;
    return as(asked ? CheckState::unknown : CheckState::skipped, imex.detail);
}

Finding by(Basis basis, const Facts& facts) {
    switch (basis) {
        case Basis::libcuda:
            if (facts.emulated) return as(CheckState::skipped, "the driver is emulated");
            [[fallthrough]];
        case Basis::driver:
            if (driver_made(facts)) return as(CheckState::ok);
            return as(facts.driver.has_value() ? CheckState::skipped : CheckState::unknown, "there is no driver");
        case Basis::answers: return as(facts.out_of_time ? CheckState::unknown : CheckState::ok);
        case Basis::channel:
        case Basis::count: return of_channels(facts, basis);
        case Basis::works:
            return any_works(facts) ? as(CheckState::ok) : as(CheckState::skipped, "it did not come to that");
        case Basis::nvml: return of_nvml(facts);
        case Basis::domain: return of_domain(facts);
        case Basis::imex: return of_imex(facts);
        case Basis::two_sides: break;
    }
    if (facts.meeting.has_value() && all_work(*facts.meeting)) return as(CheckState::ok);
    return as(CheckState::skipped, "two sides show it: --listen and --connect, or --store");
}

}  // namespace

Finding without_finding(const Facts& facts, const Check& check) {
    const auto* const row = std::find_if(std::begin(kBasisRows), std::end(kBasisRows),
                                         [&](const BasisRow& r) { return check.id.starts_with(r.prefix); });
    Finding finding = row == std::end(kBasisRows) ? as(CheckState::unknown) : by(row->basis, facts);
    finding.check = &check;
    finding.found = false;
    return finding;
}

}  // namespace doctor
