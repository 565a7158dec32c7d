// SPDX-License-Identifier: Apache-2.0
// The thread that does what had to wait: started with the first such work, gone soon after the last.
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>

#include "emulated/guarded.hpp"
#include "emulated/stream_engine.hpp"
#include "log/log.hpp"
#include "platform/signals_blocked.hpp"

namespace fabricmem::detail::emulated {

namespace {

// Long enough that a ping-pong does not start a thread each round, short enough that none is left when it is over.
constexpr std::chrono::milliseconds kLinger{10};

constexpr unsigned int kYields = 200;     // rounds of polling before it sleeps
constexpr long kLongestSleepNs = 50'000;  // what a waiting stream may notice too late

}  // namespace

StreamEngine::~StreamEngine() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    for (const auto& stream : busy_) stream->queue.clear();  // what is queued may name its own stream
}

void StreamEngine::start_thread() {
    if (running_) return;
    // It has said under the lock that it is over, and takes the lock no more.
    if (thread_.joinable()) thread_.join();
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { run(); });
    running_ = true;
}

void StreamEngine::run() noexcept {
    ::pthread_setname_np(::pthread_self(), "fabricmem-emu");  // for those who look at a process's threads
    Lock lock(mutex_);
    unsigned int rounds = 0;
    while (!stop_) {
        switch (step(lock)) {
            case Step::progress: rounds = 0; break;
            case Step::polling: back_off(lock, rounds++); break;
            case Step::blocked:
                rounds = 0;
                changed_.wait(lock);
                break;
            case Step::drained:
                rounds = 0;
                if (changed_.wait_for(lock, kLinger) == std::cv_status::timeout && nothing_queued()) {
                    running_ = false;
                    return;
                }
                break;
        }
    }
    running_ = false;
}

bool StreamEngine::nothing_queued() const noexcept {
    for (const auto& stream : busy_) {
        if (!stream->queue.empty()) return false;
    }
    return true;
}

StreamEngine::Step StreamEngine::step(Lock& lock) {
    Step seen = Step::drained;
    for (std::size_t i = 0; i < busy_.size(); ++i) {
        // Begins one further each time, so that a stream that is fed all the time doesn't starve the others.
        const std::shared_ptr<Stream> stream = busy_[(i + turn_) % busy_.size()];
        if (stream->queue.empty()) continue;
        const Step here = do_first(lock, stream);
        if (here == Step::progress) {
            ++turn_;
            return here;
        }
        if (seen != Step::polling) seen = here;
    }
    return seen;
}

StreamEngine::Step StreamEngine::do_first(Lock& lock, const std::shared_ptr<Stream>& stream) {
    const bool earlier_under_way = stream->submitted - stream->completed != stream->queue.size();
    if (earlier_under_way || !reached(stream->queue.front().after)) return Step::blocked;
    const Work work = stream->queue.front().work;
    CUresult result = CUDA_SUCCESS;
    std::optional<DeferredLog> said;
    if (work.kind == Work::Kind::wait) {
        bool met = false;
        said.emplace();
        result = guarded([&] { return poll(work, &met); });
        if (result == CUDA_SUCCESS && !met) return Step::polling;
        stream->queue.pop_front();
    } else {
        stream->queue.pop_front();
        lock.unlock();
        result = guarded([&] { return execute(work); });
        lock.lock();
    }
    finish(stream);
    if (result != CUDA_SUCCESS) {
        fail(*stream->context, result == kCutOff ? kCutOff : CUDA_ERROR_LAUNCH_FAILED);
        lock.unlock();
        said.reset();
        lock.lock();
    }
    return Step::progress;
}

void StreamEngine::back_off(Lock& lock, unsigned int rounds) noexcept {
    lock.unlock();
    if (rounds < kYields) {
        std::this_thread::yield();
    } else {
        // A GPU polls memory too: other processes and plain stores write it, nobody could wake this thread.
        const long sleep_ns = std::min(kLongestSleepNs, 1'000L * static_cast<long>(rounds - kYields + 1));
        const timespec pause{0, sleep_ns};
        ::nanosleep(&pause, nullptr);
    }
    lock.lock();
}

}  // namespace fabricmem::detail::emulated
