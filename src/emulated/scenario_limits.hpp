// SPDX-License-Identifier: Apache-2.0
// How much a scenario may hold, and how one is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fabricmem::detail::emulated {

namespace limits {

inline constexpr std::size_t kNodes = 1024;  // a handle has ten bits for the node (fabric.hpp)
inline constexpr std::size_t kNumaNodes = 1024;
inline constexpr std::size_t kChannels = 65536;
inline constexpr std::size_t kNameBytes = 255;
inline constexpr std::size_t kJsonBytes = std::size_t{4} << 20;
inline constexpr std::int64_t kNvmlReturn = 999;
inline constexpr std::int64_t kErrno = 4095;
inline constexpr int kLatencyFactor = 1'000'000;

}  // namespace limits

/// Throws Error{bad_argument}: "the scenario's /nodes/0/name is empty".
[[noreturn]] void refuse_scenario(const std::string& path, const std::string& what);

}  // namespace fabricmem::detail::emulated
