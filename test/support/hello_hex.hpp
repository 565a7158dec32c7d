// SPDX-License-Identifier: Apache-2.0
// Hellos, and other bytes, as lines of text.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace fabricmem::test {

[[nodiscard]] inline std::string hello_to_hex(std::span<const std::byte> hello) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string hex;
    for (const std::byte byte : hello) {
        hex += kDigits[std::to_integer<unsigned>(byte) >> 4];
        hex += kDigits[std::to_integer<unsigned>(byte) & 15];
    }
    return hex;
}

[[nodiscard]] inline std::vector<std::byte> hello_from_hex(const std::string& hex) {
    std::vector<std::byte> hello;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        hello.push_back(static_cast<std::byte>(std::stoul(hex.substr(i, 2), nullptr, 16)));
    return hello;
}

}  // namespace fabricmem::test
