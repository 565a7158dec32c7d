// SPDX-License-Identifier: Apache-2.0
// Time limits: a point in time that waits end at, and a watchdog for calls that can't be given one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace examples {

using Clock = std::chrono::steady_clock;

class Deadline {
public:
    explicit Deadline(std::chrono::milliseconds timeout) : end_(Clock::now() + timeout) {}

    [[nodiscard]] bool passed() const noexcept { return Clock::now() >= end_; }
    /// What is left, for poll(2): rounded up, 0 when passed.
    [[nodiscard]] int left_ms() const noexcept;

private:
    Clock::time_point end_;
};

/// Says on stderr what is under way if it is still there after 2 s, and ends the process with one line and exit code 1
/// when the time is up. For calls that may block without limit: an import from another node, a name server.
class Watchdog {
public:
    /// `last_act`, if any, is done instead of saying that line: for those who have said already what went wrong.
    Watchdog(std::string step, std::chrono::milliseconds timeout, std::function<void()> last_act = {});
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;
    ~Watchdog();

private:
    void watch();

    const std::string step_;
    const Deadline deadline_;
    const std::function<void()> last_act_;
    std::mutex mutex_;
    std::condition_variable ended_changed_;
    bool ended_ = false;
    std::thread thread_;  // last: it uses all the others
};

}  // namespace examples
