// SPDX-License-Identifier: Apache-2.0
// What the library's fixed-length messages have in common: an envelope in front, a checksum, and texts that others
// wrote. Knows no message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace fabricmem::detail {

/// The first 16 bytes of a message (magic, version, least version of a reader, length) and its CRC-32C, which is taken
/// with the checksum's own bytes as zero.
struct Envelope {
    char magic[9];  ///< 8 characters
    std::uint16_t version;
    std::size_t bytes;
    std::size_t crc_offset;

    /// Last, when all else is in place.
    void seal(std::span<std::byte> message) const;
    /// What is wrong with the envelope of a message that came; empty: nothing.
    [[nodiscard]] std::string fault_of(std::span<const std::byte> message) const;
};

/// Cut to `room`, without a terminator where it fills it.
void put_text(std::byte* out, std::string_view text, std::size_t room) noexcept;
/// Up to the first zero; whatever is not printable ASCII is a question mark: it is shown to people.
[[nodiscard]] std::string get_text(const std::byte* in, std::size_t room);

}  // namespace fabricmem::detail
