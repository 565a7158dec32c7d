// SPDX-License-Identifier: Apache-2.0
// Imports, and their ends, on a thread of their own: who asks for them looks now and then whether they are done. One
// after the other, since the driver makes them no faster side by side (docs/driver-notes.md).
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>

#include <fabricmem/fabric_buffer.hpp>

#include "worker/workers.hpp"

namespace fabricmem::detail {

/// One import. Made by ImportQueue::start(), and looked at by the thread that did.
class ImportTask {
public:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] bool done() const;
    /// What came of it, once; done() only. Throws what the import threw.
    [[nodiscard]] std::shared_ptr<const ImportedFabricBuffer> take();

private:
    friend class ImportQueue;
    friend class ImportThread;
    ImportTask(const HandleBlob& blob, const ImportOptions& options) : blob_(blob), options_(options) {}
    void run(const std::shared_ptr<Driver>& driver, Progress& progress) noexcept;

    HandleBlob blob_;
    ImportOptions options_;
    mutable std::mutex mutex_;  // guards what follows
    bool done_ = false;
    std::shared_ptr<const ImportedFabricBuffer> buffer_;
    std::exception_ptr failure_;
};

/// Threads: one that asks; calls need a lock of the caller's. The end of the queue waits for nothing: what is not done
/// then is given up.
class ImportQueue {
public:
    using Clock = std::chrono::steady_clock;

    /// `time_limit`: for one import, or one end. One that takes longer is given up (stuck_calls() counts it), and the
    /// next ones go on in another thread.
    ImportQueue(std::shared_ptr<Driver> driver, std::chrono::milliseconds time_limit);
    ImportQueue(const ImportQueue&) = delete;
    ImportQueue& operator=(const ImportQueue&) = delete;
    ~ImportQueue();

    [[nodiscard]] std::shared_ptr<ImportTask> start(const HandleBlob& blob, const ImportOptions& options);
    /// Lets the reference go there: where it is the last, the import ends on that thread.
    void drop(std::shared_ptr<const ImportedFabricBuffer> buffer);
    /// Sees to it that the thread lives while there is work, and gives up what takes too long.
    void look();
    /// False where not all is done by the deadline.
    [[nodiscard]] bool wait_until_idle(Clock::time_point deadline);

    struct Shared;

private:
    void start_thread();
    void give_up_thread();
    void let_thread_end();

    std::shared_ptr<Driver> driver_;
    std::chrono::milliseconds time_limit_;
    std::shared_ptr<Shared> shared_;
    std::shared_ptr<class ImportThread> thread_;
};

}  // namespace fabricmem::detail
