// SPDX-License-Identifier: Apache-2.0
#include "store/store_worker.hpp"

#include <pthread.h>

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "log/log.hpp"
#include "platform/signals_blocked.hpp"
#include "store/back_off.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {

using std::chrono::steady_clock;

namespace {

constexpr std::size_t kRemembered = 8;

std::int64_t ms_since(steady_clock::time_point time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - time).count();
}

}  // namespace

StoreWorker::StoreWorker(std::shared_ptr<Store> store, std::string prefix, std::uint32_t rank)
    : prefix_(std::move(prefix)), own_key_(key_of(rank)), store_(std::move(store)) {}

std::string StoreWorker::key_of(std::uint32_t rank) const { return formatted("{}/hello/{}", prefix_, rank); }

void StoreWorker::ask(StoreTask task) {
    std::list<StoreTask> one;
    one.push_back(std::move(task));
    const std::lock_guard lock(mutex_);
    if (ending_) return;
    if (!started_) {
        try {
            const SignalsBlocked blocked;
            // Detached, and owner of all that it touches: exit does not wait for a store that hangs.
            std::thread([self = shared_from_this()]() mutable {
                StoreWorker& worker = *self;
                worker.work();
            }).detach();
        } catch (const std::system_error& error) {
            throw Error({.kind = ErrorKind::system,
                         .call = "pthread_create",
                         .subject = "a thread for the calls of a store",
                         .cause = error.code().message(),
                         .cure = "raise the limit of threads (ulimit -u, or the container's pids limit)"});
        }
        started_ = true;
    }
    const auto place = one.front().what == StoreTask::What::publish ? queue_.begin() : queue_.end();
    queue_.splice(place, one);
    asked_.notify_one();
}

std::list<StoreTask> StoreWorker::take_done() {
    std::list<StoreTask> done;
    const std::lock_guard lock(mutex_);
    done.splice(done.end(), done_);
    return done;
}

bool StoreWorker::wait_for_done(steady_clock::time_point until) {
    std::unique_lock lock(mutex_);
    return done_changed_.wait_until(lock, until, [&] { return !done_.empty(); });
}

StoreWorker::Call StoreWorker::current() const {
    const std::lock_guard lock(mutex_);
    return current_;
}

std::optional<Error> StoreWorker::end(steady_clock::time_point deadline) {
    std::list<StoreTask> dropped;
    std::unique_lock lock(mutex_);
    dropped.splice(dropped.end(), queue_);
    ending_ = true;
    end_deadline_ = deadline;
    if (!started_) return std::nullopt;
    asked_.notify_one();
    if (done_changed_.wait_until(lock, deadline, [&] { return ended_; })) return end_error_;
    given_up_ = true;
    const char* const name = current_.name;
    return Error({.kind = ErrorKind::timed_out,
                  .call = name == nullptr ? "" : name,
                  .subject = name == nullptr ? own_key_ + " could not be removed from the store in time" : current_.key,
                  .cause = name == nullptr
                               ? "the store is slow"
                               : formatted("the store has not answered for {} ms", ms_since(current_.since)),
                  .cure = "the key of this rank is removed when that call returns; look at the store"});
}

void StoreWorker::work() noexcept {
    ::pthread_setname_np(::pthread_self(), "fabricmem-store");
    std::list<StoreTask> task;
    std::unique_lock lock(mutex_);
    for (;;) {
        asked_.wait(lock, [&] { return ending_ || !queue_.empty(); });
        if (ending_) break;
        task.splice(task.end(), queue_, queue_.begin());
        lock.unlock();
        run(task.front());
        lock.lock();
        done_.splice(done_.end(), task);
        done_changed_.notify_all();
    }
    lock.unlock();
    withdraw();
    store_.reset();  // before anyone is told: a store may be the caller's to end
    lock.lock();
    ended_ = true;
    done_changed_.notify_all();
    if (!given_up_) return;
    lock.unlock();
    if (end_error_.has_value()) {
        log(LogLevel::warning, "the key {} may be left in the store: {}", own_key_, end_error_->what());
    } else {
        log(LogLevel::info, "the store, which had been given up, has answered: the key {} is removed", own_key_);
    }
}

void StoreWorker::run(StoreTask& task) noexcept {
    try {
        try {
            if (task.what == StoreTask::What::look) {
                look(task);
            } else {
                publish(task);
            }
        } catch (const Error& error) {
            task.outcome = StoreTask::Outcome::failed;
            task.error = error;
        }
    } catch (...) {  // no memory, not even for an Error
        task.outcome = StoreTask::Outcome::failed;
    }
}

template <typename Work>
auto StoreWorker::call(const char* name, const std::string& key, Work&& work) {
    {
        Call begun{name, key, steady_clock::now()};
        const std::lock_guard lock(mutex_);
        std::swap(current_, begun);
    }
    struct End {
        StoreWorker& worker;
        ~End() {
            const std::lock_guard lock(worker.mutex_);
            worker.current_.name = nullptr;
        }
    };
    const End end{*this};
    try {
        return work();
    } catch (const Error&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw Error({.kind = ErrorKind::system,
                     .call = name,
                     .subject = formatted("{} in the store", key),
                     .cause = error.what()});
    } catch (...) {
        throw Error({.kind = ErrorKind::system,
                     .call = name,
                     .subject = formatted("{} in the store", key),
                     .cause = "the store threw something that is no exception of C++'s"});
    }
}

std::optional<std::vector<std::byte>> StoreWorker::get(const std::string& key) {
    auto value = call("try_get", key, [&] { return store_->try_get(key); });
    if (value.has_value()) check_stored_value(key, value->size());  // not every engine is ours
    return value;
}

void StoreWorker::look(StoreTask& task) {
    auto value = get(key_of(task.rank));
    task.outcome = value.has_value() ? StoreTask::Outcome::found : StoreTask::Outcome::absent;
    if (value.has_value()) task.value = std::move(*value);
}

void StoreWorker::publish(StoreTask& task) {
    std::optional<std::vector<std::byte>> there;
    bool foreign = false;
    try {
        there = get(own_key_);
        foreign = there.has_value() && !is_ours(*there);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::bad_blob) throw;
        foreign = true;  // whatever it is, it is not ours
    }
    if (foreign && published_) {
        task.outcome = StoreTask::Outcome::foreign;
        return;
    }
    // Until now it was what a process that is gone has left.
    if (there != task.value) {
        remember(task.value);
        if (published_ && there.has_value() && !replace(*there, task.value)) {
            task.outcome = StoreTask::Outcome::changed;
            return;
        }
        if (!published_ || !there.has_value()) {
            call("set", own_key_, [&] { store_->set(own_key_, task.value); });
        }
    }
    published_ = true;
    task.outcome = StoreTask::Outcome::kept;
}

// Not over what another process has put there since it was read, where the store can do that. False where it has.
bool StoreWorker::replace(const std::vector<std::byte>& there, const std::vector<std::byte>& value) {
    if (store_->can_compare_exchange()) {
        try {
            return call("compare_exchange", own_key_, [&] { return store_->compare_exchange(own_key_, there, value); });
        } catch (const Error& error) {
            // c10d has stores whose compareSet does nothing but throw.
            if (error.kind() != ErrorKind::unsupported && error.kind() != ErrorKind::system) throw;
        }
    }
    call("set", own_key_, [&] { store_->set(own_key_, value); });
    return true;
}

// What is there stays among the last few for as long as it is there, however often another could not be set.
bool StoreWorker::is_ours(const std::vector<std::byte>& value) {
    const auto place = std::find(ours_.begin(), ours_.end(), value);
    if (place == ours_.end()) return false;
    std::rotate(place, place + 1, ours_.end());
    return true;
}

// Before it is set: a call that fails may have taken effect all the same.
void StoreWorker::remember(const std::vector<std::byte>& value) {
    if (is_ours(value)) return;
    ours_.push_back(value);
    if (ours_.size() > kRemembered) ours_.pop_front();
}

void StoreWorker::withdraw() noexcept {
    if (ours_.empty()) return;
    BackOff pause(kFirstLook, kLastLook);
    for (;;) {
        std::optional<Error> failure;
        try {
            try_to_withdraw();
            return;
        } catch (const Error& error) {
            failure = error;
        } catch (const std::exception&) {  // no memory
        }
        const auto next = steady_clock::now() + pause.next();
        std::unique_lock lock(mutex_);
        if (failure.has_value()) end_error_ = failure;
        if (next >= end_deadline_) return;
        lock.unlock();
        std::this_thread::sleep_until(next);
    }
}

void StoreWorker::try_to_withdraw() {
    std::optional<std::vector<std::byte>> there;
    try {
        there = get(own_key_);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::bad_blob) throw;  // else it is not ours
    }
    if (there.has_value() && is_ours(*there)) call("remove", own_key_, [&] { return store_->remove(own_key_); });
    const std::lock_guard lock(mutex_);
    end_error_.reset();
}

}  // namespace fabricmem::detail
