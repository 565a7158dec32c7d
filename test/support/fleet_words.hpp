// SPDX-License-Identifier: Apache-2.0
// What the ranks of a fleet agree on: where each is, how large its buffers are, what it writes to whom.
#pragma once

#include <cstdint>
#include <string>

#include <fabricmem/emulated_driver.hpp>

namespace fabricmem::test {

inline constexpr unsigned int kDevicesPerNode = 4;  // as in a GB200 NVL72: 18 nodes of 4
inline constexpr std::uint64_t kFleetBytes = 64 << 10;

/// The node of a rank.
[[nodiscard]] inline EmulatedOptions fleet_node(unsigned int rank) {
    EmulatedOptions options;
    options.devices = static_cast<int>(kDevicesPerNode);
    options.node = "fleet-node-" + std::to_string(rank / kDevicesPerNode);
    return options;
}

/// What `from` writes into its slot of `to`'s buffers. Never 0.
[[nodiscard]] inline std::uint64_t fleet_word(unsigned int from, unsigned int to) {
    return (std::uint64_t{from} + 1) << 32 | (to + 1);
}

}  // namespace fabricmem::test
