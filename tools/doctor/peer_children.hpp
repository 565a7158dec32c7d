// SPDX-License-Identifier: Apache-2.0
// The two children of a run with others: one makes memory and keeps it until its stdin ends, one imports what it is
// given, line by line. Two processes, so that an import that hangs takes no memory away from a peer.
#pragma once

#include "doctor/options.hpp"

namespace doctor {

[[nodiscard]] int run_exporter(const Options& options);
[[nodiscard]] int run_importer(const Options& options);

}  // namespace doctor
