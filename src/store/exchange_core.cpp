// SPDX-License-Identifier: Apache-2.0
#include "store/exchange_core.hpp"

#include <algorithm>
#include <utility>

#include "error/refuse.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kPrefixBytesMax = 180;  // with "/hello/" and ten digits within Store::kKeyBytesMax
constexpr milliseconds kPauseMax = std::chrono::hours(24);
// Between two polls of a wait: what a peer writes into memory wakes nobody.
constexpr milliseconds kFirstPoll{1};
constexpr milliseconds kLastPoll{5};

StoreExchangeOptions checked(StoreExchangeOptions options) {
    if (options.prefix.empty() || options.prefix.size() > kPrefixBytesMax) {
        refuse(formatted("a prefix of {} bytes for a store exchange, not of 1 to {}", options.prefix.size(),
                         kPrefixBytesMax));
    }
    for (const milliseconds time : {options.first_pause, options.last_pause, options.connected_pause,
                                    options.republish_pause, options.store_timeout}) {
        if (time.count() <= 0 || time > kPauseMax) {
            refuse(formatted("a time of {} ms in a store exchange's options, not of 1 ms to a day", time.count()));
        }
    }
    return options;
}

std::unique_ptr<Meeting> checked(std::unique_ptr<Meeting> meeting) {
    if (meeting == nullptr) refuse("a store exchange without a handshake");
    return meeting;
}

std::shared_ptr<Store> checked(std::shared_ptr<Store> store) {
    if (store == nullptr) refuse("a store exchange without a store");
    return store;
}

}  // namespace

ExchangeCore::ExchangeCore(std::shared_ptr<Store> store, std::unique_ptr<Meeting> meeting, StoreExchangeOptions options)
    : options_(checked(std::move(options))),
      epoch_(fork_epoch()),
      meeting_(checked(std::move(meeting))),
      rank_(meeting_->rank()),
      worker_(std::make_shared<StoreWorker>(checked(std::move(store)), options_.prefix, rank_)),
      fresh_pause_(options_.republish_pause, options_.republish_pause * 32),
      own_retry_(options_.first_pause, options_.last_pause) {}

ExchangeCore::~ExchangeCore() {
    try {
        close();
    } catch (const std::exception& error) {
        log(LogLevel::warning, "the key of rank {} may be left in the store: {}", rank_, error.what());
    }
}

bool ExchangeCore::in_forked_child() const noexcept { return epoch_ != fork_epoch(); }

void ExchangeCore::check_usable() const {
    if (closed_) throw Error({.kind = ErrorKind::closed, .subject = "the store exchange is closed"});
}

std::size_t ExchangeCore::poll() {
    if (in_forked_child()) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = "a store exchange of the parent's in a forked child",
                     .cure = "make one in the child"});
    }
    const DeferredLog deferred;
    const std::lock_guard lock(mutex_);
    check_usable();
    take_done();
    if (steady_clock::now() >= next_survey_) survey();
    ask_for_peers();
    keep_own_key();
    const std::size_t before = std::exchange(pending_, meeting_->poll());
    // Are they connected, or waiting for who replaces them? Is one of them no longer?
    if ((pending_ == 0) != (before == 0)) survey();
    if (conflict_.has_value()) throw *conflict_;
    return pending_ + replaced_;
}

void ExchangeCore::wait(steady_clock::time_point deadline) {
    BackOff pace(kFirstPoll, kLastPoll);
    while (poll() != 0) {
        const auto now = steady_clock::now();
        if (now >= deadline) return;
        if (worker_->wait_for_done(std::min<steady_clock::time_point>(deadline, now + pace.next()))) pace.reset();
    }
}

void ExchangeCore::close() {
    if (in_forked_child()) return;
    {
        const std::lock_guard lock(mutex_);
        if (std::exchange(closed_, true)) return;
    }
    if (const auto error = worker_->end(steady_clock::now() + options_.store_timeout)) throw *error;
}

void ExchangeCore::take_done() {
    done_.splice(done_.end(), worker_->take_done());
    while (!done_.empty()) {
        StoreTask task = std::move(done_.front());
        done_.pop_front();
        if (task.outcome == StoreTask::Outcome::failed && !task.error.has_value()) {
            task.error = Error({.kind = ErrorKind::out_of_memory, .subject = "no memory to ask the store"});
        }
        if (task.what == StoreTask::What::look) {
            take_look(task);
        } else {
            take_publishing(task);
        }
    }
}

void ExchangeCore::take_look(StoreTask& task) {
    const auto place = peers_.find(task.rank);
    if (place == peers_.end()) return;  // the meeting has dropped it meanwhile
    Peer& peer = place->second;
    peer.asked = false;
    peer.looked = true;
    peer.error = std::move(task.error);
    if (task.outcome == StoreTask::Outcome::found && task.value != peer.hello) {
        next_survey_ = {};
        try {
            if (meeting_->add_peer(task.rank, task.value)) peer.pause.reset();
            peer.hello = std::move(task.value);
        } catch (const Error& error) {
            peer.error = error;
        }
    }
    const bool connected = peer.standing == PeerStanding::connected;
    const milliseconds pause = connected ? options_.connected_pause : peer.pause.next();
    peer.next_look = steady_clock::now() + pause;
}

void ExchangeCore::take_publishing(StoreTask& task) {
    publishing_ = false;
    const auto now = steady_clock::now();
    own_error_ = std::move(task.error);
    switch (task.outcome) {
        case StoreTask::Outcome::kept:
            published_ = true;
            own_retry_.reset();
            next_own_ = now + (pending_ + replaced_ == 0 ? options_.connected_pause : options_.last_pause);
            break;
        case StoreTask::Outcome::foreign:
            conflict_ = Error({.kind = ErrorKind::conflict,
                               .subject = formatted("another process has published itself as rank {} under {}", rank_,
                                                    worker_->key_of(rank_)),
                               .cause = "two processes were given this rank, or this one was replaced",
                               .cure = "give each process a rank of its own, and each job a prefix"});
            break;
        default: next_own_ = now + own_retry_.next(); break;
    }
}

void ExchangeCore::survey() {
    next_survey_ = steady_clock::now() + (pending_ == 0 ? options_.last_pause : options_.first_pause);
    const std::vector<MeetingPeer> others = meeting_->others();
    const auto is_gone = [&](std::uint32_t rank) {
        return !std::binary_search(others.begin(), others.end(), MeetingPeer{rank, {}},
                                   [](const MeetingPeer& a, const MeetingPeer& b) { return a.rank < b.rank; });
    };
    std::erase_if(peers_, [&](const auto& peer) { return is_gone(peer.first); });
    replaced_ = 0;
    for (const MeetingPeer& other : others) {
        Peer fresh{.pause = BackOff(options_.first_pause, options_.last_pause)};
        Peer& peer = peers_.try_emplace(other.rank, std::move(fresh)).first->second;
        const bool was_connected = std::exchange(peer.standing, other.standing) == PeerStanding::connected;
        if (was_connected && other.standing != PeerStanding::connected) {
            peer.next_look = {};
            peer.pause.reset();
            fresh_pause_.reset();
            next_fresh_ = {};
            next_own_ = {};
        }
        if (other.standing == PeerStanding::replaced) ++replaced_;
    }
}

void ExchangeCore::ask_for_peers() {
    const auto now = steady_clock::now();
    for (auto& [rank, peer] : peers_) {
        if (peer.asked || now < peer.next_look) continue;
        worker_->ask({.what = StoreTask::What::look, .rank = rank});
        peer.asked = true;
    }
}

// Publishes, and looks whether the key is still ours; with a fresh hello now and then while peers are missing.
void ExchangeCore::keep_own_key() {
    const auto now = steady_clock::now();
    if (publishing_ || conflict_.has_value() || now < next_own_) return;
    if (own_hello_.empty() || (pending_ + replaced_ != 0 && now >= next_fresh_)) {
        try {
            own_hello_ = meeting_->hello();
        } catch (const Error& error) {
            own_error_ = error;
            next_own_ = now + own_retry_.next();
            return;
        }
        next_fresh_ = now + fresh_pause_.next();
    }
    worker_->ask({.what = StoreTask::What::publish, .rank = rank_, .value = own_hello_});
    publishing_ = true;
}

bool ExchangeCore::hangs(const StoreWorker::Call& call) const {
    return call.name != nullptr && steady_clock::now() - call.since >= options_.store_timeout;
}

Error ExchangeCore::not_answered(std::uint32_t rank, const StoreWorker::Call& call) const {
    ErrorDetails details{.kind = ErrorKind::timed_out,
                         .subject = formatted("the store was asked for {}", worker_->key_of(rank)),
                         .cause = "it is slow: other keys come before",
                         .cure = "wait for longer, or look at the store"};
    if (call.name != nullptr) {
        const auto time = std::chrono::duration_cast<milliseconds>(steady_clock::now() - call.since);
        details.subject += formatted(", and has not answered: {} of {} has not returned after {} ms", call.name,
                                     call.key, time.count());
        details.cause = "the store is slow, hangs, or can't be reached";
    }
    return Error(std::move(details));
}

std::optional<Error> ExchangeCore::own_error() const {
    if (conflict_.has_value()) return conflict_;
    if (own_error_.has_value()) return own_error_;
    const StoreWorker::Call call = worker_->current();
    if (publishing_ && (!published_ || hangs(call))) return not_answered(rank_, call);
    return std::nullopt;
}

std::optional<Error> ExchangeCore::error_of(std::uint32_t rank) const {
    const std::lock_guard lock(mutex_);
    if (rank == rank_) return own_error();
    const auto place = peers_.find(rank);
    if (place == peers_.end()) return std::nullopt;
    const Peer& peer = place->second;
    const StoreWorker::Call call = worker_->current();
    if (peer.asked && (!peer.looked || hangs(call))) return not_answered(rank, call);
    if (peer.error.has_value() || peer.hello.has_value()) return peer.error;
    if (!peer.looked) return Error({.kind = ErrorKind::timed_out, .subject = "the store was not asked for it yet"});
    return Error({.kind = ErrorKind::timed_out,
                  .subject = formatted("rank {} has not published itself: the store has nothing under {}", rank,
                                       worker_->key_of(rank)),
                  .cause = "its process was not started, has ended, or has another store or prefix",
                  .cure = "look at that process"});
}

}  // namespace fabricmem::detail
