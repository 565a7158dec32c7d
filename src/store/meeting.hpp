// SPDX-License-Identifier: Apache-2.0
// What a StoreExchange needs of a Handshake, and no more. Knows neither.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fabricmem::detail {

enum class PeerStanding : std::uint8_t {
    missing,   ///< it may still come
    replaced,  ///< it failed for what its key holds: a process that is gone, or no hello of its; another may follow
    connected,
    failed,  ///< for good, as far as one can tell
};

struct MeetingPeer {
    std::uint32_t rank = 0;
    PeerStanding standing = PeerStanding::missing;
};

/// Called by one thread at a time. None of it waits. All but rank() may throw Error.
class Meeting {
public:
    Meeting() = default;
    Meeting(const Meeting&) = delete;
    Meeting& operator=(const Meeting&) = delete;
    virtual ~Meeting() = default;

    [[nodiscard]] virtual std::uint32_t rank() const noexcept = 0;
    [[nodiscard]] virtual std::vector<std::byte> hello() = 0;
    virtual bool add_peer(std::uint32_t rank, std::span<const std::byte> hello) = 0;
    /// How many peers are missing.
    virtual std::size_t poll() = 0;
    /// All but this rank, ascending.
    [[nodiscard]] virtual std::vector<MeetingPeer> others() const = 0;
};

}  // namespace fabricmem::detail
