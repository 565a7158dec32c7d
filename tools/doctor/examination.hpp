// SPDX-License-Identifier: Apache-2.0
// Has children look at the machine and try its places, and outlives whatever happens to them.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "doctor/facts.hpp"
#include "doctor/options.hpp"

namespace doctor {

/// The doctor itself failed: `what()` is one line.
class DoctorFailed : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Told of each step that begins, as "probe of device 0".
using Tell = std::function<void(const std::string& step)>;

/// "probe of device 0" of the step "device 0".
[[nodiscard]] std::string describe_step(const std::string& step);

/// A child that hangs or crashes is ended, and another one goes on behind the step. Throws DoctorFailed where no child
/// can be had.
[[nodiscard]] Facts examine(const Options& options, const Tell& tell);

}  // namespace doctor
