// SPDX-License-Identifier: Apache-2.0
// Threads for work that may never end: whoever waits for it gives up at a deadline, and the work goes on alone. Knows
// no CUDA and no driver.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace fabricmem::detail {

/// The call that a job is at, for whoever gives it up. Calls are string literals; null: none yet.
class Progress {
public:
    void enter(const char* call) noexcept { call_.store(call, std::memory_order_release); }
    [[nodiscard]] const char* call() const noexcept { return call_.load(std::memory_order_acquire); }

private:
    std::atomic<const char*> call_{nullptr};
};

/// Owns all that its work touches: nobody else may be there when the work ends.
class Job {
public:
    /// `owner` is what the Workers are part of; the job keeps it alive.
    explicit Job(std::shared_ptr<const void> owner) noexcept;
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;
    virtual ~Job();

    virtual void run() noexcept = 0;
    /// After run(), in the same thread, where the job was given up: what came late is given back here.
    virtual void clean_up() noexcept = 0;

    Progress progress;

private:
    friend class Workers;
    enum class State : std::uint8_t { waited_for, given_up, done };

    std::shared_ptr<const void> owner_;
    State state_ = State::waited_for;  // guarded by Workers::mutex_, as is next_
    std::shared_ptr<Job> next_;
};

enum class Ended : std::uint8_t { yes, no };

/// A thread for each job that there is at once, gone when the job is; but while somebody says KeepThreads two wait for
/// the next job, since a new one and its first call of libcuda's cost more than an import. Thread-safe; not for forked
/// children.
class Workers {
public:
    /// With so many jobs given up and not ended, no other is begun.
    static constexpr std::size_t kStuckMax = 64;

    Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    /// Runs the job in a thread and waits for it. Ended::no at the deadline: then the job is the thread's alone, and
    /// counted by stuck() until it has cleaned up. Throws, with nothing begun, Error{conflict} at kStuckMax,
    /// Error{system} where no thread can be started, std::bad_alloc.
    [[nodiscard]] Ended run(const std::shared_ptr<Job>& job, std::chrono::steady_clock::time_point deadline);
    /// The halves of run(), for those who have other things to do meanwhile. begin() throws as run() does; each job
    /// that was begun has to be given up once: Ended::yes where it has ended by itself before.
    void begin(const std::shared_ptr<Job>& job);
    [[nodiscard]] Ended give_up(const std::shared_ptr<Job>& job) noexcept;
    [[nodiscard]] Ended wait(const std::shared_ptr<Job>& job, std::chrono::steady_clock::time_point deadline) const;
    /// For a job that was begun and is past its work: waits for its thread to be done with it, which takes no longer
    /// than a thread does to run, so that what the job has is not let go there, where nobody waits for it. Gives it up
    /// where it stays away.
    void let_end(const std::shared_ptr<Job>& job) noexcept;
    /// For a job that run() could not begin and whose work has to be done all the same: done, as one that was given up,
    /// by the next thread that has nothing else to do. Counted by stuck() from now on.
    void leave(std::shared_ptr<Job> job) noexcept;

    [[nodiscard]] std::size_t stuck() const;
    struct Counts {
        std::uint64_t begun = 0;     // since there are these workers
        std::uint64_t given_up = 0;  // of them
        std::size_t stuck = 0;       // now
    };
    [[nodiscard]] Counts counts() const;
    /// False where the deadline came before.
    [[nodiscard]] bool wait_until_stuck(std::size_t at_most, std::chrono::steady_clock::time_point deadline) const;

private:
    friend class KeepThreads;
    class Parking;

    void start(std::shared_ptr<Job> job);
    void start_idle() noexcept;
    // `job` null: the thread is parked.
    void serve(const std::shared_ptr<Parking>& parking, std::shared_ptr<Job> job) noexcept;
    // True: the thread has a place in the parking. Afterwards this may be gone.
    [[nodiscard]] bool work(std::shared_ptr<Job> job) noexcept;
    void finish(std::shared_ptr<Job> job) noexcept;
    void take_on_left() noexcept;
    [[nodiscard]] std::shared_ptr<Job> pop_left() noexcept;  // under the lock

    std::shared_ptr<Parking> parking_;
    mutable std::mutex mutex_;  // guards all below; taken before the parking's
    mutable std::condition_variable changed_;
    std::size_t stuck_ = 0;
    std::uint64_t begun_ = 0;
    std::uint64_t given_up_ = 0;
    std::shared_ptr<Job> left_;  // a list by Job::next_
};

/// For its life the workers, which live longer, keep threads, the first of which is there from the beginning where it
/// can be had: so the first job does not wait for it either. They sleep without a time-out, so that none ends, and
/// runs what libcuda has registered for that, while the process exits.
class KeepThreads {
public:
    explicit KeepThreads(Workers& workers) noexcept;
    KeepThreads(const KeepThreads&) = delete;
    KeepThreads& operator=(const KeepThreads&) = delete;
    ~KeepThreads();

private:
    Workers& workers_;
};

/// now() + timeout, at most a hundred years.
[[nodiscard]] std::chrono::steady_clock::time_point deadline_after(std::chrono::milliseconds timeout) noexcept;

}  // namespace fabricmem::detail
