// SPDX-License-Identifier: Apache-2.0
// Ranks that meet through a store in memory, each with a stand-in for its handshake.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "store/exchange_core.hpp"
#include "support/child_process.hpp"
#include "support/meetings.hpp"
#include "support/stores.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

inline constexpr auto kPatience = std::chrono::seconds(60);

inline StoreExchangeOptions quick(const std::string& prefix = "job") {
    return {.prefix = prefix,
            .first_pause = std::chrono::milliseconds(1),
            .last_pause = std::chrono::milliseconds(4),
            .connected_pause = std::chrono::milliseconds(4),
            .republish_pause = std::chrono::milliseconds(5),
            .store_timeout = kPatience};
}

inline std::chrono::steady_clock::time_point soon() {
    return std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
}

// One rank: a meeting, whose owner is the exchange.
struct Rank {
    Rank(std::shared_ptr<Store> store, unsigned rank, unsigned world, unsigned life = 1,
         StoreExchangeOptions options = quick()) {
        auto made = std::make_unique<FakeMeeting>(rank, world, life);
        meeting = made.get();
        exchange = std::make_unique<detail::ExchangeCore>(std::move(store), std::move(made), std::move(options));
    }
    [[nodiscard]] bool meets(std::chrono::steady_clock::time_point deadline = in_seconds(60)) const {
        exchange->wait(deadline);
        return exchange->poll() == 0;
    }
    // Polls until `done`, which has to come.
    template <typename Done>
    void poll_until(Done&& done) const {
        const auto deadline = in_seconds(60);
        while (!done()) {
            exchange->poll();
            if (std::chrono::steady_clock::now() >= deadline) FAIL("it did not come");
            std::this_thread::yield();
        }
    }
    [[nodiscard]] Error error_of(unsigned rank) const {
        const auto error = exchange->error_of(rank);
        REQUIRE(error.has_value());
        return *error;
    }

    FakeMeeting* meeting;
    std::unique_ptr<detail::ExchangeCore> exchange;
};

struct Shared {
    [[nodiscard]] std::shared_ptr<Store> store() const { return std::make_shared<MemoryStore>(server); }
    // All threads are gone, and with them the stores.
    void check_unused() const { CHECK(server->wait_until_unused(kPatience)); }

    std::shared_ptr<MemoryServer> server = std::make_shared<MemoryServer>();
};

}  // namespace fabricmem::test
