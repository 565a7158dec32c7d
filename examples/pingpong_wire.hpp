// SPDX-License-Identifier: Apache-2.0
// The control channel between the two sides: TCP, small framed messages, a deadline for each wait. What travels through
// fabric memory does not pass here; the blobs that make it reachable do. Knows no driver.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/deadline.hpp"
#include "common/peer_error.hpp"
#include "common/unique_fd.hpp"
#include "pingpong_loop.hpp"
#include "pingpong_options.hpp"

namespace pingpong {

/// The peer failed and said so.
class PeerFailed : public PeerError {
public:
    using PeerError::PeerError;
};

/// A listening socket.
class Listener {
public:
    /// Port 0: any free one. Throws std::system_error or PeerError.
    explicit Listener(const Endpoint& endpoint);

    /// Where it really listens.
    [[nodiscard]] const Endpoint& endpoint() const noexcept { return endpoint_; }
    /// Takes the first that connects. Gives up with PeerError when the time is up, or once `peer_ended_fd` (-1: none)
    /// shows an end of file: then the peer that was started here can't come any more.
    [[nodiscard]] UniqueFd accept(const Deadline& deadline, int peer_ended_fd) const;

private:
    UniqueFd socket_;
    Endpoint endpoint_;
};

/// Connects, again and again while nobody listens there yet. Throws PeerError.
[[nodiscard]] UniqueFd connect_to(const Endpoint& endpoint, const Deadline& deadline);

enum class Message : std::uint16_t { hello = 1, blob = 2, done = 3, failure = 4 };

/// The connection to the peer. One thread uses it.
class Control final : public Watch {
public:
    /// `timeout` is for each wait.
    Control(UniqueFd socket, std::chrono::milliseconds timeout);

    void send(Message message, std::span<const std::byte> body);
    void send(Message message, std::string_view body);
    /// The next message, which has to be of this kind. Throws PeerError that says what was `awaited`; PeerFailed where
    /// the peer told of its failure instead.
    [[nodiscard]] std::vector<std::byte> receive(Message message, std::string_view awaited);

    /// Called every so often during those waits; empty: nothing is.
    void on_wait(std::function<void()> call) { on_wait_ = std::move(call); }

    /// For those who wait for the peer by other means: throws PeerError where it is gone or has taken too long.
    void check(Clock::time_point since, std::string_view awaited) override;

    /// Tells the peer why this side gives up, once. Returns whether the peer knows: told now, told before, or its own
    /// failure was the cause.
    bool say_failure(std::string_view text) noexcept;

private:
    void read_whole(std::span<std::byte> bytes, const Deadline& deadline, std::string_view awaited,
                    std::size_t checked);
    [[noreturn]] void throw_gone(std::string_view awaited, int error) const;
    [[noreturn]] void throw_failure(std::size_t body_bytes, const Deadline& deadline);

    UniqueFd socket_;
    std::chrono::milliseconds timeout_;
    std::function<void()> on_wait_{};
    bool failure_known_ = false;
};

/// What the two sides have to agree on, by the name of the option that sets it.
using Agreement = std::map<std::string, std::string>;

/// Exchanges hellos and throws PeerError that names the first thing in which the two sides differ. Returns the peer's
/// process id (0: it did not say).
long agree(Control& control, const Agreement& mine);

}  // namespace pingpong
