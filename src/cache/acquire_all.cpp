// SPDX-License-Identifier: Apache-2.0
#include "cache/acquire_all.hpp"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "cache/cache_core.hpp"
#include "platform/signals_blocked.hpp"

namespace fabricmem::detail {
namespace {

// While nothing has come for so long another thread goes on with the rest,
constexpr std::chrono::milliseconds kLongAcquire{100};
// up to so many at once.
constexpr std::size_t kAcquirersMost = 8;

// Those that were not found at once.
class AcquireBatch {
public:
    AcquireBatch(CacheCore& core, std::span<const HandleBlob> blobs, const AcquireOptions& options,
                 std::vector<AcquireResult>& results, std::vector<std::size_t> missing)
        : core_(core), blobs_(blobs), options_(options), results_(results), missing_(std::move(missing)) {}

    // Throws what is no Error of one acquire alone.
    void run() {
        if (missing_.size() == 1) {
            work();
        } else {
            run_in_threads();
        }
        if (failure_ != nullptr) std::rethrow_exception(failure_);
    }

private:
    void run_in_threads() {
        std::vector<std::jthread> threads;
        threads.reserve(kAcquirersMost);
        std::unique_lock lock(mutex_);
        while (done_ < missing_.size()) {
            if (next_ < missing_.size() && threads.size() < kAcquirersMost) {
                lock.unlock();
                if (!start_one(threads) && threads.empty()) work();
                lock.lock();
            }
            while (done_ < missing_.size()) {
                const std::size_t seen = done_;
                const auto moved = [&] { return done_ != seen; };
                if (!changed_.wait_until(lock, std::chrono::steady_clock::now() + kLongAcquire, moved)) break;
            }
        }
    }

    bool start_one(std::vector<std::jthread>& threads) {
        try {
            const SignalsBlocked blocked;
            threads.emplace_back([this] { work(); });
            return true;
        } catch (const std::system_error&) {  // no thread: those that there are do it, or the caller's
            return false;
        }
    }

    void work() noexcept {
        std::unique_lock lock(mutex_);
        while (next_ < missing_.size()) {
            const std::size_t index = missing_[next_++];
            lock.unlock();
            acquire_one(index);
            lock.lock();
            ++done_;
            changed_.notify_all();
        }
    }

    void acquire_one(std::size_t index) noexcept {
        try {
            results_[index].view = core_.acquire(blobs_[index], options_);
        } catch (const Error& error) {
            results_[index].error = error;
        } catch (...) {
            const std::lock_guard lock(mutex_);
            failure_ = std::current_exception();
        }
    }

    CacheCore& core_;
    std::span<const HandleBlob> blobs_;
    const AcquireOptions& options_;
    std::vector<AcquireResult>& results_;  // each written by the thread that took it
    const std::vector<std::size_t> missing_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    std::size_t next_ = 0;
    std::size_t done_ = 0;
    std::exception_ptr failure_;
};

}  // namespace

std::vector<AcquireResult> acquire_all(CacheCore& core, std::span<const HandleBlob> blobs,
                                       const AcquireOptions& options) {
    std::vector<AcquireResult> results(blobs.size());
    std::vector<std::size_t> missing;
    for (std::size_t i = 0; i < blobs.size(); ++i) {
        results[i].view = core.find(blobs[i], options);
        if (!results[i].view.is_open()) missing.push_back(i);
    }
    if (!missing.empty()) AcquireBatch(core, blobs, options, results, std::move(missing)).run();
    return results;
}

}  // namespace fabricmem::detail
