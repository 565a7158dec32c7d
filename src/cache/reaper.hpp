// SPDX-License-Identifier: Apache-2.0
// Ends imports on a thread of its own, so that whoever lets the last one go does not wait for the driver.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include <fabricmem/driver.hpp>

#include "cache/cache_slot.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {

/// The thread lives while there is work. An end that takes longer than the limit is given up, which stuck_calls()
/// counts until it comes back, and another thread goes on with the rest. Any thread; not in forked children. Takes
/// locks that no call of the driver's is made under.
class Reaper {
public:
    struct Backlog {
        std::uint64_t imports = 0;
        std::uint64_t bytes = 0;
        std::uint64_t of_other_nodes = 0;  // of the imports
    };

    Reaper(std::shared_ptr<Driver> driver, std::chrono::milliseconds limit);
    Reaper(const Reaper&) = delete;
    Reaper& operator=(const Reaper&) = delete;
    /// Waits for nothing: what is there ends all the same.
    ~Reaper();

    void add(ImportList& imports) noexcept;  // empty afterwards
    /// Gives up what takes too long, and starts a thread where there is work and none.
    void look() noexcept;
    [[nodiscard]] Backlog backlog() const noexcept;
    /// Why nothing ends: what there is waits, and no thread can be had. Null: it goes on.
    [[nodiscard]] std::exception_ptr stalled() noexcept;
    [[nodiscard]] bool wait_until_idle(std::chrono::steady_clock::time_point deadline) noexcept;

    struct Shared;

private:
    class Thread;

    void end_thread() noexcept;

    std::shared_ptr<Driver> driver_;
    std::chrono::milliseconds limit_;
    std::shared_ptr<Shared> shared_;
    std::mutex turn_;  // guards what follows; taken before Shared's
    std::shared_ptr<Thread> thread_;
    std::exception_ptr stalled_;
};

}  // namespace fabricmem::detail
