// SPDX-License-Identifier: Apache-2.0
// The connection between two doctors: small frames over TCP, one deadline for all of it. What comes in is checked
// before it is used: anyone can connect to a port.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common/deadline.hpp"
#include "common/unique_fd.hpp"
#include "doctor/peers.hpp"

namespace doctor {

/// The peer is not there, speaks something else, or says nothing.
class PeerTrouble : public std::runtime_error {
public:
    PeerTrouble(std::string check, const std::string& cause) : std::runtime_error(cause), check_(std::move(check)) {}

    [[nodiscard]] Trouble trouble() const { return {check_, what()}; }

private:
    std::string check_;
};

/// 4 bytes of magic, version, kind, length of the body, all little-endian; then the body.
class Wire {
public:
    static constexpr std::size_t kMostBodyBytes = std::size_t{64} << 10;
    static constexpr std::uint16_t kVersion = 1;

    enum class Kind : std::uint16_t { offer = 1, results = 2 };

    /// `socket` does not block. `deadline` is looked at until it is gone.
    Wire(examples::UniqueFd socket, const examples::Deadline& deadline);

    /// Throws PeerTrouble; so does receive(), which says what was `awaited`.
    void send(Kind kind, std::string_view body);
    [[nodiscard]] std::string receive(Kind kind, std::string_view awaited);

private:
    /// The first `checked` bytes have to be the magic, and are compared as they come.
    void read_whole(std::span<unsigned char> bytes, std::string_view awaited, std::size_t checked);

    examples::UniqueFd socket_;
    const examples::Deadline& deadline_;
};

}  // namespace doctor
