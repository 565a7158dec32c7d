// SPDX-License-Identifier: Apache-2.0
// CRC-32C. The instruction is used in functions of their own target, so the library as a whole needs no newer CPU.
#include "blob/crc32c.hpp"

#include <array>

#include "blob/wire.hpp"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#if !defined(__clang__)
#include <arm_acle.h>
#endif
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

namespace fabricmem::detail {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected: the lowest bit is the highest power

/// [0][b] is the CRC of byte b; [k][b] that of byte b with k zero bytes after it.
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Tables make_tables() {
    Tables tables{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ kPolynomial : crc >> 1;
        tables[0][b] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t b = 0; b < 256; ++b) {
            const std::uint32_t before = tables[k - 1][b];
            tables[k][b] = before >> 8 ^ tables[0][before & 0xff];
        }
    }
    return tables;
}

constexpr Tables kTables = make_tables();

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) std::uint32_t by_instruction(const std::byte* at, std::size_t left) noexcept {
    std::uint64_t crc = 0xffffffff;
    for (; left >= 8; at += 8, left -= 8) crc = _mm_crc32_u64(crc, get_le<std::uint64_t>(at));
    auto last = static_cast<std::uint32_t>(crc);
    for (; left > 0; ++at, --left) last = _mm_crc32_u8(last, std::to_integer<std::uint8_t>(*at));
    return ~last;
}

#elif defined(__aarch64__)

// The compilers disagree: clang declares the functions of arm_acle.h for a whole file of that target alone.
#if defined(__clang__)
#define FABRICMEM_CRC_TARGET __attribute__((target("crc")))
#define FABRICMEM_CRC32CD __builtin_arm_crc32cd
#define FABRICMEM_CRC32CB __builtin_arm_crc32cb
#else
#define FABRICMEM_CRC_TARGET __attribute__((target("+crc")))
#define FABRICMEM_CRC32CD __crc32cd
#define FABRICMEM_CRC32CB __crc32cb
#endif

FABRICMEM_CRC_TARGET std::uint32_t by_instruction(const std::byte* at, std::size_t left) noexcept {
    std::uint32_t crc = 0xffffffff;
    for (; left >= 8; at += 8, left -= 8) crc = FABRICMEM_CRC32CD(crc, get_le<std::uint64_t>(at));
    for (; left > 0; ++at, --left) crc = FABRICMEM_CRC32CB(crc, std::to_integer<std::uint8_t>(*at));
    return ~crc;
}

#undef FABRICMEM_CRC_TARGET
#undef FABRICMEM_CRC32CD
#undef FABRICMEM_CRC32CB

#endif

}  // namespace

std::uint32_t crc32c_by_table(std::span<const std::byte> bytes) noexcept {
    std::uint32_t crc = 0xffffffff;
    const std::byte* at = bytes.data();
    std::size_t left = bytes.size();
    for (; left >= 8; at += 8, left -= 8) {
        const std::uint64_t word = get_le<std::uint64_t>(at) ^ crc;
        crc = kTables[7][word & 0xff] ^ kTables[6][word >> 8 & 0xff] ^ kTables[5][word >> 16 & 0xff] ^
              kTables[4][word >> 24 & 0xff] ^ kTables[3][word >> 32 & 0xff] ^ kTables[2][word >> 40 & 0xff] ^
              kTables[1][word >> 48 & 0xff] ^ kTables[0][word >> 56];
    }
    for (; left > 0; ++at, --left) crc = crc >> 8 ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(*at)) & 0xff];
    return ~crc;
}

bool has_crc32c_instruction() noexcept {
#if defined(__x86_64__)
    // A load and a test each time: the compiler's runtime asked the CPU when it was loaded.
    return __builtin_cpu_supports("sse4.2") != 0;
#elif defined(__aarch64__)
    // getauxval() walks a list; the guard of this constant costs one acquiring load.
    static const bool has = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
    return has;
#else
    return false;
#endif
}

std::uint32_t crc32c(std::span<const std::byte> bytes) noexcept {
#if defined(__x86_64__) || defined(__aarch64__)
    if (has_crc32c_instruction()) return by_instruction(bytes.data(), bytes.size());
#endif
    return crc32c_by_table(bytes);
}

}  // namespace fabricmem::detail
