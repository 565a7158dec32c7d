// SPDX-License-Identifier: Apache-2.0
// Gathers findings and folds them, and the parts of the evaluation that make them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "doctor/evaluation.hpp"

namespace doctor {

/// One cause is one finding.
class Findings {
public:
    /// Where there is one of the same check, state and cause, it grows by the places and the facts. A check that the
    /// table does not have is forgotten.
    void add(std::string_view check, CheckState state, Finding finding);
    /// To what was found about this check; false where nothing was.
    bool add_facts(std::string_view check, const std::string& facts);
    [[nodiscard]] bool has(std::string_view check) const noexcept;
    /// Whether something failed; about this check, or any.
    [[nodiscard]] bool has_failed(std::string_view check = {}) const noexcept;
    /// All, in the order of all_checks(), with those about which nothing was found.
    [[nodiscard]] std::vector<Finding> take(const Facts& facts);

private:
    std::vector<Finding> findings_;
};

// In this order: what was done comes before what was only looked at.
void judge_stuck(const Facts& facts, Findings& findings);
void judge_driver(const Facts& facts, Findings& findings);
void judge_places(const Facts& facts, Findings& findings);
void judge_channels(const Facts& facts, Findings& findings);
void judge_fabric(const Facts& facts, Expectation expected, Findings& findings);
void judge_nvml(const Facts& facts, Findings& findings);
void judge_imex(const Facts& facts, Expectation expected, Findings& findings);

void judge_meeting(const Facts& facts, Findings& findings);

/// The state of a check about which nothing was found.
[[nodiscard]] Finding without_finding(const Facts& facts, const fabricmem::Check& check);

[[nodiscard]] bool any_works(const Facts& facts) noexcept;
[[nodiscard]] bool driver_made(const Facts& facts) noexcept;
[[nodiscard]] bool any_channel_opens(const MachineFacts& machine) noexcept;
/// The device of NVML's that CUDA sees as this one; null where NVML does not list it.
[[nodiscard]] const fabricmem::NvmlDevice* nvml_device(const Facts& facts, const DeviceFacts& device) noexcept;
/// The device of CUDA's that NVML lists as this one; null where CUDA does not see it.
[[nodiscard]] const DeviceFacts* cuda_device(const Facts& facts, const fabricmem::NvmlDevice& device) noexcept;

}  // namespace doctor
