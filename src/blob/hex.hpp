// SPDX-License-Identifier: Apache-2.0
// Bytes as hexadecimal digits: written in lower case, read in both. Knows no format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace fabricmem::detail {

[[nodiscard]] std::string to_hex(std::span<const std::uint8_t> bytes);

/// Fills `bytes` from exactly two digits each, without a prefix or blanks. Throws Error{bad_blob} that names `what`.
void from_hex(std::string_view digits, std::span<std::uint8_t> bytes, std::string_view what);

}  // namespace fabricmem::detail
