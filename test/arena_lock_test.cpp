// SPDX-License-Identifier: Apache-2.0
// The lock of an arena's bookkeeping.
#include "arena/arena_lock.hpp"

#include <mutex>
#include <thread>
#include <vector>

#include "support/test.hpp"

using fabricmem::detail::ArenaLock;

TEST_CASE("An arena's lock lets one thread in at a time, those too that slept meanwhile", "[arena]") {
    constexpr int kThreads = 4;
    constexpr int kRounds = 2000;
    ArenaLock lock;
    int inside = 0;
    int together = 0;
    int rounds = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < kRounds; ++round) {
                const std::lock_guard guard(lock);
                if (++inside != 1) ++together;
                // Now and then for so long that the others fall asleep.
                for (int turn = 0; round % 64 == 0 && turn < 200; ++turn) std::this_thread::yield();
                --inside;
                ++rounds;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(together == 0);
    CHECK(rounds == kThreads * kRounds);
}

TEST_CASE("An arena's lock that is held is not had by a try", "[arena]") {
    ArenaLock lock;
    REQUIRE(lock.try_lock());
    CHECK_FALSE(lock.try_lock());
    lock.unlock();
    CHECK(lock.try_lock());
    lock.unlock();
}
