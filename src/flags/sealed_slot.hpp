// SPDX-License-Identifier: Apache-2.0
// The 64 bytes of a message's slot: sequence, payload, and a checksum over both, so that a slot which is being written
// is never taken for one that was. A plain value: no driver.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include <fabricmem/flag_slots.hpp>

namespace fabricmem::detail {

using SlotBytes = std::array<std::byte, 64>;

/// Bytes 0 to 7 the sequence and 8 to 55 the payload, little-endian; 56 to 59 their CRC-32C; 60 to 63 zero. All zero
/// for a message that is.
[[nodiscard]] SlotBytes seal(const SlotMessage& message) noexcept;
/// Nothing where the bytes are no whole message.
[[nodiscard]] std::optional<SlotMessage> unseal(const SlotBytes& bytes) noexcept;

/// Reads 64 bytes that others may be writing.
[[nodiscard]] SlotBytes load_slot(const void* address) noexcept;
/// The sequence and what seals it last.
void store_slot(void* address, const SlotBytes& bytes) noexcept;

}  // namespace fabricmem::detail
