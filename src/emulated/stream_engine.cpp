// SPDX-License-Identifier: Apache-2.0
// Streams as their users see them. The thread that does what had to wait is in stream_thread.cpp.
#include "emulated/stream_engine.hpp"

#include <algorithm>

#include "emulated/numbers.hpp"
#include "emulated/transfer.hpp"

namespace fabricmem::detail::emulated {

namespace {

CUstream to_stream(std::uint64_t number) noexcept { return reinterpret_cast<CUstream>(number); }

bool means_default(CUstream handle) noexcept { return handle == nullptr || handle == kStreamLegacy; }

bool is_met(const Work& wait, std::uint64_t current) noexcept {
    const bool wide = wait.bytes == 8;
    const std::uint64_t all_ones = wide ? ~std::uint64_t{0} : 0xffffffffU;
    switch (wait.flags & 3U) {
        case CU_STREAM_WAIT_VALUE_GEQ:  // cyclic: the difference's sign
            return ((current - wait.value) & all_ones) >> (wide ? 63 : 31) == 0;
        case CU_STREAM_WAIT_VALUE_EQ: return current == wait.value;
        case CU_STREAM_WAIT_VALUE_AND: return (current & wait.value) != 0;
        default: return (~(current | wait.value) & all_ones) != 0;
    }
}

}  // namespace

StreamEngine::StreamEngine(AddressSpace& space, std::vector<std::unique_ptr<Context>>& contexts, Membership& fabric)
    : space_(space), fabric_(fabric) {
    for (const auto& context : contexts) adopt(*context);
}

void StreamEngine::adopt(Context& context) {
    context.default_stream = std::make_shared<Stream>(context, Stream::Kind::legacy_default);
}

CUstream StreamEngine::create(Context& context, Stream::Kind kind) {
    auto stream = std::make_shared<Stream>(context, kind);
    const std::lock_guard lock(mutex_);
    const CUstream handle = to_stream(mix(++last_number_));
    streams_.emplace(handle, std::move(stream));
    return handle;
}

CUresult StreamEngine::destroy(CUstream handle) {
    const std::lock_guard lock(mutex_);
    // Pending work is finished all the same: busy_ keeps the stream. invented: the code for a number that is no stream.
    return streams_.erase(handle) != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

void StreamEngine::destroy_all_of(Context& context) {
    const std::lock_guard lock(mutex_);
    std::erase_if(streams_, [&](const auto& entry) { return entry.second->context == &context; });
    std::erase_if(events_, [&](const auto& entry) { return entry.second->context == &context; });
    drop_queues_of(context);
    context.default_stream->capture = {};
    changed_.notify_all();
}

std::shared_ptr<Stream> StreamEngine::find(CUstream handle, Context* context) {
    if (means_default(handle)) {
        return context == nullptr ? nullptr : context->default_stream;
    }
    const std::lock_guard lock(mutex_);
    const auto found = streams_.find(handle);
    return found == streams_.end() ? nullptr : found->second;
}

CUresult StreamEngine::resolve_destination(const Work& work, Pieces* pieces) const {
    return space_.resolve(work.destination, work.bytes, work.device, Want::write, work.destination_outside, pieces);
}

CUresult StreamEngine::resolve_source(const Work& work, Pieces* pieces) const {
    return space_.resolve(work.source, work.bytes, work.device, Want::read, work.source_outside, pieces);
}

CUresult StreamEngine::check(Work* work) const {
    if (work->kind == Work::Kind::mark || work->kind == Work::Kind::pass) return CUDA_SUCCESS;
    const auto is_the_drivers = [](const Piece& piece) { return piece.memory != nullptr || piece.pinned != nullptr; };
    Pieces pieces;
    CUresult result = resolve_destination(*work, &pieces);
    if (result != CUDA_SUCCESS) return result;
    if (is_the_drivers(pieces.front())) work->destination_outside = Outside::refused;
    if (work->kind != Work::Kind::copy) return CUDA_SUCCESS;
    result = resolve_source(*work, &pieces);
    if (result == CUDA_SUCCESS && is_the_drivers(pieces.front())) work->source_outside = Outside::refused;
    return result;
}

CUresult StreamEngine::execute(const Work& work) const {
    if (work.kind == Work::Kind::mark) work.mark->at = std::chrono::steady_clock::now();
    if (work.kind == Work::Kind::mark || work.kind == Work::Kind::pass) return CUDA_SUCCESS;
    Pieces destination;
    CUresult result = resolve_destination(work, &destination);
    if (result != CUDA_SUCCESS) return result;
    switch (work.kind) {
        case Work::Kind::set: return set_pieces(destination, static_cast<std::uint32_t>(work.value), work.width);
        case Work::Kind::write:
            return store_word(destination.front(), static_cast<unsigned int>(work.bytes), work.value);
        default: break;
    }
    Pieces source;
    result = resolve_source(work, &source);
    return result == CUDA_SUCCESS ? copy_pieces(destination, source) : result;
}

CUresult StreamEngine::poll(const Work& work, bool* met) const {
    // Nobody is left to write the word.
    if (const CUresult cut_off = fabric_.look(); cut_off != CUDA_SUCCESS) return cut_off;
    Pieces source;  // looked up each time, so that an unmap is noticed and no unmapped memory is kept alive
    CUresult result = resolve_source(work, &source);
    std::uint64_t current = 0;
    if (result == CUDA_SUCCESS) {
        result = load_word(source.front(), static_cast<unsigned int>(work.bytes), &current);
    }
    *met = result == CUDA_SUCCESS && is_met(work, current);
    return result;
}

StreamEngine::After StreamEngine::stands_before(const Stream& stream) const {
    After after;
    if (stream.kind == Stream::Kind::non_blocking) return after;
    for (const auto& other : busy_) {
        if (other->context != stream.context || other->kind == Stream::Kind::non_blocking) continue;
        const bool other_is_default = other->kind == Stream::Kind::legacy_default;
        if (other_is_default != (stream.kind == Stream::Kind::legacy_default)) {
            after.emplace_back(other, other->submitted);
        }
    }
    return after;
}

bool StreamEngine::reached(const After& after) noexcept {
    return std::all_of(after.begin(), after.end(),
                       [](const auto& entry) { return entry.first->completed >= entry.second; });
}

CUresult StreamEngine::submit(const std::shared_ptr<Stream>& stream, const Work& work) {
    Lock lock(mutex_);
    std::uint64_t ticket = 0;
    return submit_locked(lock, stream, work, &ticket);
}

CUresult StreamEngine::submit_and_wait(const std::shared_ptr<Stream>& stream, const Work& work) {
    Lock lock(mutex_);
    std::uint64_t ticket = 0;
    const CUresult result = submit_locked(lock, stream, work, &ticket);
    if (result != CUDA_SUCCESS || ticket == 0) return result;
    return wait_for(lock, *stream->context, {{stream, ticket}});
}

CUresult StreamEngine::submit_locked(Lock& lock, const std::shared_ptr<Stream>& stream, const Work& work,
                                     std::uint64_t* ticket) {
    if (const CUresult lost = stream->context->lost; lost != CUDA_SUCCESS) return lost;
    if (stream->capture.on) {
        ++stream->capture.recorded;
        return CUDA_SUCCESS;
    }
    After after = stands_before(*stream);
    const bool first = stream->idle() && after.empty();
    if (work.kind == Work::Kind::wait) {
        bool met = false;
        const CUresult result = poll(work, &met);
        if (result != CUDA_SUCCESS || (first && met)) return result;
        return enqueue(stream, work, std::move(after), ticket);
    }
    if (!first) {
        Work queued = work;
        const CUresult result = check(&queued);
        return result == CUDA_SUCCESS ? enqueue(stream, queued, std::move(after), ticket) : result;
    }
    busy_.push_back(stream);
    ++stream->submitted;
    lock.unlock();
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    try {
        result = execute(work);
    } catch (const std::bad_alloc&) {  // the stream has to be idle again
    }
    lock.lock();
    finish(stream);
    return result;  // the call's own answer, not a failure of the context: nothing has happened in between
}

CUresult StreamEngine::enqueue(const std::shared_ptr<Stream>& stream, const Work& work, After after,
                               std::uint64_t* ticket) {
    busy_.reserve(busy_.size() + 1);
    stream->queue.push_back({work, std::move(after)});
    try {
        start_thread();
    } catch (...) {
        stream->queue.pop_back();
        throw;
    }
    if (stream->idle()) busy_.push_back(stream);
    *ticket = ++stream->submitted;
    changed_.notify_all();
    return CUDA_SUCCESS;
}

void StreamEngine::finish(const std::shared_ptr<Stream>& stream) noexcept {
    ++stream->completed;
    if (stream->idle()) std::erase(busy_, stream);
    if (waiters_ != 0 || running_) changed_.notify_all();
}

void StreamEngine::fail(Context& context, CUresult with) noexcept {
    context.lost = with;
    drop_queues_of(context);
    changed_.notify_all();
}

void StreamEngine::drop_queues_of(const Context& context) noexcept {
    for (const auto& stream : busy_) {
        if (stream->context != &context) continue;
        // What is being done right now completes itself later.
        stream->completed += stream->queue.size();
        stream->queue.clear();
    }
    std::erase_if(busy_, [](const auto& stream) { return stream->idle(); });
}

CUresult StreamEngine::wait_for(Lock& lock, Context& context, const After& after) {
    ++waiters_;
    changed_.wait(lock, [&] { return reached(after) || context.lost != CUDA_SUCCESS; });
    --waiters_;
    return context.lost;
}

CUresult StreamEngine::query(const std::shared_ptr<Stream>& stream) {
    const std::lock_guard lock(mutex_);
    if (const CUresult lost = stream->context->lost; lost != CUDA_SUCCESS) return lost;
    if (stream->capture.on) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    // invented: the default stream is asked for all that it would wait for.
    const bool others = stream->kind == Stream::Kind::legacy_default && !stands_before(*stream).empty();
    return stream->idle() && !others ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult StreamEngine::synchronize(const std::shared_ptr<Stream>& stream) {
    Lock lock(mutex_);
    if (const CUresult lost = stream->context->lost; lost != CUDA_SUCCESS) return lost;
    if (stream->capture.on) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    After after;
    if (stream->kind == Stream::Kind::legacy_default) after = stands_before(*stream);
    after.emplace_back(stream, stream->submitted);
    return wait_for(lock, *stream->context, after);
}

CUresult StreamEngine::synchronize(Context& context) {
    Lock lock(mutex_);
    After after;
    for (const auto& stream : busy_) {
        if (stream->context == &context) after.emplace_back(stream, stream->submitted);
    }
    return wait_for(lock, context, after);
}

CUresult StreamEngine::begin_capture(const std::shared_ptr<Stream>& stream, CUstreamCaptureMode mode) {
    const std::lock_guard lock(mutex_);
    if (stream->kind == Stream::Kind::legacy_default) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture.on) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capture = {true, mode, std::this_thread::get_id(), 0};
    return CUDA_SUCCESS;
}

CUresult StreamEngine::end_capture(const std::shared_ptr<Stream>& stream, CUgraph* graph) {
    const std::lock_guard lock(mutex_);
    if (!stream->capture.on) return CUDA_ERROR_ILLEGAL_STATE;
    const bool any_thread = stream->capture.mode == CU_STREAM_CAPTURE_MODE_RELAXED;
    if (!any_thread && stream->capture.thread != std::this_thread::get_id()) {
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    const auto made = reinterpret_cast<CUgraph>(mix(++last_number_));
    graphs_.insert(made);
    stream->capture = {};
    *graph = made;
    return CUDA_SUCCESS;
}

CUstreamCaptureStatus StreamEngine::capture_status(const std::shared_ptr<Stream>& stream) {
    const std::lock_guard lock(mutex_);
    return stream->capture.on ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
}

CUresult StreamEngine::destroy_graph(CUgraph graph) {
    const std::lock_guard lock(mutex_);
    return graphs_.erase(graph) != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

std::size_t StreamEngine::stream_count() const {
    const std::lock_guard lock(mutex_);
    return streams_.size();
}

}  // namespace fabricmem::detail::emulated
