// SPDX-License-Identifier: Apache-2.0
// What stdout is, and how text is laid out for it.
#pragma once

#include "doctor/options.hpp"
#include "doctor/report.hpp"

namespace doctor {

/// Coloured on a terminal, unless NO_COLOR is set or TERM is "dumb"; as wide as the terminal, 40 to 80 columns.
[[nodiscard]] Layout layout_for_stdout(Colour colour);

}  // namespace doctor
