// SPDX-License-Identifier: Apache-2.0
// Little-endian numbers in bytes of any alignment, on machines of either byte order. Knows no format.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fabricmem::detail {

/// Byte by byte, so that neither alignment nor byte order matters; compilers make one store of it.
template <std::integral T>
constexpr void put_le(std::byte* out, T value) noexcept {
    const auto bits = static_cast<std::make_unsigned_t<T>>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<std::byte>(bits >> (8 * i) & 0xff);
}

template <std::integral T>
[[nodiscard]] constexpr T get_le(const std::byte* in) noexcept {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) bits |= std::to_integer<std::uint64_t>(in[i]) << (8 * i);
    return static_cast<T>(bits);
}

}  // namespace fabricmem::detail
