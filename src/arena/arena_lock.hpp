// SPDX-License-Identifier: Apache-2.0
// A lock for what takes less time than a call into the C library: one atomic read-modify-write to take it, a store to
// give it up.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace fabricmem::detail {

/// Spins a little, then sleeps until it is woken. Who unlocks looks for sleepers just before, with no fence between, so
/// that one who falls asleep in that moment is not woken: it looks again by itself after a millisecond.
class ArenaLock {
public:
    ArenaLock() noexcept = default;
    ArenaLock(const ArenaLock&) = delete;
    ArenaLock& operator=(const ArenaLock&) = delete;

    void lock() noexcept {
        if (!try_lock()) lock_slowly();
    }
    [[nodiscard]] bool try_lock() noexcept { return held_.exchange(1, std::memory_order_acquire) == 0; }
    /// Touches nothing of the lock once another may have it: whoever has it next may be the one that frees it.
    void unlock() noexcept {
        const bool wanted = sleepers_.load(std::memory_order_relaxed) != 0;
        held_.store(0, std::memory_order_release);
        if (wanted) [[unlikely]]
            ::syscall(SYS_futex, &held_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }

private:
    static constexpr int kSpins = 200;

    static void pause() noexcept {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    [[gnu::noinline]] void lock_slowly() noexcept {
        for (int spin = 0; spin < kSpins; ++spin) {
            if (held_.load(std::memory_order_relaxed) == 0 && try_lock()) return;
            pause();
        }
        sleepers_.fetch_add(1, std::memory_order_relaxed);
        while (!try_lock()) {
            const std::timespec look_again{.tv_sec = 0, .tv_nsec = 1'000'000};
            ::syscall(SYS_futex, &held_, FUTEX_WAIT_PRIVATE, 1, &look_again, nullptr, 0);
        }
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }

    std::atomic<std::uint32_t> held_{0};
    std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace fabricmem::detail
