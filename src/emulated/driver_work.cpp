// SPDX-License-Identifier: Apache-2.0
// The emulated driver's copies, sets, streams and captures.
#include "emulated/emulated_driver.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr unsigned int kWaitOperations = 3;

Work copy_work(std::uintptr_t destination, std::uintptr_t source, std::size_t bytes) {
    Work work;
    work.kind = Work::Kind::copy;
    work.destination = destination;
    work.source = source;
    work.bytes = bytes;
    return work;
}

// For calls whose name says which side is the device's: a stale or plain host address there is INVALID_VALUE.
Work with_device_destination(Work work) {
    work.destination_outside = Outside::refused;
    return work;
}
Work with_device_source(Work work) {
    work.source_outside = Outside::refused;
    return work;
}

Work set_work(std::uintptr_t destination, unsigned char value, std::size_t bytes) {
    Work work;
    work.kind = Work::Kind::set;
    work.destination = destination;
    work.value = value;
    work.bytes = bytes;
    return with_device_destination(work);
}

bool flags_are_known(Work::Kind kind, unsigned int flags) {
    if (kind == Work::Kind::write) return (flags & ~unsigned{CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER}) == 0;
    return (flags & ~(kWaitOperations | unsigned{CU_STREAM_WAIT_VALUE_FLUSH})) == 0;
}

}  // namespace

CUresult EmulatedDriver::work(const Work& work, CUstream stream) const noexcept {
    return call_with_context([&](World& world, Context& context) {
        const std::shared_ptr<Stream> found = world.find_stream(stream, &context);
        if (!found) return CUDA_ERROR_INVALID_HANDLE;
        Work placed = work;
        placed.device = found->context->device;
        return placed.bytes == 0 ? CUDA_SUCCESS : world.streams.submit(found, placed);
    });
}

CUresult EmulatedDriver::work_now(const Work& work) const noexcept {
    return call_with_context([&](World& world, Context& context) {
        Work placed = work;
        placed.device = context.device;
        if (placed.bytes == 0) return CUDA_SUCCESS;
        return world.streams.submit_and_wait(world.streams.find(nullptr, &context), placed);
    });
}

CUresult EmulatedDriver::memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return work_now(copy_work(to_address(destination), to_address(source), bytes));
}

CUresult EmulatedDriver::memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept {
    return work_now(
        with_device_destination(copy_work(to_address(destination), reinterpret_cast<std::uintptr_t>(source), bytes)));
}

CUresult EmulatedDriver::memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return work_now(
        with_device_source(copy_work(reinterpret_cast<std::uintptr_t>(destination), to_address(source), bytes)));
}

CUresult EmulatedDriver::memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept {
    return work_now(
        with_device_destination(with_device_source(copy_work(to_address(destination), to_address(source), bytes))));
}

CUresult EmulatedDriver::memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                                      CUstream stream) noexcept {
    return work(copy_work(to_address(destination), to_address(source), bytes), stream);
}

CUresult EmulatedDriver::memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept {
    return work_now(set_work(to_address(destination), value, count));
}

CUresult EmulatedDriver::memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                                         CUstream stream) noexcept {
    return work(set_work(to_address(destination), value, count), stream);
}

CUresult EmulatedDriver::stream_create(CUstream* stream, unsigned int flags) noexcept {
    return call_with_context([&](World& world, Context& context) {
        if (stream == nullptr || (flags & ~unsigned{CU_STREAM_NON_BLOCKING}) != 0) return CUDA_ERROR_INVALID_VALUE;
        const bool non_blocking = (flags & unsigned{CU_STREAM_NON_BLOCKING}) != 0;
        *stream = world.streams.create(context, non_blocking ? Stream::Kind::non_blocking : Stream::Kind::blocking);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::stream_destroy(CUstream stream) noexcept {
    return call([&](World& world) { return world.streams.destroy(stream); });
}

CUresult EmulatedDriver::stream_query(CUstream stream) noexcept {
    return with_stream(stream, [](World& world, const auto& found) { return world.streams.query(found); });
}

CUresult EmulatedDriver::stream_synchronize(CUstream stream) noexcept {
    return with_stream(stream, [](World& world, const auto& found) { return world.streams.synchronize(found); });
}

CUresult EmulatedDriver::word(Work::Kind kind, CUstream stream, CUdeviceptr address, std::size_t bytes,
                              std::uint64_t value, unsigned int flags) const noexcept {
    if (forked()) return CUDA_ERROR_NOT_INITIALIZED;
    if (address == 0 || address % bytes != 0 || !flags_are_known(kind, flags)) return CUDA_ERROR_INVALID_VALUE;
    Work placed;
    placed.kind = kind;
    (kind == Work::Kind::write ? placed.destination : placed.source) = to_address(address);
    // invented: host memory that the driver did not make is refused here, where a copy takes it.
    placed.destination_outside = placed.source_outside = Outside::refused;
    placed.bytes = bytes;
    placed.value = value;
    placed.flags = flags;
    return work(placed, stream);
}

CUresult EmulatedDriver::stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                              unsigned int flags) noexcept {
    return word(Work::Kind::write, stream, address, sizeof value, value, flags);
}

CUresult EmulatedDriver::stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                             unsigned int flags) noexcept {
    return word(Work::Kind::wait, stream, address, sizeof value, value, flags);
}

CUresult EmulatedDriver::stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                              unsigned int flags) noexcept {
    return word(Work::Kind::write, stream, address, sizeof value, value, flags);
}

CUresult EmulatedDriver::stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                             unsigned int flags) noexcept {
    return word(Work::Kind::wait, stream, address, sizeof value, value, flags);
}

CUresult EmulatedDriver::stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept {
    return with_stream(stream, [&](World& world, const auto& found) {
        if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        return world.streams.begin_capture(found, mode);
    });
}

CUresult EmulatedDriver::stream_end_capture(CUstream stream, CUgraph* graph) noexcept {
    return with_stream(stream, [&](World& world, const auto& found) {
        return graph == nullptr ? CUDA_ERROR_INVALID_VALUE : world.streams.end_capture(found, graph);
    });
}

CUresult EmulatedDriver::stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept {
    return with_stream(stream, [&](World& world, const auto& found) {
        if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *status = world.streams.capture_status(found);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept {
    return call([&](World& world) {
        if (mode == nullptr || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL || *mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        ThreadState* const state = thread_state(world.life);
        if (state == nullptr) return CUDA_ERROR_DEINITIALIZED;
        std::swap(*mode, state->capture_mode);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::graph_destroy(CUgraph graph) noexcept {
    return call([&](World& world) { return world.streams.destroy_graph(graph); });
}

}  // namespace fabricmem::detail::emulated
