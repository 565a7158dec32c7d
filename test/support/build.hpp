// SPDX-License-Identifier: Apache-2.0
// Whether this build, or what runs it, is many times slower than the machine: a sanitizer, or a user-mode emulator.
#pragma once

#include <cstdlib>

namespace fabricmem::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

/// What runs the programs of a cross build stands in FABRICMEM_TEST_LAUNCHER.
inline const bool kEmulatedCpu = std::getenv("FABRICMEM_TEST_LAUNCHER") != nullptr;
inline const bool kSlowBuild = kSanitized || kEmulatedCpu;

}  // namespace fabricmem::test
