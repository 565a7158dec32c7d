// SPDX-License-Identifier: Apache-2.0
// Framing: 4 bytes of magic, version, kind, length of the body, all little-endian. What comes in is checked before it
// is used: anyone can connect to a port.
#include "pingpong_wire.hpp"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <utility>

#include "common/text.hpp"

namespace pingpong {
namespace {

constexpr std::array kMagic{std::byte{'F'}, std::byte{'M'}, std::byte{'P'}, std::byte{'P'}};
constexpr std::uint16_t kWireVersion = 1;
constexpr std::size_t kHeaderBytes = 12;
constexpr std::size_t kMostBodyBytes = 16 << 10;

using HeaderBytes = std::array<std::byte, kHeaderBytes>;

struct Header {
    std::uint16_t version = kWireVersion;
    std::uint16_t message = 0;
    std::uint32_t body_bytes = 0;
};

void put_le(std::byte* to, std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
}

std::uint32_t get_le(const std::byte* from, std::size_t bytes) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value |= std::to_integer<std::uint32_t>(from[i]) << (8 * i);
    return value;
}

HeaderBytes encode(const Header& header) {
    HeaderBytes bytes{};
    std::copy(kMagic.begin(), kMagic.end(), bytes.begin());
    put_le(&bytes[4], header.version, 2);
    put_le(&bytes[6], header.message, 2);
    put_le(&bytes[8], header.body_bytes, 4);
    return bytes;
}

Header decode(const HeaderBytes& bytes) {
    return {.version = static_cast<std::uint16_t>(get_le(&bytes[4], 2)),
            .message = static_cast<std::uint16_t>(get_le(&bytes[6], 2)),
            .body_bytes = get_le(&bytes[8], 4)};
}

/// What a stranger sent, fit to be shown in one line.
std::string printable(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes) {
        const auto c = std::to_integer<unsigned char>(byte);
        text += std::isprint(c) != 0 ? static_cast<char>(c) : '.';
    }
    return text;
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string text_of(std::span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

Control::Control(UniqueFd socket, std::chrono::milliseconds timeout) : socket_(std::move(socket)), timeout_(timeout) {}

void Control::send(Message message, std::span<const std::byte> body) {
    const HeaderBytes header =
        encode({.message = static_cast<std::uint16_t>(message), .body_bytes = static_cast<std::uint32_t>(body.size())});
    std::vector<std::byte> frame(header.begin(), header.end());
    frame.insert(frame.end(), body.begin(), body.end());

    const Deadline deadline(timeout_);
    for (std::span<const std::byte> rest = frame; !rest.empty();) {
        const ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            rest = rest.subspan(static_cast<std::size_t>(sent));
            continue;
        }
        if (!would_block(errno)) {
            const int error = errno;
            check(Clock::now(), "it to take a message");  // it may have said why
            throw_gone("it to take a message", error);
        }
        pollfd writable{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
        if (::poll(&writable, 1, deadline.left_ms()) == 0) throw PeerError("the peer takes no message any more");
    }
}

void Control::send(Message message, std::string_view body) { send(message, bytes_of(body)); }

/// Fills `bytes`. The first `checked` of them have to be the magic, and are compared as they come: a stranger may send
/// less than a header and then wait for us.
void Control::read_whole(std::span<std::byte> bytes, const Deadline& deadline, std::string_view awaited,
                         std::size_t checked) {
    for (std::size_t have = 0; have < bytes.size();) {
        const ssize_t got = ::recv(socket_.get(), bytes.data() + have, bytes.size() - have, MSG_DONTWAIT);
        if (got == 0) throw_gone(awaited, 0);
        if (got > 0) {
            have += static_cast<std::size_t>(got);
            if (std::memcmp(bytes.data(), kMagic.data(), std::min(have, checked)) != 0) {
                throw PeerError(
                    formatted("the peer speaks another protocol: it sent '{}'", printable(bytes.first(have))));
            }
            continue;
        }
        if (!would_block(errno)) throw_gone(awaited, errno);
        pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        if (::poll(&readable, 1, deadline.left_ms()) == 0) {
            throw PeerError(
                formatted("no answer from the peer in {} s: waited for {}", timeout_.count() / 1000, awaited));
        }
    }
}

std::vector<std::byte> Control::receive(Message message, std::string_view awaited) {
    const Deadline deadline(timeout_);
    HeaderBytes bytes{};
    read_whole(bytes, deadline, awaited, kMagic.size());
    const Header header = decode(bytes);
    if (header.version != kWireVersion) {
        throw PeerError(formatted("the peer is of another version: it speaks version {} of the protocol, this is {}",
                                  header.version, kWireVersion));
    }
    if (header.body_bytes > kMostBodyBytes) {
        throw PeerError(formatted("the peer sent a message of {} bytes: more than {} make no sense", header.body_bytes,
                                  kMostBodyBytes));
    }
    if (header.message == static_cast<std::uint16_t>(Message::failure)) throw_failure(header.body_bytes, deadline);
    if (header.message != static_cast<std::uint16_t>(message)) {
        throw PeerError(formatted("the peer sent a message of kind {} where {} was awaited", header.message, awaited));
    }
    std::vector<std::byte> body(header.body_bytes);
    read_whole(body, deadline, awaited, 0);
    return body;
}

void Control::check(Clock::time_point since, std::string_view awaited) {
    HeaderBytes bytes{};
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
    if (got == 0) throw_gone(awaited, 0);
    if (got < 0 && !would_block(errno)) throw_gone(awaited, errno);
    if (got == static_cast<ssize_t>(bytes.size()) &&
        decode(bytes).message == static_cast<std::uint16_t>(Message::failure)) {
        (void)receive(Message::failure, awaited);  // throws PeerFailed
    }
    if (Clock::now() - since > timeout_) {
        throw PeerError(formatted("no sign of the peer in {} s: waited for {}", timeout_.count() / 1000, awaited));
    }
    if (on_wait_) on_wait_();
}

bool Control::say_failure(std::string_view text) noexcept {
    if (failure_known_) return true;
    try {
        send(Message::failure, text.substr(0, kMostBodyBytes));
        failure_known_ = true;
    } catch (...) {  // it is gone: nobody to tell
    }
    return failure_known_;
}

void Control::throw_gone(std::string_view awaited, int error) const {
    throw PeerError(formatted("the peer went away{}: waited for {}",
                              error == 0 ? "" : formatted(" ({})", std::strerror(error)), awaited));
}

void Control::throw_failure(std::size_t body_bytes, const Deadline& deadline) {
    failure_known_ = true;
    std::vector<std::byte> text(body_bytes);
    read_whole(text, deadline, "why the peer failed", 0);
    throw PeerFailed(formatted("the peer failed: {}", printable(text)));
}

long agree(Control& control, const Agreement& mine) {
    constexpr std::string_view kProcessId = "pid";
    std::string hello = formatted("{}={}\n", kProcessId, ::getpid());
    for (const auto& [name, value] : mine) hello += formatted("{}={}\n", name, value);
    control.send(Message::hello, hello);

    Agreement theirs;
    const std::string text = text_of(control.receive(Message::hello, "its hello"));
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        const std::size_t equals = line.find('=');
        if (equals == line.npos) throw PeerError("the peer's hello makes no sense");
        theirs.emplace(line.substr(0, equals), line.substr(equals + 1));
    }
    for (const auto& [name, value] : mine) {
        const auto found = theirs.find(name);
        const std::string answer = found == theirs.end() ? "not said" : printable(bytes_of(found->second));
        if (answer != value) {
            throw PeerError(formatted("the two sides disagree: {} is {} here and {} at the peer", name, value, answer));
        }
    }
    long peer = 0;
    const std::string& peer_text = theirs[std::string(kProcessId)];
    std::from_chars(peer_text.data(), peer_text.data() + peer_text.size(), peer);
    return peer;
}

}  // namespace pingpong
