// SPDX-License-Identifier: Apache-2.0
// How the two sides' sockets find each other. Non-blocking all along: each wait is a poll(2) with what is left of its
// deadline.
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>
#include <system_error>

#include "common/text.hpp"
#include "pingpong_wire.hpp"

namespace pingpong {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses look_up(const Endpoint& endpoint, int flags) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
    if (error != 0) throw PeerError(formatted("{} can't be found: {}", endpoint.host, ::gai_strerror(error)));
    return {found, &::freeaddrinfo};
}

UniqueFd make_socket(const addrinfo& address) {
    return UniqueFd(::socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

void send_at_once(int socket) {
    const int on = 1;
    (void)::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Endpoint local_endpoint(int socket) {
    sockaddr_storage address{};
    socklen_t address_bytes = sizeof(address);
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (::getsockname(socket, generic, &address_bytes) != 0 ||
        ::getnameinfo(generic, address_bytes, host.data(), host.size(), port.data(), port.size(),
                      NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        throw std::system_error(errno, std::generic_category(), "getsockname");
    }
    Endpoint endpoint{.host = host.data(), .port = 0};
    std::from_chars(port.data(), port.data() + std::strlen(port.data()), endpoint.port);
    return endpoint;
}

/// One try. Returns 0 or the errno.
int try_connect(const addrinfo& address, const Deadline& deadline, UniqueFd& socket) {
    socket = make_socket(address);
    if (socket.get() < 0) return errno;
    if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    pollfd writable{.fd = socket.get(), .events = POLLOUT, .revents = 0};
    if (::poll(&writable, 1, deadline.left_ms()) <= 0) return ETIMEDOUT;
    int error = 0;
    socklen_t error_bytes = sizeof(error);
    return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &error_bytes) == 0 ? error : errno;
}

}  // namespace

Listener::Listener(const Endpoint& endpoint) {
    const Addresses addresses = look_up(endpoint, AI_PASSIVE);
    socket_ = make_socket(*addresses);
    const int on = 1;
    if (socket_.get() < 0 || ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        ::bind(socket_.get(), addresses->ai_addr, addresses->ai_addrlen) != 0 || ::listen(socket_.get(), 1) != 0) {
        throw std::system_error(errno, std::generic_category(),
                                formatted("can't listen at {}:{}", endpoint.host, endpoint.port));
    }
    endpoint_ = local_endpoint(socket_.get());
}

UniqueFd Listener::accept(const Deadline& deadline, int peer_ended_fd) const {
    for (;;) {
        std::array<pollfd, 2> events{pollfd{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                                     pollfd{.fd = peer_ended_fd, .events = POLLIN, .revents = 0}};
        if (::poll(events.data(), events.size(), deadline.left_ms()) == 0) {
            throw PeerError(formatted("no peer connected to {}:{} in time", endpoint_.host, endpoint_.port));
        }
        UniqueFd peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (peer.get() >= 0) {
            send_at_once(peer.get());
            return peer;
        }
        if (events[1].revents != 0) throw PeerError("the peer that was started here ended before it connected");
    }
}

UniqueFd connect_to(const Endpoint& endpoint, const Deadline& deadline) {
    constexpr int kLongestPauseMs = 500;
    const Addresses addresses = look_up(endpoint, 0);
    for (int pause_ms = 5;; pause_ms = std::min(2 * pause_ms, kLongestPauseMs)) {
        int error = 0;
        for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
            UniqueFd socket;
            error = try_connect(*address, deadline, socket);
            if (error == 0) {
                send_at_once(socket.get());
                return socket;
            }
        }
        if (deadline.passed()) {
            throw PeerError(
                formatted("no peer at {}:{} in time: {}", endpoint.host, endpoint.port, std::strerror(error)));
        }
        ::poll(nullptr, 0, std::min(pause_ms, deadline.left_ms()));  // it may not listen yet
    }
}

}  // namespace pingpong
