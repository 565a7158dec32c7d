// SPDX-License-Identifier: Apache-2.0
// Time limits: the arithmetic, and the watchdog's thread.
#include "common/deadline.hpp"

#include <errno.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "common/text.hpp"

namespace examples {

int Deadline::left_ms() const noexcept {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now()).count();
    return static_cast<int>(std::clamp<decltype(left)>(left, 0, std::numeric_limits<int>::max()));
}

Watchdog::Watchdog(std::string step, std::chrono::milliseconds timeout, std::function<void()> last_act)
    : step_(std::move(step)), deadline_(timeout), last_act_(std::move(last_act)), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
    }
    ended_changed_.notify_one();
    thread_.join();
}

void Watchdog::watch() {
    constexpr std::chrono::milliseconds kSilent{2000};
    std::unique_lock lock(mutex_);
    const auto ends_within = [&](std::chrono::milliseconds time) {
        return ended_changed_.wait_for(lock, time, [this] { return ended_; });
    };
    if (ends_within(std::min(kSilent, std::chrono::milliseconds(deadline_.left_ms())))) return;
    if (!deadline_.passed()) {
        const auto whole =
            std::chrono::round<std::chrono::seconds>(kSilent + std::chrono::milliseconds(deadline_.left_ms()));
        print(stderr, "{}: {}, for {} s at most\n", program_invocation_short_name, step_, whole.count());
        if (ends_within(std::chrono::milliseconds(deadline_.left_ms()))) return;
    }
    if (last_act_) {
        last_act_();
    } else {
        print(stderr, "{}: error: {} did not come to an end in time\n", program_invocation_short_name, step_);
    }
    // Not exit(): its handlers would wait for the call that is stuck. The peer sees the connection end.
    std::_Exit(1);
}

}  // namespace examples
