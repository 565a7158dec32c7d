// SPDX-License-Identifier: Apache-2.0
// The bytes by which a rank is known to the others: docs/handshake.md. A plain value: no driver.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fabricmem/handle_blob.hpp>
#include <fabricmem/handshake.hpp>

#include "handshake/token.hpp"

namespace fabricmem::detail {

/// A region of slots, one for each rank that may write there.
struct HelloRegion {
    std::optional<HandleBlob> blob;
    std::uint64_t address = 0;  ///< in the exporter's own address space
    std::string why_not;        ///< where there is no blob; cut to 256 bytes on the wire
    std::string check{};        ///< and the id of the check that failed; cut to 16 bytes

    friend bool operator==(const HelloRegion&, const HelloRegion&) = default;
};

struct Hello {
    std::uint32_t rank = 0;
    std::uint32_t world_size = 0;
    std::uint32_t max_ranks = 0;
    std::uint64_t incarnation = 0;
    std::uint64_t serial = 0;  ///< grows with each export of one incarnation
    Id128 group{};
    HelloRegion device;
    HelloRegion host;

    friend bool operator==(const Hello&, const Hello&) = default;

    [[nodiscard]] std::vector<std::byte> to_bytes() const;
    /// Throws Error{bad_blob} that says what is wrong with them.
    [[nodiscard]] static Hello from_bytes(std::span<const std::byte> bytes);
};

}  // namespace fabricmem::detail
