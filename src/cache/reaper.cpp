// SPDX-License-Identifier: Apache-2.0
#include "cache/reaper.hpp"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <optional>
#include <utility>

#include "buffer/buffer_parts.hpp"
#include "buffer/deadline.hpp"
#include "driver/driver_state.hpp"
#include "log/log.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::chrono::milliseconds kLookAgain{100};
constexpr std::chrono::milliseconds kLongestLimit = std::chrono::hours(24 * 365);

}  // namespace

// What the reaper and its threads see; lives as long as one of them.
struct Reaper::Shared {
    std::mutex mutex;  // guards what follows, and the threads' own state
    std::condition_variable changed;
    ImportList waiting;
    Backlog backlog;  // those that threads are at, too
};

class Reaper::Thread final : public Job {
public:
    Thread(const std::shared_ptr<Driver>& driver, std::shared_ptr<Shared> shared)
        : Job(driver), book_(DriverState::of(*driver).caches), shared_(std::move(shared)) {}

    void run() noexcept override {
        while (std::unique_ptr<CachedImport> import = next()) {
            const std::uint64_t bytes = import->buffer.mapped_bytes();
            BufferParts::of(import->buffer).progress = &progress;
            const bool of_other_node = import->of_other_node;
            import.reset();
            progress.enter(nullptr);
            const std::lock_guard lock(shared_->mutex);
            --shared_->backlog.imports;
            shared_->backlog.bytes -= bytes;
            shared_->backlog.of_other_nodes -= std::uint64_t{of_other_node};
            book_.take_from_backlog(1, bytes);
            shared_->changed.notify_all();
        }
    }
    void clean_up() noexcept override {}

    // Under Shared::mutex:
    std::optional<std::chrono::steady_clock::time_point> began;  // what it is at
    bool retired = false;                                        // it takes no more
    bool ended = false;

private:
    std::unique_ptr<CachedImport> next() noexcept {
        const std::lock_guard lock(shared_->mutex);
        std::unique_ptr<CachedImport> import;
        if (!retired) import = shared_->waiting.pop();
        began = std::chrono::steady_clock::now();
        ended = import == nullptr;
        if (ended) shared_->changed.notify_all();
        return import;
    }

    CacheBook& book_;  // the driver's, which the job keeps
    std::shared_ptr<Shared> shared_;
};

Reaper::Reaper(std::shared_ptr<Driver> driver, std::chrono::milliseconds limit)
    : driver_(std::move(driver)), limit_(std::min(limit, kLongestLimit)), shared_(std::make_shared<Shared>()) {
    static_cast<void>(DriverState::of(*driver_).workers());  // made now: an end must not need memory
}

Reaper::~Reaper() {
    look();
    bool more = false;
    bool ended = false;
    {
        const std::lock_guard lock(shared_->mutex);
        more = !shared_->waiting.empty();
        ended = thread_ == nullptr || thread_->ended;
    }
    Workers& workers = DriverState::of(*driver_).workers();
    if (!ended) {
        static_cast<void>(workers.give_up(thread_));  // goes on alone
        return;
    }
    end_thread();
    if (!more) return;
    try {
        workers.leave(std::make_shared<Thread>(driver_, shared_));
    } catch (const std::bad_alloc&) {
        // The imports end here, with `shared_`.
        DriverState::of(*driver_).caches.take_from_backlog(shared_->backlog.imports, shared_->backlog.bytes);
    }
}

void Reaper::add(ImportList& imports) noexcept {
    if (imports.empty()) return;
    {
        const std::lock_guard lock(shared_->mutex);
        while (std::unique_ptr<CachedImport> import = imports.pop()) {
            const std::uint64_t bytes = import->buffer.mapped_bytes();
            import->of_other_node = !on_one_node(*driver_, BufferParts::of(import->buffer).blob);
            ++shared_->backlog.imports;
            shared_->backlog.bytes += bytes;
            shared_->backlog.of_other_nodes += std::uint64_t{import->of_other_node};
            DriverState::of(*driver_).caches.add_to_backlog(1, bytes);
            shared_->waiting.push(std::move(import));
        }
    }
    look();
}

void Reaper::end_thread() noexcept {
    if (thread_ == nullptr) return;
    DriverState::of(*driver_).workers().let_end(thread_);
    thread_ = nullptr;
}

void Reaper::look() noexcept {
    const DeferredLog after_the_lock;
    const std::lock_guard turn(turn_);
    bool more = false;
    bool ended = false;
    bool late = false;
    {
        const std::lock_guard lock(shared_->mutex);
        more = !shared_->waiting.empty();
        ended = thread_ != nullptr && thread_->ended;
        late = thread_ != nullptr && !ended && thread_->began.has_value() &&
               std::chrono::steady_clock::now() - *thread_->began > limit_;
        if (late) thread_->retired = true;
    }
    if (late) {
        const char* const call = thread_->progress.call();
        static_cast<void>(DriverState::of(*driver_).workers().give_up(thread_));
        thread_ = nullptr;
        log(LogLevel::error, "the tear-down of a cached import is given up: {} has not returned within {} ms",
            call == nullptr ? "it" : call, limit_.count());
    }
    if (ended) end_thread();
    stalled_ = nullptr;
    if (!more || thread_ != nullptr) return;
    try {
        auto thread = std::make_shared<Thread>(driver_, shared_);
        DriverState::of(*driver_).workers().begin(thread);
        thread_ = std::move(thread);
    } catch (const std::exception& error) {
        stalled_ = std::current_exception();
        log(LogLevel::warning, "cached imports that are to end have to wait: {}", error.what());
    }
}

Reaper::Backlog Reaper::backlog() const noexcept {
    const std::lock_guard lock(shared_->mutex);
    return shared_->backlog;
}

std::exception_ptr Reaper::stalled() noexcept {
    look();
    const std::lock_guard turn(turn_);
    return stalled_;
}

bool Reaper::wait_until_idle(std::chrono::steady_clock::time_point deadline) noexcept {
    for (;;) {
        look();
        std::unique_lock lock(shared_->mutex);
        const auto idle = [&] { return shared_->backlog.imports == 0; };
        // In between a thread may have to be given up, or another one to be started.
        const auto soon = std::min(deadline, std::chrono::steady_clock::now() + std::min(kLookAgain, limit_));
        if (shared_->changed.wait_until(lock, soon, idle)) break;
        if (std::chrono::steady_clock::now() >= deadline) return false;
    }
    look();
    return true;
}

}  // namespace fabricmem::detail
