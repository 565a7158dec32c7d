// SPDX-License-Identifier: Apache-2.0
#include "handshake/import_queue.hpp"

#include <algorithm>
#include <utility>

#include "buffer/deadline.hpp"
#include "buffer/import.hpp"
#include "driver/driver_state.hpp"
#include "log/log.hpp"

namespace fabricmem::detail {

// What the queue and its thread both see. One of the two pointers is set.
struct ImportWork {
    std::shared_ptr<ImportTask> task;
    std::shared_ptr<const ImportedFabricBuffer> dropped;
};

struct ImportQueue::Shared {
    std::mutex mutex;  // guards what follows
    std::condition_variable changed;
    std::deque<ImportWork> waiting;
    std::shared_ptr<ImportTask> current;
    std::optional<Clock::time_point> began;  // when the thread's work did; none between two
    const ImportThread* thread = nullptr;    // the one that takes work; others have been given up
};

// Takes work until there is none. Given up, it ends after what it is at.
class ImportThread final : public Job {
public:
    ImportThread(std::shared_ptr<Driver> driver, std::shared_ptr<ImportQueue::Shared> shared)
        : Job(driver), driver_(std::move(driver)), shared_(std::move(shared)) {}

    void run() noexcept override {
        try {
            static_cast<void>(DriverState::of(*driver_).identity());  // for the texts, should it come to that
        } catch (const std::exception&) {                             // said by the import itself
        }
        ImportWork work;
        while (next(work)) {
            if (work.task != nullptr) work.task->run(driver_, progress);
            progress.enter(work.dropped != nullptr ? "cuMemRelease" : nullptr);
            work = {};  // what was dropped, and what nobody waits for any more, ends here
            progress.enter(nullptr);
        }
    }
    void clean_up() noexcept override {}

private:
    bool next(ImportWork& work) noexcept {
        const std::lock_guard lock(shared_->mutex);
        if (shared_->thread != this) return false;
        shared_->current.reset();
        shared_->began.reset();
        if (shared_->waiting.empty()) {
            shared_->thread = nullptr;
            shared_->changed.notify_all();
            return false;
        }
        work = std::move(shared_->waiting.front());
        shared_->waiting.pop_front();
        shared_->current = work.task;
        shared_->began = ImportQueue::Clock::now();
        return true;
    }

    std::shared_ptr<Driver> driver_;
    std::shared_ptr<ImportQueue::Shared> shared_;
};

bool ImportTask::done() const {
    const std::lock_guard lock(mutex_);
    return done_;
}

std::shared_ptr<const ImportedFabricBuffer> ImportTask::take() {
    const std::lock_guard lock(mutex_);
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    return std::move(buffer_);
}

void ImportTask::run(const std::shared_ptr<Driver>& driver, Progress& progress) noexcept {
    std::shared_ptr<const ImportedFabricBuffer> made;
    std::exception_ptr failure;
    try {
        check_blob(blob_);
        check_driver(driver);
        made.reset(new ImportedFabricBuffer(import(driver, blob_, options_, &progress)));
    } catch (...) {
        failure = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    if (done_) return;  // given up: what was made ends with this call, on this thread
    done_ = true;
    buffer_ = std::move(made);
    failure_ = failure;
}

ImportQueue::ImportQueue(std::shared_ptr<Driver> driver, std::chrono::milliseconds time_limit)
    : driver_(std::move(driver)), time_limit_(time_limit), shared_(std::make_shared<Shared>()) {
    check_timeout(time_limit);
}

ImportQueue::~ImportQueue() {
    std::deque<ImportWork> waiting;  // dies after the lock
    {
        const std::lock_guard lock(shared_->mutex);
        waiting.swap(shared_->waiting);
    }
    bool at_work = false;
    {
        const std::lock_guard lock(shared_->mutex);
        at_work = shared_->thread != nullptr && shared_->began.has_value();
        shared_->thread = nullptr;  // no more work for it
    }
    if (thread_ == nullptr) return;
    if (at_work) {
        give_up_thread();
    } else {
        let_thread_end();
    }
}

std::shared_ptr<ImportTask> ImportQueue::start(const HandleBlob& blob, const ImportOptions& options) {
    std::shared_ptr<ImportTask> task(new ImportTask(blob, options));
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->waiting.push_back({task, nullptr});
    }
    look();
    return task;
}

void ImportQueue::drop(std::shared_ptr<const ImportedFabricBuffer> buffer) {
    if (buffer == nullptr) return;
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->waiting.push_back({nullptr, std::move(buffer)});
    }
    look();
}

void ImportQueue::look() {
    bool begin = false;
    bool too_long = false;
    {
        const std::lock_guard lock(shared_->mutex);
        too_long =
            shared_->thread != nullptr && shared_->began.has_value() && Clock::now() - *shared_->began > time_limit_;
        begin = too_long || (shared_->thread == nullptr && !shared_->waiting.empty());
        begin = begin && !shared_->waiting.empty();
    }
    if (too_long) give_up_thread();
    if (begin) start_thread();
}

void ImportQueue::start_thread() {
    if (thread_ != nullptr) let_thread_end();
    thread_ = std::make_shared<ImportThread>(driver_, shared_);
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->thread = thread_.get();
    }
    try {
        DriverState::of(*driver_).workers().begin(thread_);
    } catch (...) {
        thread_.reset();
        const std::lock_guard lock(shared_->mutex);
        shared_->thread = nullptr;
        // Nobody does it now: the imports fail with that, and what was dropped waits for the next thread.
        std::deque<ImportWork> kept;
        for (ImportWork& work : shared_->waiting) {
            if (work.task == nullptr) {
                kept.push_back(std::move(work));
                continue;
            }
            const std::lock_guard task_lock(work.task->mutex_);
            work.task->done_ = true;
            work.task->failure_ = std::current_exception();
        }
        shared_->waiting = std::move(kept);
    }
}

// It is past its work, so this takes no longer than a thread does to run: the driver must not be let go there, where
// nobody waits for it.
void ImportQueue::let_thread_end() {
    Workers& workers = DriverState::of(*driver_).workers();
    if (workers.wait(thread_, Clock::now() + std::chrono::seconds(10)) == Ended::no)
        static_cast<void>(workers.give_up(thread_));
    thread_.reset();
}

void ImportQueue::give_up_thread() {
    std::shared_ptr<ImportTask> late;
    const char* const call = thread_->progress.call();
    {
        const std::lock_guard lock(shared_->mutex);
        late = std::move(shared_->current);
        shared_->thread = nullptr;
        shared_->began.reset();
        shared_->changed.notify_all();
    }
    static_cast<void>(DriverState::of(*driver_).workers().give_up(thread_));
    thread_.reset();
    if (late == nullptr) return;
    const Error error = import_timed_out(*driver_, late->blob_, call, time_limit_);
    const std::lock_guard lock(late->mutex_);
    if (late->done_) return;
    late->done_ = true;
    late->failure_ = std::make_exception_ptr(error);
}

bool ImportQueue::wait_until_idle(Clock::time_point deadline) {
    look();
    std::unique_lock lock(shared_->mutex);
    const auto idle = [&] { return shared_->thread == nullptr && shared_->waiting.empty(); };
    while (!idle()) {
        const auto limit = shared_->began.has_value() ? std::min(deadline, *shared_->began + time_limit_) : deadline;
        if (shared_->changed.wait_until(lock, limit, idle)) break;
        if (Clock::now() >= deadline) return false;
        lock.unlock();
        look();
        lock.lock();
    }
    return true;
}

}  // namespace fabricmem::detail
