// SPDX-License-Identifier: Apache-2.0
// Events: marks in the work of streams, and what waits for them.
#include <utility>

#include "emulated/numbers.hpp"
#include "emulated/stream_engine.hpp"

namespace fabricmem::detail::emulated {

CUevent StreamEngine::create_event(Context& context, unsigned int flags) {
    auto event = std::make_shared<Event>(Event{&context, flags, nullptr});
    const std::lock_guard lock(mutex_);
    const auto handle = reinterpret_cast<CUevent>(mix(++last_number_));
    events_.emplace(handle, std::move(event));
    return handle;
}

CUresult StreamEngine::destroy_event(CUevent handle) {
    const std::lock_guard lock(mutex_);
    return events_.erase(handle) != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

std::shared_ptr<Event> StreamEngine::find_event(CUevent handle) const {
    const auto found = events_.find(handle);
    return found == events_.end() ? nullptr : found->second;
}

CUresult StreamEngine::record(const std::shared_ptr<Stream>& stream, CUevent handle) {
    Lock lock(mutex_);
    const std::shared_ptr<Event> event = find_event(handle);
    if (!event || event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture.on) {  // invented: the event stays as it was
        ++stream->capture.recorded;
        return CUDA_SUCCESS;
    }
    Work work;
    work.kind = Work::Kind::mark;
    work.mark = std::make_shared<Mark>();
    work.mark->stream = stream;
    std::uint64_t ticket = 0;
    if (const CUresult result = submit_locked(lock, stream, work, &ticket); result != CUDA_SUCCESS) return result;
    work.mark->ticket = ticket;
    event->mark = std::move(work.mark);
    return CUDA_SUCCESS;
}

CUresult StreamEngine::wait_event(const std::shared_ptr<Stream>& stream, CUevent handle) {
    const Lock lock(mutex_);
    const std::shared_ptr<Event> event = find_event(handle);
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult lost = stream->context->lost; lost != CUDA_SUCCESS) return lost;
    if (stream->capture.on) {
        ++stream->capture.recorded;
        return CUDA_SUCCESS;
    }
    if (event->mark == nullptr || reached(*event->mark)) return CUDA_SUCCESS;
    Work work;
    work.kind = Work::Kind::pass;
    After after = stands_before(*stream);
    after.emplace_back(event->mark->stream, event->mark->ticket);
    std::uint64_t ticket = 0;
    return enqueue(stream, work, std::move(after), &ticket);
}

CUresult StreamEngine::query_event(CUevent handle) {
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<Event> event = find_event(handle);
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult lost = event->context->lost; lost != CUDA_SUCCESS) return lost;
    return event->mark == nullptr || reached(*event->mark) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult StreamEngine::synchronize_event(CUevent handle) {
    Lock lock(mutex_);
    const std::shared_ptr<Event> event = find_event(handle);
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult lost = event->context->lost; lost != CUDA_SUCCESS) return lost;
    if (event->mark == nullptr) return CUDA_SUCCESS;
    const After after{{event->mark->stream, event->mark->ticket}};
    return wait_for(lock, *event->context, after);
}

CUresult StreamEngine::elapsed(CUevent start, CUevent end, float* milliseconds) {
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<Event> first = find_event(start);
    const std::shared_ptr<Event> last = find_event(end);
    for (const auto& event : {first, last}) {
        if (!event || event->mark == nullptr || (event->flags & unsigned{CU_EVENT_DISABLE_TIMING}) != 0) {
            return CUDA_ERROR_INVALID_HANDLE;
        }
        if (const CUresult lost = event->context->lost; lost != CUDA_SUCCESS) return lost;
    }
    if (!reached(*first->mark) || !reached(*last->mark)) return CUDA_ERROR_NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(last->mark->at - first->mark->at).count();
    return CUDA_SUCCESS;
}

}  // namespace fabricmem::detail::emulated
