// SPDX-License-Identifier: Apache-2.0
// A StoreExchange without its Handshake: what is asked of the store when, and what is said of whom.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/store_exchange.hpp>

#include "store/back_off.hpp"
#include "store/meeting.hpp"
#include "store/store_worker.hpp"

namespace fabricmem::detail {

/// As StoreExchange, whose docstrings hold here. Visible for tests.
class FABRICMEM_API ExchangeCore {
public:
    ExchangeCore(std::shared_ptr<Store> store, std::unique_ptr<Meeting> meeting, StoreExchangeOptions options);
    ExchangeCore(const ExchangeCore&) = delete;
    ExchangeCore& operator=(const ExchangeCore&) = delete;
    /// Not in a forked child: there it has to be left to the parent.
    ~ExchangeCore();

    std::size_t poll();
    void wait(std::chrono::steady_clock::time_point deadline);
    void close();

    /// What the store did to a peer, or to this rank itself; none where nothing is wrong. Of a peer of which nothing
    /// was heard there is always one.
    [[nodiscard]] std::optional<Error> error_of(std::uint32_t rank) const;
    [[nodiscard]] bool in_forked_child() const noexcept;

private:
    using Time = std::chrono::steady_clock::time_point;

    struct Peer {
        BackOff pause;
        Time next_look{};
        PeerStanding standing = PeerStanding::missing;
        bool asked = false;                             // and not answered
        bool looked = false;                            // answered once
        std::optional<std::vector<std::byte>> hello{};  // the last that the meeting took
        std::optional<Error> error{};                   // of the last look
    };

    void check_usable() const;
    void take_done();
    void take_look(StoreTask& task);
    void take_publishing(StoreTask& task);
    void survey();
    void ask_for_peers();
    void keep_own_key();
    void ask_to_publish(std::vector<std::byte> hello);
    [[nodiscard]] Error not_answered(std::uint32_t rank, const StoreWorker::Call& call) const;
    [[nodiscard]] std::optional<Error> own_error() const;
    [[nodiscard]] bool hangs(const StoreWorker::Call& call) const;

    const StoreExchangeOptions options_;
    const std::uint64_t epoch_;
    const std::unique_ptr<Meeting> meeting_;
    const std::uint32_t rank_;
    const std::shared_ptr<StoreWorker> worker_;

    mutable std::mutex mutex_;  // guards all below
    bool closed_ = false;
    std::list<StoreTask> done_;  // not taken yet, where taking one threw
    std::map<std::uint32_t, Peer> peers_;
    Time next_survey_{};
    std::size_t pending_ = 1;   // of the meeting, when last polled
    std::size_t replaced_ = 0;  // when last surveyed

    std::vector<std::byte> own_hello_;  // the last that was asked to be published
    bool publishing_ = false;
    bool published_ = false;
    Time next_own_{};
    Time next_fresh_{};
    BackOff fresh_pause_;
    BackOff own_retry_;
    std::optional<Error> own_error_;
    std::optional<Error> conflict_;
};

}  // namespace fabricmem::detail
