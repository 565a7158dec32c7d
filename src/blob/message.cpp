// SPDX-License-Identifier: Apache-2.0
#include "blob/message.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "blob/crc32c.hpp"
#include "blob/wire.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::size_t kMagicBytes = 8;
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kLeastVersionAt = 10;
constexpr std::size_t kLengthAt = 12;

std::uint32_t crc_of(std::span<const std::byte> message, std::size_t crc_offset) {
    std::vector<std::byte> copy(message.begin(), message.end());
    std::fill_n(copy.begin() + static_cast<std::ptrdiff_t>(crc_offset), 4, std::byte{0});
    return crc32c(copy);
}

}  // namespace

void Envelope::seal(std::span<std::byte> message) const {
    std::byte* const out = message.data();
    std::memcpy(out, magic, kMagicBytes);
    put_le(out + kVersionAt, version);
    put_le(out + kLeastVersionAt, version);
    put_le(out + kLengthAt, static_cast<std::uint32_t>(bytes));
    put_le(out + crc_offset, crc_of(message, crc_offset));
}

std::string Envelope::fault_of(std::span<const std::byte> message) const {
    if (message.size() != bytes) return formatted("{} bytes, not {}", message.size(), bytes);
    const std::byte* const in = message.data();
    if (std::memcmp(in, magic, kMagicBytes) != 0) return "they begin with something else";
    if (const auto least = get_le<std::uint16_t>(in + kLeastVersionAt); least > version)
        return formatted("they need a reader of version {}, and this one is of {}", least, version);
    if (get_le<std::uint32_t>(in + kLengthAt) != bytes) return "they state another length";
    if (get_le<std::uint32_t>(in + crc_offset) != crc_of(message, crc_offset)) return "the checksum is wrong";
    return {};
}

void put_text(std::byte* out, std::string_view text, std::size_t room) noexcept {
    std::memcpy(out, text.data(), std::min(text.size(), room));
}

std::string get_text(const std::byte* in, std::size_t room) {
    const std::string_view all(reinterpret_cast<const char*>(in), room);
    std::string plain(all.substr(0, all.find('\0')));
    std::replace_if(
        plain.begin(), plain.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return plain;
}

}  // namespace fabricmem::detail
