// SPDX-License-Identifier: Apache-2.0
// What the facts mean: a state for every check, one finding for each cause. Pure: no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/checks.hpp>

#include "doctor/facts.hpp"
#include "doctor/options.hpp"

namespace doctor {

enum class CheckState : std::uint8_t {
    ok,
    warning,  ///< not as it should be, and does not stand in the way
    failed,
    unknown,  ///< could not be told
    skipped,  ///< there is nothing to look at
};
[[nodiscard]] std::string_view to_string(CheckState state) noexcept;

struct Finding {
    const fabricmem::Check* check = nullptr;  ///< never null
    CheckState state = CheckState::skipped;
    std::vector<fabricmem::Location> places{};  ///< where; empty: the machine
    std::string about{};                        ///< what else it is about: "GPU 0000:1b:00.0"
    std::string facts{};
    std::string cause{};
    std::string mend{};  ///< of a finding with others: who has to mend it
    bool found = true;   ///< false: nothing was found about the check, or it follows from another finding

    /// "devices 0-7 and host NUMA node 0"; empty: the machine.
    [[nodiscard]] std::string subject() const;
    [[nodiscard]] bool is_well() const noexcept;
};

/// What has to hold for `facts` to be as expected.
[[nodiscard]] Expectation expectation_of(const Facts& facts, std::optional<Expectation> asked) noexcept;

/// Every check has a finding, in the order of all_checks(). Findings of one check with one state and one cause are
/// folded into one; what follows from another finding is none.
[[nodiscard]] std::vector<Finding> evaluate(const Facts& facts, Expectation expected);

}  // namespace doctor
