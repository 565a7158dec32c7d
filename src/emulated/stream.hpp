// SPDX-License-Identifier: Apache-2.0
// A stream and the work that waits on it. Guarded by the StreamEngine's lock.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <cuda.h>

#include "emulated/address_space.hpp"
#include "emulated/context.hpp"

namespace fabricmem::detail::emulated {

struct Stream;

/// When a stream has come so far. An event names its latest one.
struct Mark {
    std::shared_ptr<Stream> stream;
    std::uint64_t ticket = 0;                    ///< what the stream has to complete; 0: it had when this was made
    std::chrono::steady_clock::time_point at{};  ///< written before it is completed
};

struct Event {
    Context* context;
    unsigned int flags;          ///< CUevent_flags
    std::shared_ptr<Mark> mark;  ///< null: never recorded
};

/// One piece of work, by address: what is behind the address is looked up when the work is done, as on a GPU.
struct Work {
    enum class Kind : std::uint8_t { copy, set, write, wait, mark, pass };
    Kind kind = Kind::copy;
    std::uintptr_t destination = 0;
    std::uintptr_t source = 0;
    std::size_t bytes = 0;  ///< of a write or a wait: the word's 4 or 8
    std::uint64_t value = 0;
    unsigned int flags = 0;
    unsigned int width = 1;      ///< of a set: the bytes of `value` that are repeated, 1, 2 or 4
    std::shared_ptr<Mark> mark;  ///< of a mark; a pass does nothing, it has waited for what stood before it
    int device = 0;
    // What was the driver's memory when the work was queued is no plain host memory later, when it has been freed.
    Outside destination_outside = Outside::host_memory;
    Outside source_outside = Outside::host_memory;
};

struct Stream {
    enum class Kind : std::uint8_t { legacy_default, blocking, non_blocking };

    Stream(Context& owner, Kind stream_kind) : context(&owner), kind(stream_kind) {}

    [[nodiscard]] bool idle() const noexcept { return submitted == completed; }

    struct Queued {
        Work work;
        /// Streams that have to come as far as this first: the NULL stream and the blocking ones wait for each other.
        std::vector<std::pair<std::shared_ptr<Stream>, std::uint64_t>> after;
    };
    struct Capture {  // what is captured is counted, not kept: no graph is ever launched here
        bool on = false;
        CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
        std::thread::id thread;
        std::size_t recorded = 0;
    };

    Context* context;
    Kind kind;
    int priority = 0;
    std::uint64_t submitted = 0;
    std::uint64_t completed = 0;
    std::deque<Queued> queue;  ///< not yet begun; submitted - completed - queue.size() is being done right now
    Capture capture;
};

}  // namespace fabricmem::detail::emulated
