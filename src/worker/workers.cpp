// SPDX-License-Identifier: Apache-2.0
#include "worker/workers.hpp"

#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/error.hpp>

#include "platform/signals_blocked.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {

Job::Job(std::shared_ptr<const void> owner) noexcept : owner_(std::move(owner)) {}
Job::~Job() = default;

// Where threads wait for a job, while they are kept. Outlives the Workers with those that are leaving.
class Workers::Parking {
public:
    Parking() { handed_.reserve(kPlaces); }

    /// By a thread that is done, or has just begun, before others see that: who does may have the next job already.
    /// False: no room.
    [[nodiscard]] bool enter() noexcept {
        const std::lock_guard lock(mutex_);
        if (keepers_ == 0 || parked_ == kPlaces) return false;
        ++parked_;
        return true;
    }
    [[nodiscard]] bool is_empty() noexcept {
        const std::lock_guard lock(mutex_);
        return parked_ == 0;
    }
    /// By a thread that has entered. Null: nobody keeps it any more.
    [[nodiscard]] std::shared_ptr<Job> wait() noexcept {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return keepers_ == 0 || !handed_.empty(); });
        --parked_;
        if (handed_.empty()) return nullptr;
        std::shared_ptr<Job> job = std::move(handed_.back());
        handed_.pop_back();
        return job;
    }
    /// True: a thread takes it, and `job` is empty.
    [[nodiscard]] bool hand(std::shared_ptr<Job>& job) noexcept {
        const std::lock_guard lock(mutex_);
        if (handed_.size() == parked_) return false;
        handed_.push_back(std::move(job));
        changed_.notify_one();
        return true;
    }
    void keep() noexcept {
        const std::lock_guard lock(mutex_);
        ++keepers_;
    }
    void keep_no_more() noexcept {
        const std::lock_guard lock(mutex_);
        if (--keepers_ == 0) changed_.notify_all();
    }

private:
    static constexpr std::size_t kPlaces = 2;  // of an import, and of the end of another one

    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    std::vector<std::shared_ptr<Job>> handed_;  // at most as many as are parked
    std::size_t parked_ = 0;
    std::size_t keepers_ = 0;
};

Workers::Workers() : parking_(std::make_shared<Parking>()) {}

KeepThreads::KeepThreads(Workers& workers) noexcept : workers_(workers) {
    workers_.parking_->keep();
    workers_.start_idle();
}
KeepThreads::~KeepThreads() { workers_.parking_->keep_no_more(); }

Ended Workers::run(const std::shared_ptr<Job>& job, std::chrono::steady_clock::time_point deadline) {
    begin(job);
    return wait(job, deadline) == Ended::yes ? Ended::yes : give_up(job);
}

Ended Workers::wait(const std::shared_ptr<Job>& job, std::chrono::steady_clock::time_point deadline) const {
    std::unique_lock lock(mutex_);
    const auto done = [&] { return job->state_ == Job::State::done; };
    return changed_.wait_until(lock, deadline, done) ? Ended::yes : Ended::no;
}

void Workers::begin(const std::shared_ptr<Job>& job) {
    if (const std::size_t now = stuck(); now >= kStuckMax) {
        throw Error({.kind = ErrorKind::conflict,
                     .subject = formatted("no other call with a deadline is begun while {} have not returned", now),
                     .cause = "calls of the driver hang; likely the IMEX daemon waits for peers that are lost",
                     .cure = "look at nvidia-imex, and end the process",
                     .check = "FM-DRIVER-008"});
    }
    start(job);
    {
        const std::lock_guard lock(mutex_);
        ++begun_;
    }
    take_on_left();
}

Ended Workers::give_up(const std::shared_ptr<Job>& job) noexcept {
    const std::lock_guard lock(mutex_);
    if (job->state_ == Job::State::done) return Ended::yes;
    job->state_ = Job::State::given_up;
    ++stuck_;
    ++given_up_;
    return Ended::no;
}

void Workers::let_end(const std::shared_ptr<Job>& job) noexcept {
    constexpr std::chrono::seconds kPatience{10};
    if (wait(job, std::chrono::steady_clock::now() + kPatience) == Ended::no) static_cast<void>(give_up(job));
}

void Workers::start(std::shared_ptr<Job> job) {
    if (parking_->hand(job)) return;
    try {
        const SignalsBlocked blocked;
        // Detached: the end of a thread runs what libcuda has registered for it, and that may wait for a call that
        // hangs.
        std::thread([this, parking = parking_, job = std::move(job)]() mutable {
            serve(parking, std::move(job));
        }).detach();
    } catch (const std::system_error& error) {
        throw Error({.kind = ErrorKind::system,
                     .call = "pthread_create",
                     .subject = "a thread for a call with a deadline",
                     .cause = error.code().message(),
                     .cure = "raise the limit of threads (ulimit -u, or the container's pids limit)"});
    }
}

void Workers::start_idle() noexcept {
    if (!parking_->is_empty()) return;
    try {
        const SignalsBlocked blocked;
        std::thread([this, parking = parking_] {
            if (parking->enter()) serve(parking, nullptr);
        }).detach();
    } catch (const std::exception&) {  // jobs have threads of their own, then, or say why not
    }
}

void Workers::serve(const std::shared_ptr<Parking>& parking, std::shared_ptr<Job> job) noexcept {
    ::pthread_setname_np(::pthread_self(), "fabricmem-call");  // for those who look at a process's threads
    // This is there while there is a job.
    do {
        if (job == nullptr) job = parking->wait();
    } while (job != nullptr && work(std::move(job)));
}

bool Workers::work(std::shared_ptr<Job> job) noexcept {
    job->run();
    std::shared_ptr<Job> left;
    {
        const std::lock_guard lock(mutex_);
        Job& ended = *job;
        if (ended.state_ == Job::State::waited_for) {
            // Who waits has a reference too and lets go of it once it has seen `done`: not even the driver's end is
            // left to this thread.
            left = pop_left();  // keeps this alive
            const bool parked = left == nullptr && parking_->enter();
            job.reset();
            ended.state_ = Job::State::done;
            changed_.notify_all();
            if (left == nullptr) return parked;
        }
    }
    if (left != nullptr) {
        left->run();
        job = std::move(left);
    }
    finish(std::move(job));
    return false;
}

void Workers::finish(std::shared_ptr<Job> job) noexcept {
    for (;;) {
        job->clean_up();
        std::shared_ptr<Job> next;
        {
            const std::lock_guard lock(mutex_);
            --stuck_;
            next = pop_left();
            changed_.notify_all();
        }
        if (next == nullptr) return;  // the job dies here, and perhaps all this with it
        job = std::move(next);
        job->run();
    }
}

void Workers::leave(std::shared_ptr<Job> job) noexcept {
    const std::lock_guard lock(mutex_);
    job->state_ = Job::State::given_up;
    ++stuck_;
    if (parking_->hand(job)) return;
    job->next_ = std::move(left_);
    left_ = std::move(job);
}

void Workers::take_on_left() noexcept {
    std::shared_ptr<Job> job;
    {
        const std::lock_guard lock(mutex_);
        job = pop_left();
    }
    if (job == nullptr) return;
    try {
        start(job);
    } catch (const std::exception&) {  // still no thread: as it was
        const std::lock_guard lock(mutex_);
        job->next_ = std::move(left_);
        left_ = std::move(job);
    }
}

std::shared_ptr<Job> Workers::pop_left() noexcept {
    std::shared_ptr<Job> job = std::move(left_);
    if (job != nullptr) left_ = std::move(job->next_);
    return job;
}

std::size_t Workers::stuck() const {
    const std::lock_guard lock(mutex_);
    return stuck_;
}

Workers::Counts Workers::counts() const {
    const std::lock_guard lock(mutex_);
    return {begun_, given_up_, stuck_};
}

bool Workers::wait_until_stuck(std::size_t at_most, std::chrono::steady_clock::time_point deadline) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline, [&] { return stuck_ <= at_most; });
}

std::chrono::steady_clock::time_point deadline_after(std::chrono::milliseconds timeout) noexcept {
    constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24 * 365 * 100);
    return std::chrono::steady_clock::now() + std::min(timeout, kLongest);
}

}  // namespace fabricmem::detail
