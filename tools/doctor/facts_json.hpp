// SPDX-License-Identifier: Apache-2.0
// What a child tells its parent: one JSON document a line. Both are of one program, so that no version is needed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "doctor/facts.hpp"

namespace doctor {

/// A step that may hang begins.
[[nodiscard]] std::string begin_line(const std::string& step);
[[nodiscard]] std::string machine_line(const MachineFacts& machine);
[[nodiscard]] std::string nvml_line(const std::optional<fabricmem::NvmlFacts>& nvml);
[[nodiscard]] std::string driver_line(const DriverFacts& driver);
/// What CUDA sees, and the places that will be probed.
[[nodiscard]] std::string devices_line(const std::vector<DeviceFacts>& devices,
                                       const std::vector<fabricmem::Location>& to_try);
[[nodiscard]] std::string place_line(const PlaceFacts& place);
/// All is done.
[[nodiscard]] std::string end_line();

/// The step that a line begins; empty: none.
[[nodiscard]] std::string begun_step(const std::string& line);
/// Puts what a line says where it belongs. A line that is none of these says nothing. Returns whether all is done.
/// Throws std::bad_alloc alone.
[[nodiscard]] bool take_line(const std::string& line, Facts& facts);

}  // namespace doctor
