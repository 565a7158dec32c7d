// SPDX-License-Identifier: Apache-2.0
// What the doctor says: text for humans, JSON for programs. Pure: they return what is to be printed.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "doctor/evaluation.hpp"
#include "doctor/facts.hpp"
#include "doctor/verdict.hpp"
#include "doctor/wrapped.hpp"

namespace doctor {

/// How text is laid out.
struct Layout {
    static constexpr std::size_t kWidest = 80;
    static constexpr std::size_t kNarrowest = 40;

    std::size_t width = kWidest;
    Paint paint = Paint::plain;
};

struct Report {
    const Facts& facts;
    const std::vector<Finding>& findings;
    const Verdict& verdict;
};

enum class Detail : std::uint8_t { what_is_not_well, all };

/// The verdict, what is not well, the verdict again.
[[nodiscard]] std::string text_of(const Report& report, Detail detail, const Layout& layout);
/// As docs/doctor.schema.json has it.
[[nodiscard]] std::string json_of(const Report& report);

/// What a check is about, and its cures. Throws examples::WrongOption, with all ids, for one that there is not.
[[nodiscard]] std::string explain(const std::string& id, const Layout& layout);

// Parts of text_of().
[[nodiscard]] std::string text_of_finding(const Finding& finding, const Layout& layout);
[[nodiscard]] std::string text_of_cures(const fabricmem::Cures& cures, const Layout& layout);
[[nodiscard]] std::string text_of_all(const Report& report, const Layout& layout);

}  // namespace doctor
