// SPDX-License-Identifier: Apache-2.0
// All of it in one sentence and one number. Pure.
#pragma once

#include <string>
#include <vector>

#include <fabricmem/probe.hpp>

#include "doctor/evaluation.hpp"
#include "doctor/facts.hpp"

namespace doctor {

/// The program's exit codes.
enum class Outcome : std::uint8_t {
    as_expected = 0,
    less = 1,        ///< it works, but less than expected
    curable = 2,     ///< it does not work, and can be mended
    impossible = 3,  ///< this platform can't
    doctor_failed = 4,
};

struct Verdict {
    Outcome outcome = Outcome::doctor_failed;
    std::string sentence{};
    Expectation expected = Expectation::node;
    fabricmem::HandleReach reach = fabricmem::HandleReach::none;  ///< the widest of all places

    [[nodiscard]] int exit_code() const noexcept { return static_cast<int>(outcome); }
};

[[nodiscard]] Verdict judge(const Facts& facts, const std::vector<Finding>& findings, Expectation expected);

}  // namespace doctor
