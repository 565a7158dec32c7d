// SPDX-License-Identifier: Apache-2.0
// Time limits: the arithmetic, and the watchdog's thread.
#include "pingpong_deadline.hpp"

#include <errno.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "pingpong_text.hpp"

namespace pingpong {

int Deadline::left_ms() const noexcept {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now()).count();
    return static_cast<int>(std::clamp<decltype(left)>(left, 0, std::numeric_limits<int>::max()));
}

Watchdog::Watchdog(std::string step, std::chrono::milliseconds timeout)
    : step_(std::move(step)), deadline_(timeout), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
    }
    ended_changed_.notify_one();
    thread_.join();
}

void Watchdog::watch() {
    std::unique_lock lock(mutex_);
    const auto left = std::chrono::milliseconds(deadline_.left_ms());
    if (ended_changed_.wait_for(lock, left, [this] { return ended_; })) return;
    print(stderr, "{}: error: {} did not come to an end in time\n", program_invocation_short_name, step_);
    // Not exit(): its handlers would wait for the call that is stuck. The peer sees the connection end.
    std::_Exit(1);
}

}  // namespace pingpong
