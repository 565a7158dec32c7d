// SPDX-License-Identifier: Apache-2.0
#include "doctor/wire.hpp"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/text.hpp"

namespace doctor {
namespace {

using examples::formatted;

constexpr std::string_view kMagic = "FMDR";
constexpr std::size_t kHeaderBytes = 12;

constexpr const char* kOtherBytes = "FM-PEER-005";
constexpr const char* kSilence = "FM-PEER-007";

bool would_block(int error) noexcept { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

void put(std::string& out, std::uint32_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>((value >> (8 * i)) & 0xffU);
}

std::uint32_t get(std::span<const unsigned char> in) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < in.size(); ++i) value |= std::uint32_t{in[i]} << (8 * i);
    return value;
}

std::string printable(std::span<const unsigned char> bytes) {
    std::string text;
    for (const unsigned char byte : bytes) text += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '.';
    return text;
}

}  // namespace

Wire::Wire(examples::UniqueFd socket, const examples::Deadline& deadline)
    : socket_(std::move(socket)), deadline_(deadline) {}

void Wire::send(Kind kind, std::string_view body) {
    std::string frame(kMagic);
    put(frame, kVersion, 2);
    put(frame, static_cast<std::uint32_t>(kind), 2);
    put(frame, static_cast<std::uint32_t>(body.size()), 4);
    frame += body;
    for (std::string_view rest = frame; !rest.empty();) {
        const ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) rest.remove_prefix(static_cast<std::size_t>(sent));
        if (sent >= 0) continue;
        if (!would_block(errno)) throw PeerTrouble(kSilence, formatted("the peer went away: {}", ::strerror(errno)));
        pollfd writable{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
        if (::poll(&writable, 1, deadline_.left_ms()) == 0)
            throw PeerTrouble(kSilence, "the peer takes no message any more");
    }
}

void Wire::read_whole(std::span<unsigned char> bytes, std::string_view awaited, std::size_t checked) {
    for (std::size_t have = 0; have < bytes.size();) {
        const ssize_t got = ::recv(socket_.get(), bytes.data() + have, bytes.size() - have, MSG_DONTWAIT);
        if (got == 0) throw PeerTrouble(kSilence, formatted("the peer went away: waited for {}", awaited));
        if (got > 0) {
            have += static_cast<std::size_t>(got);
            if (::memcmp(bytes.data(), kMagic.data(), std::min(have, checked)) == 0) continue;
            throw PeerTrouble(kOtherBytes,
                              formatted("the peer is no doctor: it sent '{}'", printable(bytes.first(have))));
        }
        if (!would_block(errno))
            throw PeerTrouble(kSilence,
                              formatted("the peer went away ({}): waited for {}", ::strerror(errno), awaited));
        pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        if (::poll(&readable, 1, deadline_.left_ms()) == 0)
            throw PeerTrouble(kSilence, formatted("the peer says nothing: waited for {}", awaited));
    }
}

std::string Wire::receive(Kind kind, std::string_view awaited) {
    std::array<unsigned char, kHeaderBytes> header{};
    read_whole(header, awaited, kMagic.size());
    const std::span<const unsigned char> bytes(header);
    if (const std::uint32_t version = get(bytes.subspan(4, 2)); version != kVersion)
        throw PeerTrouble(kOtherBytes,
                          formatted("the peer speaks version {} of the protocol, this doctor {}", version, kVersion));
    if (get(bytes.subspan(6, 2)) != static_cast<std::uint32_t>(kind))
        throw PeerTrouble(kOtherBytes, formatted("the peer sent a message of another kind than {}", awaited));
    const std::size_t body_bytes = get(bytes.subspan(8, 4));
    if (body_bytes > kMostBodyBytes)
        throw PeerTrouble(kOtherBytes, formatted("the peer sent a message of {} bytes, and more than {} make no sense",
                                                 body_bytes, kMostBodyBytes));
    std::string body(body_bytes, '\0');
    read_whole({reinterpret_cast<unsigned char*>(body.data()), body.size()}, awaited, 0);
    return body;
}

}  // namespace doctor
