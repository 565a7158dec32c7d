// SPDX-License-Identifier: Apache-2.0
// Finds the entry of an ordered table that an address lies in.
#pragma once

#include <cstdint>
#include <iterator>

namespace fabricmem::detail::emulated {

/// The entry with key <= address < key + bytes; end() where there is none.
template <typename Map>
[[nodiscard]] auto entry_around(Map& map, std::uintptr_t address) noexcept {
    auto next = map.upper_bound(address);
    if (next == map.begin()) return map.end();
    const auto entry = std::prev(next);
    return address - entry->first < entry->second.bytes ? entry : map.end();
}

}  // namespace fabricmem::detail::emulated
