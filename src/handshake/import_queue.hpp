// SPDX-License-Identifier: Apache-2.0
// Imports, and their ends, on threads of their own: who asks for them looks now and then whether they are done. One
// after the other, since the driver makes them no faster side by side (docs/driver-notes.md), until one of them takes
// long.
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include <fabricmem/fabric_buffer.hpp>

#include "worker/workers.hpp"

namespace fabricmem::detail {

class ImportThread;

/// One import. Made by ImportQueue::start(), and looked at by the thread that did.
class ImportTask {
public:
    [[nodiscard]] bool done() const;
    /// What came of it, once; done() only. Throws what the import threw.
    [[nodiscard]] std::shared_ptr<const ImportedFabricBuffer> take();
    /// Whether the call has come back: later than done() where it was given up.
    [[nodiscard]] bool returned() const;

private:
    friend class ImportQueue;
    friend class ImportThread;
    ImportTask(const HandleBlob& blob, const ImportOptions& options) : blob_(blob), options_(options) {}
    void run(const std::shared_ptr<Driver>& driver, Progress& progress) noexcept;
    /// Who waits for it is told so, unless it has come already.
    void fail(std::exception_ptr failure) noexcept;
    /// Nobody waits for it any more. Returns what has come already.
    [[nodiscard]] std::shared_ptr<const ImportedFabricBuffer> forget() noexcept;

    HandleBlob blob_;
    ImportOptions options_;
    mutable std::mutex mutex_;  // guards what follows
    bool done_ = false;
    bool returned_ = false;
    std::shared_ptr<const ImportedFabricBuffer> buffer_;
    std::exception_ptr failure_;
};

/// Threads: calls need a lock of the caller's. No call waits for the driver.
class ImportQueue {
public:
    using Clock = std::chrono::steady_clock;
    /// While a call has taken so long another thread goes on with the rest,
    static constexpr std::chrono::milliseconds kLong{100};
    /// up to so many at once.
    static constexpr std::size_t kThreadsMax = 8;

    /// `time_limit`: for one import, or one end. One that takes longer is given up: stuck_calls() counts it until it
    /// comes back.
    ImportQueue(std::shared_ptr<Driver> driver, std::chrono::milliseconds time_limit);
    ImportQueue(const ImportQueue&) = delete;
    ImportQueue& operator=(const ImportQueue&) = delete;
    /// Imports that have not begun are forgotten; what was dropped ends on a thread that nobody waits for.
    ~ImportQueue();

    [[nodiscard]] std::shared_ptr<ImportTask> start(const HandleBlob& blob, const ImportOptions& options);
    /// Lets the import go, or what has come of it: where that is the last reference it ends on a thread of the queue's.
    void drop(const std::shared_ptr<ImportTask>& task);
    void drop(std::shared_ptr<const ImportedFabricBuffer> buffer);
    /// Sees to it that a thread lives while there is work, and gives up what takes too long.
    void look();
    /// False where not all is done by the deadline.
    [[nodiscard]] bool wait_until_idle(Clock::time_point deadline);

    struct Shared;

private:
    void start_thread();
    // `thread` is none of threads_ itself, which these take it out of.
    void give_up(const std::shared_ptr<ImportThread>& thread);
    void let_end(const std::shared_ptr<ImportThread>& thread);
    void fail_imports(const std::exception_ptr& failure);

    std::shared_ptr<Driver> driver_;
    std::chrono::milliseconds time_limit_;
    std::shared_ptr<Shared> shared_;
    std::vector<std::shared_ptr<ImportThread>> threads_;
};

}  // namespace fabricmem::detail
