// SPDX-License-Identifier: Apache-2.0
// Ranks that meet inside one process: their hellos go by hand, and one thread polls them all.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/handshake.hpp>

#include "support/fabric_kit.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

class Meeting {
public:
    using Clock = std::chrono::steady_clock;

    /// One rank a driver; all options but rank and world_size as given. A null driver: that rank never comes.
    explicit Meeting(const std::vector<std::shared_ptr<Driver>>& drivers, HandshakeOptions options = {}) {
        options.world_size = static_cast<std::uint32_t>(drivers.size());
        for (std::uint32_t rank = 0; rank < drivers.size(); ++rank) {
            options.rank = rank;
            ranks_.push_back(drivers[rank] == nullptr ? nullptr : std::make_unique<Handshake>(drivers[rank], options));
        }
    }
    explicit Meeting(std::vector<std::unique_ptr<Handshake>> ranks) : ranks_(std::move(ranks)) {}

    [[nodiscard]] Handshake& operator[](std::size_t rank) { return *ranks_[rank]; }
    void replace(std::size_t rank, std::unique_ptr<Handshake> other) { ranks_[rank] = std::move(other); }
    [[nodiscard]] std::size_t size() const noexcept { return ranks_.size(); }

    /// Everybody's hello to everybody.
    void exchange() {
        for (const auto& from : ranks_) {
            if (from != nullptr) tell_all(*from);
        }
    }
    void tell_all(Handshake& from) {
        const auto hello = from.hello();
        for (const auto& to : ranks_) {
            if (to != nullptr && to.get() != &from) static_cast<void>(to->add_peer(from.rank(), hello));
        }
    }
    /// Polls until nobody has anything pending; false at the deadline.
    bool poll_until_done(std::chrono::milliseconds patience = std::chrono::seconds(60)) {
        return poll_until([&] { return pending_ == 0; }, patience);
    }
    template <typename Condition>
    bool poll_until(Condition&& condition, std::chrono::milliseconds patience = std::chrono::seconds(60)) {
        const auto deadline = Clock::now() + patience;
        for (;;) {
            pending_ = 0;
            for (const auto& rank : ranks_) pending_ += rank == nullptr ? 0 : rank->poll();
            if (condition()) return true;
            if (Clock::now() >= deadline) return false;
            std::this_thread::yield();
        }
    }
    [[nodiscard]] bool all_connected() const {
        for (const auto& rank : ranks_) {
            if (rank != nullptr && !rank->report().all_connected()) return false;
        }
        return true;
    }
    void close() {
        for (const auto& rank : ranks_) {
            if (rank != nullptr) rank->close(Clock::now() + std::chrono::seconds(60));
        }
    }

private:
    std::vector<std::unique_ptr<Handshake>> ranks_;
    std::size_t pending_ = 0;
};

[[nodiscard]] inline std::chrono::steady_clock::time_point soon(std::chrono::milliseconds time) {
    return std::chrono::steady_clock::now() + time;
}

}  // namespace fabricmem::test
