// SPDX-License-Identifier: Apache-2.0
// Does streams' work in order: in the caller's thread where nothing stands before it, else in one thread that exists
// only while something waits.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <cuda.h>

#include "emulated/address_space.hpp"
#include "emulated/context.hpp"
#include "emulated/stream.hpp"

namespace fabricmem::detail::emulated {

class StreamEngine {
public:
    /// What it is given outlives it.
    StreamEngine(AddressSpace& space, std::vector<std::unique_ptr<Context>>& contexts, Membership& fabric);
    StreamEngine(const StreamEngine&) = delete;
    StreamEngine& operator=(const StreamEngine&) = delete;
    /// Abandons what waits and joins the thread.
    ~StreamEngine();

    /// Gives a new context its default stream.
    static void adopt(Context& context);
    [[nodiscard]] CUstream create(Context& context, Stream::Kind kind);
    /// Returns at once; pending work is finished behind the scenes.
    CUresult destroy(CUstream handle);
    /// A context that ends: its streams are gone and their work is abandoned.
    void destroy_all_of(Context& context);
    /// The stream of a handle; `context`'s default stream for the handles that mean it; null for a number that is none.
    [[nodiscard]] std::shared_ptr<Stream> find(CUstream handle, Context* context);

    /// Checks the addresses, then does the work or queues it.
    CUresult submit(const std::shared_ptr<Stream>& stream, const Work& work);
    /// submit() and wait until it is done.
    CUresult submit_and_wait(const std::shared_ptr<Stream>& stream, const Work& work);
    CUresult query(const std::shared_ptr<Stream>& stream);
    CUresult synchronize(const std::shared_ptr<Stream>& stream);
    CUresult synchronize(Context& context);

    [[nodiscard]] CUevent create_event(Context& context, unsigned int flags);
    CUresult destroy_event(CUevent handle);
    CUresult record(const std::shared_ptr<Stream>& stream, CUevent handle);
    /// What the stream is given from here on waits for the event's latest mark.
    CUresult wait_event(const std::shared_ptr<Stream>& stream, CUevent handle);
    CUresult query_event(CUevent handle);
    CUresult synchronize_event(CUevent handle);
    CUresult elapsed(CUevent start, CUevent end, float* milliseconds);

    CUresult begin_capture(const std::shared_ptr<Stream>& stream, CUstreamCaptureMode mode);
    CUresult end_capture(const std::shared_ptr<Stream>& stream, CUgraph* graph);
    [[nodiscard]] CUstreamCaptureStatus capture_status(const std::shared_ptr<Stream>& stream);
    CUresult destroy_graph(CUgraph graph);

    [[nodiscard]] std::size_t stream_count() const;

private:
    using Lock = std::unique_lock<std::mutex>;
    using After = std::vector<std::pair<std::shared_ptr<Stream>, std::uint64_t>>;
    enum class Step : std::uint8_t { progress, polling, blocked, drained };

    CUresult resolve_destination(const Work& work, Pieces* pieces) const;
    CUresult resolve_source(const Work& work, Pieces* pieces) const;
    CUresult check(Work* work) const;
    CUresult execute(const Work& work) const;
    CUresult poll(const Work& work, bool* met) const;

    // With mutex_ held.
    [[nodiscard]] After stands_before(const Stream& stream) const;
    static bool reached(const After& after) noexcept;
    [[nodiscard]] std::shared_ptr<Event> find_event(CUevent handle) const;
    static bool reached(const Mark& mark) noexcept { return mark.stream->completed >= mark.ticket; }
    /// `ticket`: what the stream has to complete until the work is done; untouched where it is done already.
    CUresult submit_locked(Lock& lock, const std::shared_ptr<Stream>& stream, const Work& work, std::uint64_t* ticket);
    CUresult enqueue(const std::shared_ptr<Stream>& stream, const Work& work, After after, std::uint64_t* ticket);
    void finish(const std::shared_ptr<Stream>& stream) noexcept;
    void fail(Context& context, CUresult with) noexcept;
    void drop_queues_of(const Context& context) noexcept;
    void start_thread();
    CUresult wait_for(Lock& lock, Context& context, const After& after);

    // In the thread.
    void run() noexcept;
    Step step(Lock& lock);
    Step do_first(Lock& lock, const std::shared_ptr<Stream>& stream);
    [[nodiscard]] bool nothing_queued() const noexcept;
    static void back_off(Lock& lock, unsigned int rounds) noexcept;

    AddressSpace& space_;
    Membership& fabric_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;  // work was queued, or something was completed
    std::unordered_map<CUstream, std::shared_ptr<Stream>> streams_;
    std::unordered_map<CUevent, std::shared_ptr<Event>> events_;
    std::vector<std::shared_ptr<Stream>> busy_;  // not idle, also when their handle is gone
    std::unordered_set<CUgraph> graphs_;
    std::uint64_t last_number_ = 0;
    std::size_t waiters_ = 0;
    std::size_t turn_ = 0;
    std::thread thread_;
    bool running_ = false;
    bool stop_ = false;
};

}  // namespace fabricmem::detail::emulated
