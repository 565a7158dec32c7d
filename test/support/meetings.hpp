// SPDX-License-Identifier: Apache-2.0
// A stand-in for a Handshake: hellos of text, and a peer is connected when its hello was taken. For the exchange's
// tests.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/error.hpp>

#include "store/meeting.hpp"
#include "support/stores.hpp"

namespace fabricmem::test {

struct Hello {
    unsigned group = 0;
    unsigned rank = 0;
    unsigned world = 0;
    unsigned life = 0;
    unsigned number = 0;

    [[nodiscard]] std::string text() const {
        char line[128];
        std::snprintf(line, sizeof(line), "hello group %u rank %u of %u life %u number %u.", group, rank, world, life,
                      number);
        return line;
    }
    [[nodiscard]] static Hello from(std::span<const std::byte> bytes) {
        Hello hello;
        const std::string text = text_of(bytes);
        if (std::sscanf(text.c_str(), "hello group %u rank %u of %u life %u number %u", &hello.group, &hello.rank,
                        &hello.world, &hello.life, &hello.number) != 5 ||
            hello.text() != text) {
            throw Error({.kind = ErrorKind::bad_blob, .subject = "these bytes are no hello"});
        }
        return hello;
    }
};

/// One rank's side. Its members are the test's to change between polls.
class FakeMeeting final : public detail::Meeting {
public:
    FakeMeeting(unsigned rank, unsigned world, unsigned life = 1)
        : own_{.group = 7, .rank = rank, .world = world, .life = life} {
        for (unsigned other = 0; other < world; ++other) {
            if (other != rank) peers_[other];
        }
    }

    std::uint32_t rank() const noexcept override { return own_.rank; }
    std::vector<std::byte> hello() override {
        if (hello_fails) throw Error({.kind = ErrorKind::out_of_memory, .subject = "no memory for a hello"});
        ++own_.number;
        return bytes_of(own_.text());
    }
    bool add_peer(std::uint32_t rank, std::span<const std::byte> bytes) override {
        ++added;
        Peer& peer = peers_.at(rank);
        try {
            const Hello hello = Hello::from(bytes);
            if (hello.rank != rank || hello.group != own_.group || hello.world != own_.world) {
                throw Error({.kind = ErrorKind::conflict, .subject = "this hello is another's: " + hello.text()});
            }
            if (peer.life == hello.life && peer.number == hello.number) return false;
            peer.life = hello.life;
            peer.number = hello.number;
            const bool is_gone = hello.life == dead_life;
            peer.standing = is_gone ? detail::PeerStanding::replaced : when_heard;
            return true;
        } catch (const Error&) {
            if (peer.life == 0) peer.standing = detail::PeerStanding::replaced;
            throw;
        }
    }
    std::size_t poll() override {
        std::size_t missing = 0;
        for (const auto& [rank, peer] : peers_) {
            if (peer.standing == detail::PeerStanding::missing) ++missing;
        }
        return missing;
    }
    std::vector<detail::MeetingPeer> others() const override {
        std::vector<detail::MeetingPeer> all;
        for (const auto& [rank, peer] : peers_) all.push_back({rank, peer.standing});
        return all;
    }

    void lose(unsigned rank) { peers_.at(rank).standing = detail::PeerStanding::missing; }
    void drop(unsigned rank) { peers_.erase(rank); }
    [[nodiscard]] unsigned life_of(unsigned rank) const { return peers_.at(rank).life; }
    [[nodiscard]] unsigned number_of(unsigned rank) const { return peers_.at(rank).number; }
    [[nodiscard]] bool connected(unsigned rank) const {
        return peers_.at(rank).standing == detail::PeerStanding::connected;
    }
    [[nodiscard]] std::string own_text() const { return own_.text(); }

    bool hello_fails = false;
    unsigned dead_life = 0;
    detail::PeerStanding when_heard = detail::PeerStanding::connected;
    std::size_t added = 0;

private:
    struct Peer {
        unsigned life = 0;
        unsigned number = 0;
        detail::PeerStanding standing = detail::PeerStanding::missing;
    };

    Hello own_;
    std::map<unsigned, Peer> peers_;
};

}  // namespace fabricmem::test
