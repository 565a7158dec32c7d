// SPDX-License-Identifier: Apache-2.0
// A lock that is waited for by a deadline. No std::timed_mutex: thread sanitizers of before 2023 don't know the call
// that it waits by, and take each unlock for a mistake.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace fabricmem::detail {

class Turn {
public:
    /// Held from construction to the end of scope, unless the deadline came first.
    class Held {
    public:
        Held(Turn& turn, std::chrono::steady_clock::time_point deadline) : turn_(turn) {
            std::unique_lock lock(turn_.mutex_);
            taken_ = turn_.free_.wait_until(lock, deadline, [&] { return !turn_.taken_; });
            turn_.taken_ = turn_.taken_ || taken_;
        }
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() {
            if (!taken_) return;
            const std::lock_guard lock(turn_.mutex_);
            turn_.taken_ = false;
            turn_.free_.notify_one();
        }
        [[nodiscard]] explicit operator bool() const noexcept { return taken_; }

    private:
        Turn& turn_;
        bool taken_ = false;
    };

private:
    std::mutex mutex_;  // guards taken_
    std::condition_variable free_;
    bool taken_ = false;
};

}  // namespace fabricmem::detail
