// SPDX-License-Identifier: Apache-2.0
// Makes the real machine's Platform with another NVML than the machine's: for tests.
#pragma once

#include <memory>
#include <string>

#include <fabricmem/platform.hpp>

namespace fabricmem::detail {

/// make_system_platform(root), which loads `nvml_library` (what dlopen is given) as NVML.
[[nodiscard]] FABRICMEM_API std::unique_ptr<Platform> make_system_platform_with(std::string root,
                                                                                std::string nvml_library);

}  // namespace fabricmem::detail
