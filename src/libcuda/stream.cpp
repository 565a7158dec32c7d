// SPDX-License-Identifier: Apache-2.0
// The drop-in libcuda's streams and captures. Where a name ends in _ptsz, the null stream is the calling thread's own.
#include <algorithm>

#include "libcuda/libcuda.hpp"

using namespace fabricmem;
using namespace fabricmem::detail;
using namespace fabricmem::detail::libcuda;

namespace {

CUresult wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return with_driver([&](Driver& driver) { return driver.stream_wait_value32(stream, address, value, flags); });
}
CUresult wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return with_driver([&](Driver& driver) { return driver.stream_wait_value64(stream, address, value, flags); });
}
CUresult write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return with_driver([&](Driver& driver) { return driver.stream_write_value32(stream, address, value, flags); });
}
CUresult write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return with_driver([&](Driver& driver) { return driver.stream_write_value64(stream, address, value, flags); });
}

CUresult one_operation(CUstream stream, const CUstreamBatchMemOpParams& operation) {
    const auto& wait = operation.waitValue;
    const auto& write = operation.writeValue;
    switch (static_cast<int>(operation.operation)) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32: return wait_value32(stream, wait.address, wait.value, wait.flags);
        case CU_STREAM_MEM_OP_WAIT_VALUE_64: return wait_value64(stream, wait.address, wait.value64, wait.flags);
        case CU_STREAM_MEM_OP_WRITE_VALUE_32: return write_value32(stream, write.address, write.value, write.flags);
        case CU_STREAM_MEM_OP_WRITE_VALUE_64: return write_value64(stream, write.address, write.value64, write.flags);
        case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        case CU_STREAM_MEM_OP_BARRIER: return CUDA_SUCCESS;  // the order of streams is enough here
        default: return CUDA_ERROR_INVALID_VALUE;
    }
}

// invented: what stands before one that is refused is done.
CUresult operations(CUstream stream, unsigned int count, const CUstreamBatchMemOpParams* all, unsigned int flags) {
    return with_driver([&](Driver&) {
        if (count == 0 || count > 256 || all == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
        CUresult result = CUDA_SUCCESS;
        for (unsigned int i = 0; i < count && result == CUDA_SUCCESS; ++i) result = one_operation(stream, all[i]);
        return result;
    });
}

CUresult get_flags(CUstream stream, unsigned int* flags) {
    return with_stream(stream, [&](World&, const auto& found) {
        if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *flags = found->kind == emulated::Stream::Kind::non_blocking ? unsigned{CU_STREAM_NON_BLOCKING} : 0U;
        return CUDA_SUCCESS;
    });
}
CUresult get_priority(CUstream stream, int* priority) {
    return with_stream(stream, [&](World&, const auto& found) {
        if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *priority = found->priority;
        return CUDA_SUCCESS;
    });
}
// invented: the number.
CUresult get_id(CUstream stream, unsigned long long* id) {
    return with_stream(stream, [&](World&, const auto& found) {
        if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *id = reinterpret_cast<std::uintptr_t>(found.get());
        return CUDA_SUCCESS;
    });
}
CUresult get_context(CUstream stream, CUcontext* context) {
    return with_stream(stream, [&](World&, const auto& found) {
        if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *context = found->context->handle();
        return CUDA_SUCCESS;
    });
}
CUresult get_context(CUstream stream, CUcontext* context, CUgreenCtx_st** green) {
    if (green != nullptr) *green = nullptr;
    return get_context(stream, context);
}
CUresult get_device(CUstream stream, CUdevice* device) {
    return with_stream(stream, [&](World&, const auto& found) {
        if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *device = found->context->device;
        return CUDA_SUCCESS;
    });
}
CUresult query(CUstream stream) {
    return with_driver([&](Driver& driver) { return driver.stream_query(stream); });
}
CUresult synchronize(CUstream stream) {
    return with_driver([&](Driver& driver) { return driver.stream_synchronize(stream); });
}
CUresult begin_capture(CUstream stream, CUstreamCaptureMode mode) {
    return with_driver([&](Driver& driver) { return driver.stream_begin_capture(stream, mode); });
}
CUresult end_capture(CUstream stream, CUgraph* graph) {
    return with_driver([&](Driver& driver) { return driver.stream_end_capture(stream, graph); });
}
CUresult is_capturing(CUstream stream, CUstreamCaptureStatus* status) {
    return with_driver([&](Driver& driver) { return driver.stream_is_capturing(stream, status); });
}
// Of a stream that captures nothing; there are no graphs to tell of.
CUresult capture_info(CUstream stream, CUstreamCaptureStatus* status) {
    const CUresult result = is_capturing(stream, status);
    if (result != CUDA_SUCCESS || *status == CU_STREAM_CAPTURE_STATUS_NONE) return result;
    return not_supported("cuStreamGetCaptureInfo of a stream that captures");
}

}  // namespace

FABRICMEM_CUDA cuStreamCreate(CUstream* stream, unsigned int flags) {
    return with_driver([&](Driver& driver) { return driver.stream_create(stream, flags); });
}
FABRICMEM_CUDA cuStreamCreateWithPriority(CUstream* stream, unsigned int flags, int priority) {
    const CUresult result = cuStreamCreate(stream, flags);
    if (result != CUDA_SUCCESS) return result;
    return with_stream(*stream, [&](World&, const auto& made) {
        made->priority = std::clamp(priority, kGreatestPriority, 0);
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuStreamDestroy_v2(CUstream stream) {
    return with_driver([&](Driver& driver) { return driver.stream_destroy(stream); });
}
FABRICMEM_CUDA cuStreamDestroy(CUstream stream) { return cuStreamDestroy_v2(stream); }

FABRICMEM_CUDA cuStreamQuery(CUstream stream) { return query(stream); }
FABRICMEM_CUDA cuStreamQuery_ptsz(CUstream stream) { return query(own(stream)); }
FABRICMEM_CUDA cuStreamSynchronize(CUstream stream) { return synchronize(stream); }
FABRICMEM_CUDA cuStreamSynchronize_ptsz(CUstream stream) { return synchronize(own(stream)); }
FABRICMEM_CUDA cuStreamGetFlags(CUstream stream, unsigned int* flags) { return get_flags(stream, flags); }
FABRICMEM_CUDA cuStreamGetFlags_ptsz(CUstream stream, unsigned int* flags) { return get_flags(own(stream), flags); }
FABRICMEM_CUDA cuStreamGetPriority(CUstream stream, int* priority) { return get_priority(stream, priority); }
FABRICMEM_CUDA cuStreamGetPriority_ptsz(CUstream stream, int* priority) { return get_priority(own(stream), priority); }
FABRICMEM_CUDA cuStreamGetId(CUstream stream, unsigned long long* id) { return get_id(stream, id); }
FABRICMEM_CUDA cuStreamGetId_ptsz(CUstream stream, unsigned long long* id) { return get_id(own(stream), id); }
FABRICMEM_CUDA cuStreamGetCtx(CUstream stream, CUcontext* context) { return get_context(stream, context); }
FABRICMEM_CUDA cuStreamGetCtx_ptsz(CUstream stream, CUcontext* context) { return get_context(own(stream), context); }
FABRICMEM_CUDA cuStreamGetCtx_v2(CUstream stream, CUcontext* context, struct CUgreenCtx_st** green) {
    return get_context(stream, context, green);
}
FABRICMEM_CUDA cuStreamGetCtx_v2_ptsz(CUstream stream, CUcontext* context, struct CUgreenCtx_st** green) {
    return get_context(own(stream), context, green);
}
FABRICMEM_CUDA cuStreamGetDevice(CUstream stream, CUdevice* device) { return get_device(stream, device); }
FABRICMEM_CUDA cuStreamGetDevice_ptsz(CUstream stream, CUdevice* device) { return get_device(own(stream), device); }

FABRICMEM_CUDA cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return wait_value32(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue32_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return wait_value32(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return wait_value32(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue32_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return wait_value32(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return wait_value64(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue64_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return wait_value64(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return wait_value64(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWaitValue64_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return wait_value64(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return write_value32(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue32_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                            unsigned int flags) {
    return write_value32(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return write_value32(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue32_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
    return write_value32(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return write_value64(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue64_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                            unsigned int flags) {
    return write_value64(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return write_value64(stream, address, value, flags);
}
FABRICMEM_CUDA cuStreamWriteValue64_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
    return write_value64(own(stream), address, value, flags);
}
FABRICMEM_CUDA cuStreamBatchMemOp_v2(CUstream stream, unsigned int count, CUstreamBatchMemOpParams* all,
                                     unsigned int flags) {
    return operations(stream, count, all, flags);
}
FABRICMEM_CUDA cuStreamBatchMemOp_v2_ptsz(CUstream stream, unsigned int count, CUstreamBatchMemOpParams* all,
                                          unsigned int flags) {
    return operations(own(stream), count, all, flags);
}
FABRICMEM_CUDA cuStreamBatchMemOp(CUstream stream, unsigned int count, CUstreamBatchMemOpParams* all,
                                  unsigned int flags) {
    return operations(stream, count, all, flags);
}
FABRICMEM_CUDA cuStreamBatchMemOp_ptsz(CUstream stream, unsigned int count, CUstreamBatchMemOpParams* all,
                                       unsigned int flags) {
    return operations(own(stream), count, all, flags);
}

FABRICMEM_CUDA cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    return begin_capture(stream, mode);
}
FABRICMEM_CUDA cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode) {
    return begin_capture(own(stream), mode);
}
FABRICMEM_CUDA cuStreamBeginCapture(CUstream stream) { return begin_capture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL); }
FABRICMEM_CUDA cuStreamBeginCapture_ptsz(CUstream stream) {
    return begin_capture(own(stream), CU_STREAM_CAPTURE_MODE_GLOBAL);
}
FABRICMEM_CUDA cuStreamEndCapture(CUstream stream, CUgraph* graph) { return end_capture(stream, graph); }
FABRICMEM_CUDA cuStreamEndCapture_ptsz(CUstream stream, CUgraph* graph) { return end_capture(own(stream), graph); }
FABRICMEM_CUDA cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
    return is_capturing(stream, status);
}
FABRICMEM_CUDA cuStreamIsCapturing_ptsz(CUstream stream, CUstreamCaptureStatus* status) {
    return is_capturing(own(stream), status);
}
FABRICMEM_CUDA cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t*) {
    return capture_info(stream, status);
}
FABRICMEM_CUDA cuStreamGetCaptureInfo_ptsz(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t*) {
    return capture_info(own(stream), status);
}
FABRICMEM_CUDA cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t*, CUgraph*,
                                         const CUgraphNode**, std::size_t*) {
    return capture_info(stream, status);
}
FABRICMEM_CUDA cuStreamGetCaptureInfo_v2_ptsz(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t*, CUgraph*,
                                              const CUgraphNode**, std::size_t*) {
    return capture_info(own(stream), status);
}
// A struct that cuda.h has from 12.3 on.
FABRICMEM_CUDA cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t*, CUgraph*,
                                         const CUgraphNode**, const struct CUgraphEdgeData_st**, std::size_t*) {
    return capture_info(stream, status);
}
FABRICMEM_CUDA cuStreamGetCaptureInfo_v3_ptsz(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t*, CUgraph*,
                                              const CUgraphNode**, const struct CUgraphEdgeData_st**, std::size_t*) {
    return capture_info(own(stream), status);
}
FABRICMEM_CUDA cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
    return with_driver([&](Driver& driver) { return driver.thread_exchange_stream_capture_mode(mode); });
}
FABRICMEM_CUDA cuGraphDestroy(CUgraph graph) {
    return with_driver([&](Driver& driver) { return driver.graph_destroy(graph); });
}
