// SPDX-License-Identifier: Apache-2.0
// The library's version. CMake reads it from here, so it stands in one place only.
#pragma once

#include <fabricmem/export.hpp>

#define FABRICMEM_VERSION_MAJOR 0
#define FABRICMEM_VERSION_MINOR 1
#define FABRICMEM_VERSION_PATCH 0

namespace fabricmem {

struct Version {
    int major;
    int minor;
    int patch;
};

/// The version of the headers that the caller was compiled with.
inline constexpr Version kHeaderVersion{FABRICMEM_VERSION_MAJOR, FABRICMEM_VERSION_MINOR, FABRICMEM_VERSION_PATCH};

/// The version of the library that the caller runs with. Within 0.x, versions with the same minor number are
/// compatible.
[[nodiscard]] FABRICMEM_API Version library_version() noexcept;

}  // namespace fabricmem
