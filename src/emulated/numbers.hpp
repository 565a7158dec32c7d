// SPDX-License-Identifier: Apache-2.0
// The driver's numbers that an older cuda.h may not name, the granularity, and the hashes that ids are made with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <cuda.h>

namespace fabricmem::detail::emulated {

inline constexpr int kDriverVersion = 13000;
inline constexpr std::size_t kGranularity = std::size_t{2} << 20;
inline constexpr std::uint64_t kAddressLimit = std::uint64_t{1} << 47;
inline constexpr int kFirstPciBus = 1;
inline constexpr int kNoDevice = -2;    // CU_DEVICE_INVALID
inline constexpr int kMaxDevices = 64;  // access flags are kept as 64-bit masks

// CUmemLocationType
inline constexpr int kLocationDevice = 1;
inline constexpr int kLocationHost = 2;
inline constexpr int kLocationHostNuma = 3;

// CUmemAllocationHandleType
inline constexpr unsigned int kHandlePosixFd = 1;
inline constexpr unsigned int kHandleFabric = 8;

// CUmemAccess_flags
inline constexpr unsigned int kAccessNone = 0;
inline constexpr unsigned int kAccessRead = 1;
inline constexpr unsigned int kAccessReadWrite = 3;

inline const auto kStreamLegacy = reinterpret_cast<CUstream>(std::uintptr_t{1});
inline const auto kStreamPerThread = reinterpret_cast<CUstream>(std::uintptr_t{2});

[[nodiscard]] constexpr std::uintptr_t to_address(CUdeviceptr address) noexcept {
    return static_cast<std::uintptr_t>(address);
}

/// FNV-1a, then mixed: good enough to tell names apart and to notice damage, not a secret.
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t value) noexcept {
    value ^= value >> 30;
    value *= 0xbf58476d1ce4e5b9U;
    value ^= value >> 27;
    value *= 0x94d049bb133111ebU;
    return value ^ (value >> 31);
}

[[nodiscard]] constexpr std::uint64_t hash(std::string_view bytes, std::uint64_t seed = 0) noexcept {
    std::uint64_t value = 0xcbf29ce484222325U ^ mix(seed);
    for (const char byte : bytes) {
        value ^= static_cast<unsigned char>(byte);
        value *= 0x100000001b3U;
    }
    return mix(value);
}

}  // namespace fabricmem::detail::emulated
