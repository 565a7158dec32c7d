// SPDX-License-Identifier: Apache-2.0
// Bytes as hexadecimal digits. Knows no format, and no locale.
#include "blob/hex.hpp"

#include "blob/bad_blob.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

/// The digit's value; 16 for what is not a digit.
unsigned value_of(char digit) noexcept {
    if (digit >= '0' && digit <= '9') return static_cast<unsigned>(digit - '0');
    if (digit >= 'a' && digit <= 'f') return static_cast<unsigned>(digit - 'a') + 10;
    if (digit >= 'A' && digit <= 'F') return static_cast<unsigned>(digit - 'A') + 10;
    return 16;
}

}  // namespace

std::string to_hex(std::span<const std::uint8_t> bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * bytes.size());
    for (const std::uint8_t byte : bytes) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

void from_hex(std::string_view digits, std::span<std::uint8_t> bytes, std::string_view what) {
    if (digits.size() != 2 * bytes.size()) {
        refuse_blob(formatted("{} has {} hexadecimal digits, not {}", what, 2 * bytes.size(), digits.size()));
    }
    for (std::size_t i = 0; i < digits.size(); i += 2) {
        const unsigned high = value_of(digits[i]);
        const unsigned low = value_of(digits[i + 1]);
        if (high > 15 || low > 15) {
            // The character itself stays out of the text: it may be anything.
            refuse_blob(formatted("{}: character {} is not a hexadecimal digit", what, high > 15 ? i : i + 1));
        }
        bytes[i / 2] = static_cast<std::uint8_t>(high << 4 | low);
    }
}

}  // namespace fabricmem::detail
