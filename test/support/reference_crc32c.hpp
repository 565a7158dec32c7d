// SPDX-License-Identifier: Apache-2.0
// CRC-32C bit by bit, from its definition: what the library's two ways are compared with, and what mends the CRC of
// blobs that tests damage. Must share no code with the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fabricmem::test {

inline std::uint32_t reference_crc32c(std::span<const std::byte> bytes) {
    std::uint32_t crc = 0xffffffff;
    for (const std::byte byte : bytes) {
        crc ^= std::to_integer<std::uint32_t>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
    }
    return ~crc;
}

}  // namespace fabricmem::test
