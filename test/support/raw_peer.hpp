// SPDX-License-Identifier: Apache-2.0
// The other end of a program's control channel, byte by byte: for tests of what a strange peer can do to it.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace fabricmem::test {

/// A TCP socket on the loopback address. Waits are bounded; what goes wrong is a std::runtime_error.
class RawPeer {
public:
    static RawPeer connected_to(std::uint16_t port);
    static RawPeer listening();
    RawPeer(RawPeer&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
    RawPeer& operator=(RawPeer&&) = delete;
    ~RawPeer() {
        if (fd_ >= 0) ::close(fd_);
    }

    [[nodiscard]] std::uint16_t port() const;
    [[nodiscard]] RawPeer accept() const;
    void send(std::string_view bytes) const;
    [[nodiscard]] std::string receive(std::size_t bytes) const;
    void close() { ::close(fd_), fd_ = -1; }

    /// A message of the protocol: fabricmem-pingpong's, or with that magic the doctor's.
    void send_message(std::uint16_t kind, std::string_view body, std::string_view magic = kPingpong) const;
    /// The body of the next message, which has to be of this kind.
    [[nodiscard]] std::string receive_message(std::uint16_t kind, std::string_view magic = kPingpong) const;

    static constexpr std::string_view kPingpong = "FMPP";
    static constexpr std::string_view kDoctor = "FMDR";

private:
    explicit RawPeer(int fd) : fd_(check(fd)) {}
    static int check(int result) {
        if (result < 0) throw std::runtime_error(std::string("the test's socket: ") + std::strerror(errno));
        return result;
    }
    static sockaddr_in address(std::uint16_t port) {
        sockaddr_in result{};
        result.sin_family = AF_INET;
        result.sin_port = htons(port);
        result.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return result;
    }
    void wait_readable() const {
        pollfd readable{.fd = fd_, .events = POLLIN, .revents = 0};
        if (::poll(&readable, 1, 100'000) != 1) throw std::runtime_error("nothing came to the test's socket");
    }

    int fd_;
};

inline RawPeer RawPeer::connected_to(std::uint16_t port) {
    RawPeer peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = address(port);
    check(::connect(peer.fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)));
    return peer;
}

inline RawPeer RawPeer::listening() {
    RawPeer peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in at = address(0);
    check(::bind(peer.fd_, reinterpret_cast<const sockaddr*>(&at), sizeof(at)));
    check(::listen(peer.fd_, 1));
    return peer;
}

inline std::uint16_t RawPeer::port() const {
    sockaddr_in at{};
    socklen_t at_bytes = sizeof(at);
    check(::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &at_bytes));
    return ntohs(at.sin_port);
}

inline RawPeer RawPeer::accept() const {
    wait_readable();
    return RawPeer(::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
}

inline void RawPeer::send(std::string_view bytes) const {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        check(static_cast<int>(sent));
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
}

inline std::string RawPeer::receive(std::size_t bytes) const {
    std::string text(bytes, '\0');
    for (std::size_t have = 0; have < bytes;) {
        wait_readable();
        const ssize_t got = ::recv(fd_, text.data() + have, bytes - have, 0);
        if (check(static_cast<int>(got)) == 0) throw std::runtime_error("the program closed the connection");
        have += static_cast<std::size_t>(got);
    }
    return text;
}

inline void RawPeer::send_message(std::uint16_t kind, std::string_view body, std::string_view magic) const {
    const auto byte = [](std::size_t value, int index) { return static_cast<char>(value >> (8 * index) & 0xff); };
    std::string frame(magic);
    frame += {1, 0, byte(kind, 0), byte(kind, 1)};
    for (int i = 0; i < 4; ++i) frame += byte(body.size(), i);
    send(frame.append(body));
}

inline std::string RawPeer::receive_message(std::uint16_t kind, std::string_view magic) const {
    const std::string header = receive(12);
    std::array<unsigned char, 12> bytes{};
    std::memcpy(bytes.data(), header.data(), bytes.size());
    if (header.substr(0, 4) != magic || bytes[4] + 256 * bytes[5] != 1 || bytes[6] + 256 * bytes[7] != kind) {
        throw std::runtime_error("the program sent another header");
    }
    return receive(bytes[8] + std::size_t{256} * bytes[9]);
}

}  // namespace fabricmem::test
