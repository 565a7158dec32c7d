// SPDX-License-Identifier: Apache-2.0
// Waiting without sleeping: spin, and every so often ask whether the wait still makes sense.
#pragma once

#include <cstdint>
#include <string_view>
#include <thread>

#include "common/deadline.hpp"
#include "pingpong_loop.hpp"

namespace pingpong {

/// Tells the CPU that this is a spinning loop.
inline void pause_cpu() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm("yield");
#endif
}

/// Calls `done()` until it is true. Throws what `watch` throws.
template <class Done>
void spin_until(Watch& watch, std::string_view awaited, Done&& done) {
    constexpr std::uint32_t kSpinsBetweenYields = 128;
    constexpr std::uint32_t kSpinsBetweenChecks = 8 * kSpinsBetweenYields;
    // Looked at for the first time when the wait turns out not to be a short one.
    Clock::time_point since{};
    for (std::uint32_t spins = 1; !done(); ++spins) {
        pause_cpu();
        if (spins % kSpinsBetweenYields != 0) continue;
        std::this_thread::yield();  // the peer may need this very core
        if (spins % kSpinsBetweenChecks != 0) continue;
        if (since == Clock::time_point{}) since = Clock::now();
        watch.check(since, awaited);
    }
}

}  // namespace pingpong
