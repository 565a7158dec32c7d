// SPDX-License-Identifier: Apache-2.0
// The process that calls CUDA and NVML, and may hang or crash: its parent reads what it says.
#pragma once

#include "doctor/options.hpp"

namespace doctor {

/// Finds out what there is to know, and says it on stdout as facts_json.hpp has it. Returns the exit code.
[[nodiscard]] int run_child(const Options& options);

}  // namespace doctor
