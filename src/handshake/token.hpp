// SPDX-License-Identifier: Apache-2.0
// What a rank writes into its slots in a peer's region, as the payload of a message. A plain value: no driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include <fabricmem/flag_slots.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem::detail {

/// A rank's part of a region: a message by which the pair meets, and one for health checks.
inline constexpr std::size_t kTokenOffset = 0;
inline constexpr std::size_t kHealthOffset = 64;
inline constexpr std::size_t kSlotStride = 128;

/// "I, who wrote this, am that one, and mean you, that one."
struct Token {
    std::uint64_t writer = 0;  ///< incarnations
    std::uint64_t reader = 0;
    std::uint64_t group = 0;         ///< both halves of the group's id, by exclusive or
    std::uint32_t rank = 0;          ///< the writer's
    std::uint32_t attempt = 0;       ///< the writer's, another number each time it begins anew with this reader; not 0
    std::uint32_t echo = 0;          ///< the reader's, as seen in the writer's region of the same kind; 0: none yet
    std::uint8_t trouble = 0;        ///< 0, or 1 + the ErrorKind for which the writer gave the other kind of memory up
    std::uint16_t trouble_code = 0;  ///< the CUresult of that

    friend bool operator==(const Token&, const Token&) = default;
};

[[nodiscard]] std::uint64_t folded(const Id128& group) noexcept;
[[nodiscard]] SlotMessage to_message(const Token& token, std::uint64_t sequence) noexcept;
/// Nothing where the message is no token.
[[nodiscard]] std::optional<Token> to_token(const SlotMessage& message) noexcept;

}  // namespace fabricmem::detail
