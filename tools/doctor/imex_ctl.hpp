// SPDX-License-Identifier: Apache-2.0
// Asks nvidia-imex-ctl of the node's IMEX domain, where there is one. It may hang, and say anything.
#pragma once

#include <chrono>
#include <string>

#include "doctor/facts.hpp"

namespace doctor {

/// ROOT/usr/bin/nvidia-imex-ctl, or, without a root, what PATH finds. Asked for the domain (-N -j) and, where that is
/// not understood or not up, for this node's daemon (-q), each for at most `limit`.
[[nodiscard]] ImexFacts ask_imex(const std::string& root, std::chrono::milliseconds limit);

/// What -N -j printed: false, and nothing taken, where that is not understood. Unknown fields are none of ours.
[[nodiscard]] bool read_domain(const std::string& text, ImexFacts& facts);
/// What -q printed: a daemon's state in capitals.
[[nodiscard]] bool read_daemon(const std::string& text, ImexFacts& facts);

}  // namespace doctor
