// SPDX-License-Identifier: Apache-2.0
// What a peer's probe sends: docs/peer-probe.md. A plain value: no driver.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/handle_blob.hpp>

namespace fabricmem::detail {

struct PeerProbeBytes {
    using Token = std::array<std::uint32_t, 4>;

    std::optional<HandleBlob> blob{};
    Token token{};  ///< what the first bytes of the memory hold
    // Where there is no memory:
    ErrorKind kind{};
    int code = 0;
    std::string check{};    ///< cut to 16 bytes on the wire
    std::string why_not{};  ///< cut to 384
    // Who this is, also without a blob:
    std::optional<Id128> host_id{};
    std::optional<Id128> boot_id{};
    std::optional<std::uint32_t> process_id{};

    friend bool operator==(const PeerProbeBytes&, const PeerProbeBytes&) = default;

    [[nodiscard]] std::vector<std::byte> to_bytes() const;
    /// Throws Error{bad_blob} that says what is wrong with them.
    [[nodiscard]] static PeerProbeBytes from_bytes(std::span<const std::byte> bytes);
};

}  // namespace fabricmem::detail
