// SPDX-License-Identifier: Apache-2.0
// Has children look at the machine and try its places, and outlives whatever happens to them.
#pragma once

#include "doctor/facts.hpp"
#include "doctor/options.hpp"
#include "doctor/watched_child.hpp"

namespace doctor {

/// A child that hangs or crashes is ended, and another one goes on behind the step. Throws DoctorFailed where no child
/// can be had.
[[nodiscard]] Facts examine(const Options& options, const Tell& tell);

}  // namespace doctor
