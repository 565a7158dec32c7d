// SPDX-License-Identifier: Apache-2.0
// The drop-in libcuda's events. Where a name ends in _ptsz, the null stream is the calling thread's own.
#include "libcuda/libcuda.hpp"

using namespace fabricmem;
using namespace fabricmem::detail;
using namespace fabricmem::detail::libcuda;

namespace {

constexpr unsigned int kTimeless = CU_EVENT_DISABLE_TIMING;
constexpr unsigned int kBetweenProcesses = CU_EVENT_INTERPROCESS;
constexpr unsigned int kKnownEventFlags = CU_EVENT_BLOCKING_SYNC | kTimeless | kBetweenProcesses;

CUresult record(CUevent event, CUstream stream, unsigned int flags) {
    return with_stream(stream, [&](World& world, const auto& found) {
        if (flags > unsigned{CU_EVENT_RECORD_EXTERNAL}) return CUDA_ERROR_INVALID_VALUE;
        return world.streams.record(found, event);
    });
}

CUresult wait(CUstream stream, CUevent event, unsigned int flags) {
    return with_stream(stream, [&](World& world, const auto& found) {
        if (flags > unsigned{CU_EVENT_WAIT_EXTERNAL}) return CUDA_ERROR_INVALID_VALUE;
        return world.streams.wait_event(found, event);
    });
}

CUresult elapsed(float* milliseconds, CUevent start, CUevent end) {
    return with_world([&](World& world) {
        return milliseconds == nullptr ? CUDA_ERROR_INVALID_VALUE : world.streams.elapsed(start, end, milliseconds);
    });
}

}  // namespace

FABRICMEM_CUDA cuEventCreate(CUevent* event, unsigned int flags) {
    return with_context([&](World& world, Context& context) {
        const bool timed_between_processes = (flags & kBetweenProcesses) != 0 && (flags & kTimeless) == 0;
        if (event == nullptr || (flags & ~kKnownEventFlags) != 0 || timed_between_processes)
            return CUDA_ERROR_INVALID_VALUE;
        *event = world.streams.create_event(context, flags);
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuEventDestroy_v2(CUevent event) {
    return with_world([&](World& world) { return world.streams.destroy_event(event); });
}
FABRICMEM_CUDA cuEventDestroy(CUevent event) { return cuEventDestroy_v2(event); }
FABRICMEM_CUDA cuEventQuery(CUevent event) {
    return with_world([&](World& world) { return world.streams.query_event(event); });
}
FABRICMEM_CUDA cuEventSynchronize(CUevent event) {
    return with_world([&](World& world) { return world.streams.synchronize_event(event); });
}
FABRICMEM_CUDA cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    return elapsed(milliseconds, start, end);
}
FABRICMEM_CUDA cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
    return elapsed(milliseconds, start, end);
}
FABRICMEM_CUDA cuEventRecord(CUevent event, CUstream stream) { return record(event, stream, 0); }
FABRICMEM_CUDA cuEventRecord_ptsz(CUevent event, CUstream stream) { return record(event, own(stream), 0); }
FABRICMEM_CUDA cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
    return record(event, stream, flags);
}
FABRICMEM_CUDA cuEventRecordWithFlags_ptsz(CUevent event, CUstream stream, unsigned int flags) {
    return record(event, own(stream), flags);
}
FABRICMEM_CUDA cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags) {
    return wait(stream, event, flags);
}
FABRICMEM_CUDA cuStreamWaitEvent_ptsz(CUstream stream, CUevent event, unsigned int flags) {
    return wait(own(stream), event, flags);
}
