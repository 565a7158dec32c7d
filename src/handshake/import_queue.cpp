// SPDX-License-Identifier: Apache-2.0
#include "handshake/import_queue.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <optional>
#include <utility>

#include "buffer/deadline.hpp"
#include "buffer/import.hpp"
#include "driver/driver_state.hpp"
#include "log/log.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::chrono::milliseconds kLongestLimit = std::chrono::hours(24 * 365);

}  // namespace

// What a thread is at. Both null: nothing.
struct ImportWork {
    std::shared_ptr<ImportTask> task;
    std::shared_ptr<const ImportedFabricBuffer> dropped;
};

// What the queue and its threads see.
struct ImportQueue::Shared {
    std::mutex mutex;  // guards what follows, and the threads' own state
    std::condition_variable changed;
    std::deque<std::shared_ptr<ImportTask>> imports;  // before the others: peers wait for them
    std::deque<std::shared_ptr<const ImportedFabricBuffer>> dropped;

    [[nodiscard]] bool has_work() const noexcept { return !imports.empty() || !dropped.empty(); }
};

// Takes work until there is none. Given up, it ends after what it is at.
class ImportThread final : public Job {
public:
    ImportThread(std::shared_ptr<Driver> driver, std::shared_ptr<ImportQueue::Shared> shared)
        : Job(driver), driver_(std::move(driver)), shared_(std::move(shared)) {}

    void run() noexcept override {
        for (ImportWork work = next(); work.task != nullptr || work.dropped != nullptr; work = next()) {
            if (work.task != nullptr) work.task->run(driver_, progress);
            if (work.dropped != nullptr) progress.enter("cuMemRelease");
            work = {};  // what was dropped, and what nobody waits for any more, ends here, under no lock
            progress.enter(nullptr);
        }
    }
    void clean_up() noexcept override {}

    // Under Shared::mutex:
    std::weak_ptr<ImportTask> current;
    std::optional<ImportQueue::Clock::time_point> began;
    bool retired = false;  // it takes no more work
    bool ended = false;

private:
    ImportWork next() noexcept {
        const std::lock_guard lock(shared_->mutex);
        ImportWork work;
        current.reset();
        began.reset();
        if (!retired && !shared_->imports.empty()) {
            work.task = std::move(shared_->imports.front());
            shared_->imports.pop_front();
        } else if (!retired && !shared_->dropped.empty()) {
            work.dropped = std::move(shared_->dropped.front());
            shared_->dropped.pop_front();
        } else {
            ended = true;
            shared_->changed.notify_all();
            return work;
        }
        current = work.task;
        began = ImportQueue::Clock::now();
        return work;
    }

    std::shared_ptr<Driver> driver_;
    std::shared_ptr<ImportQueue::Shared> shared_;
};

bool ImportTask::done() const {
    const std::lock_guard lock(mutex_);
    return done_;
}

bool ImportTask::returned() const {
    const std::lock_guard lock(mutex_);
    return returned_;
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
        {
            const std::lock_guard lock(mutex_);
            returned_ = done_;
            if (done_) return;  // nobody wants it
        }
        made = std::make_shared<const ImportedFabricBuffer>(ImportHere::make(driver, blob_, options_, progress));
    } catch (...) {
        failure = std::current_exception();
    }
    {
        const std::lock_guard lock(mutex_);
        if (!done_) {
            done_ = returned_ = true;
            buffer_ = std::move(made);
            failure_ = failure;
            return;
        }
    }
    made.reset();  // given up: what was made ends here
    const std::lock_guard lock(mutex_);
    returned_ = true;
}

void ImportTask::fail(std::exception_ptr failure) noexcept {
    const std::lock_guard lock(mutex_);
    if (done_) return;  // it has come in this very moment, and is had
    done_ = true;
    failure_ = std::move(failure);
}

std::shared_ptr<const ImportedFabricBuffer> ImportTask::forget() noexcept {
    const std::lock_guard lock(mutex_);
    done_ = true;
    return std::move(buffer_);
}

ImportQueue::ImportQueue(std::shared_ptr<Driver> driver, std::chrono::milliseconds time_limit)
    : driver_(std::move(driver)),
      time_limit_(std::min(time_limit, kLongestLimit)),
      shared_(std::make_shared<Shared>()) {
    check_timeout(time_limit);
}

ImportQueue::~ImportQueue() {
    std::deque<std::shared_ptr<ImportTask>> forgotten;
    bool more = false;
    {
        const std::lock_guard lock(shared_->mutex);
        forgotten.swap(shared_->imports);
        more = shared_->has_work();
    }
    // A thread that is there goes on with what was dropped, as one that nobody waits for.
    if (more && threads_.empty()) start_thread();
    const std::vector<std::shared_ptr<ImportThread>> threads = std::move(threads_);
    for (const std::shared_ptr<ImportThread>& thread : threads) {
        bool idle = false;
        {
            const std::lock_guard lock(shared_->mutex);
            idle = thread->ended;
        }
        if (idle) {
            let_end(thread);
        } else {
            static_cast<void>(DriverState::of(*driver_).workers().give_up(thread));
        }
    }
}

std::shared_ptr<ImportTask> ImportQueue::start(const HandleBlob& blob, const ImportOptions& options) {
    std::shared_ptr<ImportTask> task(new ImportTask(blob, options));
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->imports.push_back(task);
    }
    look();
    return task;
}

void ImportQueue::drop(const std::shared_ptr<ImportTask>& task) {
    if (task != nullptr) drop(task->forget());
}

void ImportQueue::drop(std::shared_ptr<const ImportedFabricBuffer> buffer) {
    if (buffer == nullptr) return;
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->dropped.push_back(std::move(buffer));
    }
    look();
}

void ImportQueue::look() {
    std::vector<std::shared_ptr<ImportThread>> over, late;
    bool more = false;
    {
        const auto now = Clock::now();
        const std::lock_guard lock(shared_->mutex);
        bool all_long = true;
        for (const std::shared_ptr<ImportThread>& thread : threads_) {
            if (thread->ended) {
                over.push_back(thread);
            } else if (thread->began.has_value() && now - *thread->began > time_limit_) {
                thread->retired = true;
                late.push_back(thread);
            } else if (!thread->began.has_value() || now - *thread->began < kLong) {
                all_long = false;
            }
        }
        more = shared_->has_work() && all_long;
    }
    for (const auto& thread : over) let_end(thread);
    for (const auto& thread : late) give_up(thread);
    if (more && threads_.size() < kThreadsMax) start_thread();
}

void ImportQueue::start_thread() {
    threads_.push_back(std::make_shared<ImportThread>(driver_, shared_));
    try {
        DriverState::of(*driver_).workers().begin(threads_.back());
    } catch (...) {
        threads_.pop_back();
        // Nobody does it now: what was dropped waits for the next thread.
        if (threads_.empty()) fail_imports(std::current_exception());
    }
}

void ImportQueue::fail_imports(const std::exception_ptr& failure) {
    std::deque<std::shared_ptr<ImportTask>> failed;
    {
        const std::lock_guard lock(shared_->mutex);
        failed.swap(shared_->imports);
    }
    for (const std::shared_ptr<ImportTask>& task : failed) {
        task->fail(failure);
        const std::lock_guard lock(task->mutex_);
        task->returned_ = true;
    }
}

void ImportQueue::let_end(const std::shared_ptr<ImportThread>& thread) {
    DriverState::of(*driver_).workers().let_end(thread);
    threads_.erase(std::remove(threads_.begin(), threads_.end(), thread), threads_.end());
}

void ImportQueue::give_up(const std::shared_ptr<ImportThread>& thread) {
    const char* const call = thread->progress.call();
    std::shared_ptr<ImportTask> task;
    {
        const std::lock_guard lock(shared_->mutex);
        task = thread->current.lock();
        shared_->changed.notify_all();
    }
    static_cast<void>(DriverState::of(*driver_).workers().give_up(thread));
    threads_.erase(std::remove(threads_.begin(), threads_.end(), thread), threads_.end());
    if (task == nullptr) return;
    task->fail(std::make_exception_ptr(import_timed_out(*driver_, task->blob_, call, time_limit_)));
}

bool ImportQueue::wait_until_idle(Clock::time_point deadline) {
    for (;;) {
        look();
        std::unique_lock lock(shared_->mutex);
        const auto idle = [&] {
            return !shared_->has_work() &&
                   std::all_of(threads_.begin(), threads_.end(), [](const auto& thread) { return thread->ended; });
        };
        if (idle()) break;
        // In between another thread may be wanted.
        const auto soon = std::min(deadline, Clock::now() + kLong);
        if (shared_->changed.wait_until(lock, soon, idle)) break;
        if (Clock::now() >= deadline) return false;
    }
    look();
    return true;
}

}  // namespace fabricmem::detail
