// SPDX-License-Identifier: Apache-2.0
#include "cache/acquire_all.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "buffer/deadline.hpp"
#include "buffer/import.hpp"
#include "cache/cache_core.hpp"
#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {
namespace {

using Clock = CacheCore::Clock;
using Lock = std::unique_lock<std::mutex>;

// While one import has taken so long another thread goes on with the rest,
constexpr std::chrono::milliseconds kLongImport{100};
// up to so many at once.
constexpr std::size_t kImportersMost = 8;

constexpr std::chrono::milliseconds kLongestLimit = std::chrono::hours(24 * 365);

class Importer;

// The caller's thread finds what is there, and a blob of each allocation that is not. One thread imports those, one
// after the other, since each import in a thread of its own costs twice as much; the caller looks after it, and tells
// what it gives up. Then the caller finds the other blobs of those allocations.
class AcquireBatch {
public:
    AcquireBatch(CacheCore& core, std::span<const HandleBlob> blobs, const AcquireOptions& options,
                 std::vector<AcquireResult>& results)
        : core_(core), blobs_(blobs), options_(options), results_(results) {
        importers_.reserve(kImportersMost);
    }

    // Throws what is no Error of one acquire alone.
    void run();

private:
    friend class Importer;
    struct Own {
        std::size_t index = 0;
        std::shared_ptr<CacheCore::Pending> pending{};
    };
    struct Failed {
        std::size_t index = 0;
        std::exception_ptr failure{};
    };
    struct KeyHash {
        std::size_t operator()(const CacheKey& key) const noexcept { return key.hash(); }
    };

    // While nobody imports:
    /// Fills `missing_`. Returns those that are to be taken up again once that is imported.
    [[nodiscard]] std::vector<std::size_t> take_up(const std::vector<std::size_t>& indices);
    [[nodiscard]] bool is_sound(std::size_t index) noexcept;
    [[nodiscard]] std::exception_ptr known_failure(const CacheKey& key, const HandleBlob& blob) const noexcept;
    void import_missing();
    void end_importers() noexcept;
    void wait_for_others() noexcept;

    void set_error(std::size_t index, const std::exception_ptr& failure) noexcept;
    void note_failure(std::size_t index, const std::exception_ptr& failure) noexcept;

    // Under the lock:
    [[nodiscard]] bool is_over() const noexcept { return left_ == 0; }
    [[nodiscard]] std::optional<Own> begin_next() noexcept;
    void finish(const Own& own, std::unique_ptr<CachedImport> made, const std::exception_ptr& failure) noexcept;
    void look_after_importers(Lock& lock);
    void give_up_late(Clock::time_point now) noexcept;
    [[nodiscard]] bool wants_importer(Clock::time_point now) const noexcept;
    [[nodiscard]] Clock::time_point next_look(Clock::time_point now) const noexcept;
    void fail_rest(const std::exception_ptr& failure) noexcept;

    void start_importer(Lock& lock);

    // An importer that is retired does not touch it any more.
    CacheCore& core_;
    std::chrono::milliseconds limit_ = std::min(core_.import_options().timeout, kLongestLimit);
    std::span<const HandleBlob> blobs_;
    const AcquireOptions& options_;
    std::vector<AcquireResult>& results_;
    std::vector<std::size_t> missing_;  // of an allocation each
    std::vector<Own> others_;           // what other threads import
    std::map<CacheKey, Failed> failed_;
    std::vector<std::shared_ptr<Importer>> importers_;
    std::size_t next_ = 0;
    std::size_t left_ = 0;  // of the missing ones
    std::exception_ptr failure_;

    // Outlives the batch with its importers; guards all above.
    struct Shared {
        std::mutex mutex;
        std::condition_variable changed;
    };
    std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

class Importer final : public Job {
public:
    Importer(AcquireBatch& batch, std::shared_ptr<Driver> driver, const ImportOptions& options)
        : Job(driver), driver_(std::move(driver)), options_(options), batch_(batch), shared_(batch.shared_) {}

    void run() noexcept override {
        std::unique_ptr<CachedImport> made;
        std::exception_ptr failure;
        while (const std::optional<HandleBlob> blob = next(made, failure)) {
            failure = nullptr;
            try {
                made = std::make_unique<CachedImport>(ImportHere::make(driver_, *blob, options_, progress));
            } catch (...) {
                failure = std::current_exception();
            }
            progress.enter(nullptr);
        }
        drop(std::move(made));
    }
    void clean_up() noexcept override {}

    // Under Shared::mutex:
    std::optional<AcquireBatch::Own> current;
    Clock::time_point began = Clock::now();
    bool retired = false;  // there may be no batch any more

private:
    // Hands over what was made, or why not, and takes the next one. Null: there is none, or this is given up.
    std::optional<HandleBlob> next(std::unique_ptr<CachedImport>& made, const std::exception_ptr& failure) noexcept {
        const DeferredLog after_the_lock;  // a sink may wait for the caller's thread, and that waits for the lock
        const Lock lock(shared_->mutex);
        if (retired) return std::nullopt;
        if (current.has_value()) batch_.finish(*current, std::move(made), failure);
        current = batch_.begin_next();
        began = Clock::now();
        if (current.has_value()) return batch_.blobs_[current->index];
        shared_->changed.notify_all();
        return std::nullopt;
    }
    static void drop(std::unique_ptr<CachedImport> made) noexcept {
        if (made == nullptr) return;
        const std::uint64_t bytes = made->buffer.mapped_bytes();
        made.reset();
        log(LogLevel::info, "an import of {} bytes, which had been given up, came and is released", bytes);
    }

    std::shared_ptr<Driver> driver_;
    ImportOptions options_;
    AcquireBatch& batch_;
    std::shared_ptr<AcquireBatch::Shared> shared_;
};

void AcquireBatch::run() {
    std::vector<std::size_t> indices(blobs_.size());
    std::iota(indices.begin(), indices.end(), std::size_t{0});
    for (bool first = true;; first = false) {
        indices = take_up(indices);
        if (missing_.empty()) break;  // and so nothing is left
        if (first) static_cast<void>(core_.collect(Clock::now()));
        import_missing();
    }
    if (failure_ != nullptr) std::rethrow_exception(failure_);
}

std::vector<std::size_t> AcquireBatch::take_up(const std::vector<std::size_t>& indices) {
    missing_.clear();
    others_.clear();
    next_ = 0;
    std::unordered_set<CacheKey, KeyHash> allocations;
    std::vector<std::size_t> again;
    for (const std::size_t index : indices) {
        const HandleBlob& blob = blobs_[index];
        results_[index].view = core_.find(blob, options_);
        if (results_[index].view.is_open()) continue;
        const CacheKey key(blob);
        if (allocations.contains(key)) {
            again.push_back(index);
        } else if (const std::exception_ptr failure = known_failure(key, blob)) {
            set_error(index, failure);
        } else if (is_sound(index)) {
            allocations.insert(key);
            missing_.push_back(index);
        }
    }
    left_ = missing_.size();
    others_.reserve(left_);
    return again;
}

// One that is not is no failure of its allocation's.
bool AcquireBatch::is_sound(std::size_t index) noexcept {
    try {
        CacheCore::check(blobs_[index], options_);
        return true;
    } catch (...) {
        set_error(index, std::current_exception());
        return false;
    }
}

std::exception_ptr AcquireBatch::known_failure(const CacheKey& key, const HandleBlob& blob) const noexcept {
    const auto found = failed_.find(key);
    if (found == failed_.end()) return nullptr;
    const HandleBlob& failed = blobs_[found->second.index];
    // Else the driver may say something else of it.
    const bool same = failed.handle == blob.handle && failed.mapped_bytes == blob.mapped_bytes;
    return same ? found->second.failure : nullptr;
}

void AcquireBatch::import_missing() {
    {
        Lock lock(shared_->mutex);
        while (!is_over()) look_after_importers(lock);
    }
    end_importers();
    wait_for_others();
}

void AcquireBatch::set_error(std::size_t index, const std::exception_ptr& failure) noexcept {
    try {
        std::rethrow_exception(failure);
    } catch (const Error& error) {
        results_[index].error = error;
    } catch (...) {
        failure_ = failure;
    }
}

void AcquireBatch::note_failure(std::size_t index, const std::exception_ptr& failure) noexcept {
    set_error(index, failure);
    try {
        failed_.emplace(CacheKey(blobs_[index]), Failed{index, failure});
    } catch (const std::bad_alloc&) {  // the other blobs of this allocation are tried, then
    }
}

std::optional<AcquireBatch::Own> AcquireBatch::begin_next() noexcept {
    while (next_ < missing_.size()) {
        const std::size_t index = missing_[next_++];
        try {
            CacheCore::Counted counted;
            CacheCore::Begun begun = core_.begin_acquire(blobs_[index], options_, counted);
            if (begun.own) return Own{index, std::move(begun.pending)};
            if (begun.view.is_open()) {
                results_[index].view = std::move(begun.view);
            } else {
                others_.push_back({index, std::move(begun.pending)});
            }
        } catch (...) {
            set_error(index, std::current_exception());
        }
        --left_;
    }
    return std::nullopt;
}

void AcquireBatch::finish(const Own& own, std::unique_ptr<CachedImport> made,
                          const std::exception_ptr& failure) noexcept {
    try {
        results_[own.index].view = core_.finish_import(*own.pending, std::move(made), failure, blobs_[own.index]);
    } catch (...) {
        note_failure(own.index, failure);
    }
    --left_;
}

void AcquireBatch::look_after_importers(Lock& lock) {
    const Clock::time_point now = Clock::now();
    give_up_late(now);
    if (wants_importer(now)) start_importer(lock);
    const auto look_again = next_look(now);
    shared_->changed.wait_until(lock, look_again, [&] { return is_over(); });
}

void AcquireBatch::give_up_late(Clock::time_point now) noexcept {
    for (const std::shared_ptr<Importer>& importer : importers_) {
        if (!importer->current.has_value() || now - importer->began < limit_) continue;
        importer->retired = true;
        const Own own = *importer->current;
        const char* const call = importer->progress.call();
        static_cast<void>(DriverState::of(*core_.driver()).workers().give_up(importer));
        std::exception_ptr failure;
        try {
            failure = std::make_exception_ptr(import_timed_out(*core_.driver(), blobs_[own.index], call, limit_));
        } catch (...) {
            failure = std::current_exception();
        }
        finish(own, nullptr, failure);
    }
    std::erase_if(importers_, [](const auto& importer) { return importer->retired; });
}

bool AcquireBatch::wants_importer(Clock::time_point now) const noexcept {
    return next_ < missing_.size() && importers_.size() < kImportersMost &&
           std::all_of(importers_.begin(), importers_.end(),
                       [&](const auto& importer) { return now - importer->began >= kLongImport; });
}

Clock::time_point AcquireBatch::next_look(Clock::time_point now) const noexcept {
    Clock::time_point next = now + kLongImport;
    for (const std::shared_ptr<Importer>& importer : importers_) {
        if (!importer->current.has_value()) continue;
        next = std::min(next, importer->began + limit_);
        if (now - importer->began < kLongImport) next = std::min(next, importer->began + kLongImport);
    }
    return next;
}

void AcquireBatch::start_importer(Lock& lock) {
    std::exception_ptr failure;
    lock.unlock();
    try {
        auto importer = std::make_shared<Importer>(*this, core_.driver(), core_.import_options());
        DriverState::of(*core_.driver()).workers().begin(importer);
        importers_.push_back(std::move(importer));
    } catch (...) {
        failure = std::current_exception();
    }
    lock.lock();
    if (failure != nullptr && importers_.empty()) fail_rest(failure);
}

void AcquireBatch::fail_rest(const std::exception_ptr& failure) noexcept {
    for (; next_ < missing_.size(); --left_) note_failure(missing_[next_++], failure);
}

// All is done, so none of them is at an import.
void AcquireBatch::end_importers() noexcept {
    {
        const Lock lock(shared_->mutex);
        for (const std::shared_ptr<Importer>& importer : importers_) importer->retired = true;
    }
    Workers& workers = DriverState::of(*core_.driver()).workers();
    for (const std::shared_ptr<Importer>& importer : importers_) workers.let_end(importer);
    importers_.clear();
}

void AcquireBatch::wait_for_others() noexcept {
    const Clock::time_point deadline = deadline_after(core_.import_options().timeout);
    for (const Own& other : others_) {
        try {
            core_.wait_for(*other.pending, blobs_[other.index], deadline);
            results_[other.index].view = core_.acquire(blobs_[other.index], options_);
        } catch (...) {
            note_failure(other.index, std::current_exception());
        }
    }
}

}  // namespace

std::vector<AcquireResult> acquire_all(CacheCore& core, std::span<const HandleBlob> blobs,
                                       const AcquireOptions& options) {
    std::vector<AcquireResult> results(blobs.size());
    AcquireBatch(core, blobs, options, results).run();
    return results;
}

}  // namespace fabricmem::detail
