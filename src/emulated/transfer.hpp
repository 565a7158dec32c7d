// SPDX-License-Identifier: Apache-2.0
// Moves bytes between pieces, and loads and stores single words. Holds no lock and knows no address of the user's but
// plain host memory: a memory is reached through its descriptor or its alias, so that an unmap can't pull it away.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda.h>

#include "emulated/address_space.hpp"

namespace fabricmem::detail::emulated {

/// Both hold the same number of bytes. Words (1, 2, 4 or 8 aligned bytes) are not torn and are ordered: whoever sees
/// one with an acquire load sees all that was copied before it.
CUresult copy_pieces(const Pieces& destination, const Pieces& source);
/// Repeats the low `width` bytes of the value: 1, 2 or 4, and the pieces begin and end at multiples of it.
CUresult set_pieces(const Pieces& destination, std::uint32_t value, unsigned int width);

/// A word of 4 or 8 bytes, aligned; `piece` holds it whole. INVALID_VALUE where it does not, OUT_OF_MEMORY without an
/// alias.
CUresult store_word(const Piece& piece, unsigned int width, std::uint64_t value) noexcept;
CUresult load_word(const Piece& piece, unsigned int width, std::uint64_t* value) noexcept;

}  // namespace fabricmem::detail::emulated
