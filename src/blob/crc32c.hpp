// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli, as in iSCSI, RFC 3720): by tables everywhere, by the CPU's instruction where it has one. Knows
// no format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fabricmem::detail {

/// By the CPU's instruction where has_crc32c_instruction(), else by tables. Any alignment; any number of threads.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes) noexcept;

/// By tables, eight bytes a step.
[[nodiscard]] std::uint32_t crc32c_by_table(std::span<const std::byte> bytes) noexcept;

/// Whether this CPU has the instruction (x86-64: SSE4.2; aarch64: the CRC32 extension).
[[nodiscard]] bool has_crc32c_instruction() noexcept;

}  // namespace fabricmem::detail
