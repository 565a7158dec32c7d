// SPDX-License-Identifier: Apache-2.0
// The emulated driver's batches of copies. A copy from the CPU's memory into host memory is the CPU's there, in the
// caller's thread: where the CPU may not write, the process dies, as inside the real driver.
#include <atomic>

#include "emulated/emulated_driver.hpp"
#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

namespace {

struct Batch {
    const CUdeviceptr* destinations;
    const CUdeviceptr* sources;
    const std::size_t* bytes;
    std::size_t count;
};

Work copy_of(const Batch& batch, std::size_t index, int device) {
    Work work;
    work.kind = Work::Kind::copy;
    work.destination = static_cast<std::uintptr_t>(batch.destinations[index]);
    work.source = static_cast<std::uintptr_t>(batch.sources[index]);
    work.bytes = batch.bytes[index];
    work.device = device;
    return work;
}

bool is_device_memory(const Place& place) { return place.memory != nullptr && place.memory->is_device(); }

// Measured for an import of host memory and plain CPU memory. invented: the same for the exporter's own mapping and for
// pinned sources. (Nothing is said of the other way, from such memory to the CPU's: it is copied.)
void let_the_cpu_touch(const AddressSpace& space, const Work& work) {
    const Place target = space.find(work.destination);
    if (target.kind != Place::Kind::vmm || is_device_memory(target) || target.host_access == kAccessReadWrite) return;
    const Place origin = space.find(work.source);
    if (is_device_memory(origin)) return;
    std::atomic_ref<unsigned char>(*reinterpret_cast<unsigned char*>(work.destination))
        .store(0, std::memory_order_relaxed);
}

// invented: a batch with a copy that is refused is refused whole.
CUresult check(const World& world, const Batch& batch, int device) {
    Pieces pieces;
    for (std::size_t i = 0; i < batch.count; ++i) {
        const Work work = copy_of(batch, i, device);
        if (work.bytes == 0) return CUDA_ERROR_INVALID_VALUE;  // invented
        CUresult result =
            world.space.resolve(work.destination, work.bytes, device, Want::write, Outside::host_memory, &pieces);
        if (result == CUDA_SUCCESS) {
            result = world.space.resolve(work.source, work.bytes, device, Want::read, Outside::host_memory, &pieces);
        }
        if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
}

}  // namespace

CUresult EmulatedDriver::memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes,
                                            std::size_t count, CUstream stream) noexcept {
    return call_with_context([&](World& world, Context& context) {
        const bool arrays = destinations != nullptr && sources != nullptr && bytes != nullptr;
        if (!arrays || count == 0) return CUDA_ERROR_INVALID_VALUE;
        // cuda.h: not the legacy default stream. invented: the code.
        if (stream == nullptr || stream == kStreamLegacy) return CUDA_ERROR_INVALID_VALUE;
        const std::shared_ptr<Stream> found = world.find_stream(stream, &context);
        if (!found) return CUDA_ERROR_INVALID_HANDLE;
        const Batch batch{destinations, sources, bytes, count};
        const int device = found->context->device;
        if (const CUresult result = check(world, batch, device); result != CUDA_SUCCESS) return result;
        for (std::size_t i = 0; i < count; ++i) {
            const Work work = copy_of(batch, i, device);
            let_the_cpu_touch(world.space, work);
            if (const CUresult result = world.streams.submit(found, work); result != CUDA_SUCCESS) return result;
        }
        return CUDA_SUCCESS;
    });
}

}  // namespace fabricmem::detail::emulated
