// SPDX-License-Identifier: Apache-2.0
// What a meeting came to, in words. Pure.
#pragma once

#include <string>

#include "doctor/peers.hpp"
#include "doctor/verdict.hpp"

namespace doctor {

/// Every try worked, and there was one.
[[nodiscard]] bool all_work(const Meeting& meeting) noexcept;
[[nodiscard]] Outcome outcome_of(const Meeting& meeting) noexcept;
/// A sentence, without its stop.
[[nodiscard]] std::string describe(const Meeting& meeting);

/// Of a job: rank by rank, with a letter for each cause. Of a pair: the two directions.
[[nodiscard]] std::string table_of(const Meeting& meeting, std::size_t width);

}  // namespace doctor
