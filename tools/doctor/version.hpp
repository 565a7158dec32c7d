// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace doctor {

/// "0.2.0": of the library that this program runs with.
[[nodiscard]] std::string version_text();

}  // namespace doctor
