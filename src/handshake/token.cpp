// SPDX-License-Identifier: Apache-2.0
#include "handshake/token.hpp"

#include <fabricmem/error.hpp>

#include "blob/wire.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::uint32_t kTokenMagic = 0x746d6266;  // "fbmt"

}  // namespace

std::uint64_t folded(const Id128& group) noexcept {
    const auto* const bytes = reinterpret_cast<const std::byte*>(group.bytes.data());
    return get_le<std::uint64_t>(bytes) ^ get_le<std::uint64_t>(bytes + 8);
}

SlotMessage to_message(const Token& token, std::uint64_t sequence) noexcept {
    SlotMessage message{.sequence = sequence, .payload = {}};
    std::byte* const out = message.payload.data();
    put_le(out, kTokenMagic);
    put_le(out + 4, token.echo);
    put_le(out + 8, token.writer);
    put_le(out + 16, token.reader);
    put_le(out + 24, token.group);
    put_le(out + 32, token.attempt);
    put_le(out + 40, token.rank);
    put_le(out + 44, token.trouble);
    put_le(out + 46, token.trouble_code);
    return message;
}

std::optional<Token> to_token(const SlotMessage& message) noexcept {
    const std::byte* const in = message.payload.data();
    if (message.sequence == 0 || get_le<std::uint32_t>(in) != kTokenMagic) return std::nullopt;
    Token token;
    token.echo = get_le<std::uint32_t>(in + 4);
    token.writer = get_le<std::uint64_t>(in + 8);
    token.reader = get_le<std::uint64_t>(in + 16);
    token.group = get_le<std::uint64_t>(in + 24);
    token.attempt = get_le<std::uint32_t>(in + 32);
    token.rank = get_le<std::uint32_t>(in + 40);
    token.trouble = get_le<std::uint8_t>(in + 44);
    token.trouble_code = get_le<std::uint16_t>(in + 46);
    // Written by others: an ErrorKind that there is.
    if (token.attempt == 0 || token.trouble > 1 + static_cast<int>(ErrorKind::driver)) return std::nullopt;
    return token;
}

}  // namespace fabricmem::detail
