// SPDX-License-Identifier: Apache-2.0
// The pauses of whoever looks again and again at memory that a GPU, or another process, writes: nobody can be woken.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace fabricmem::detail {

/// At once at first, then ever longer, up to a millisecond: a short wait costs no more than it has to, and a long one
/// leaves the CPU to others.
class WaitPause {
public:
    /// Not beyond the deadline.
    void wait(std::chrono::steady_clock::time_point deadline) {
        if (looks_ < kBusyLooks) {
            ++looks_;
            std::this_thread::yield();
            return;
        }
        std::this_thread::sleep_until(std::min(deadline, std::chrono::steady_clock::now() + pause_));
        pause_ = std::min(pause_ * 5 / 4 + std::chrono::microseconds(1), kLongest);
    }
    void start_again() noexcept {
        looks_ = 0;
        pause_ = kFirst;
    }

private:
    static constexpr int kBusyLooks = 200;
    static constexpr std::chrono::microseconds kFirst{5};
    static constexpr std::chrono::microseconds kLongest{1000};

    int looks_ = 0;
    std::chrono::microseconds pause_ = kFirst;
};

}  // namespace fabricmem::detail
