// SPDX-License-Identifier: Apache-2.0
// Ids that are told apart by a number.
#pragma once

#include <cstddef>
#include <cstdint>

#include <fabricmem/types.hpp>

namespace bench {

/// Never zero.
[[nodiscard]] inline fabricmem::Id128 numbered_id(std::uint64_t number) noexcept {
    fabricmem::Id128 id;
    for (std::size_t i = 0; i < 8; ++i) id.bytes[i] = static_cast<std::uint8_t>(number >> (8 * i));
    id.bytes[15] = 1;
    return id;
}

}  // namespace bench
