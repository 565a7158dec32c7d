// SPDX-License-Identifier: Apache-2.0
// The drop-in libcuda's copies and sets. A name that ends in _ptds works in the calling thread's own stream and waits;
// in _ptsz, the null stream is the thread's own.
#include "driver/batch_attributes.hpp"
#include "libcuda/libcuda.hpp"

using namespace fabricmem;
using namespace fabricmem::detail;
using namespace fabricmem::detail::libcuda;

namespace {

constexpr CUresult kNotThere = CUDA_ERROR_INVALID_CONTEXT;

CUdeviceptr as_device(const void* host) { return reinterpret_cast<CUdeviceptr>(host); }

// What a name with HtoD, DtoH or DtoD calls the device's side has to be known to the driver.
CUresult check_known(CUdeviceptr address) {
    return with_context([&](World& world, const Context&) {
        const emulated::Place place = world.space.find(static_cast<std::uintptr_t>(address));
        return place.kind == emulated::Place::Kind::unknown ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    });
}

CUresult copy_async(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return with_driver([&](Driver& driver) { return driver.memcpy_async(to, from, bytes, stream); });
}

CUresult wait(Driver& driver, CUresult given) {
    return given == CUDA_SUCCESS ? driver.stream_synchronize(emulated::kStreamPerThread) : given;
}

CUresult copy_in_own(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    return with_driver(
        [&](Driver& driver) { return wait(driver, driver.memcpy_async(to, from, bytes, emulated::kStreamPerThread)); });
}

// HtoD and its like, by the device's sides.
template <typename Copy>
CUresult checked(std::initializer_list<CUdeviceptr> device_sides, std::size_t bytes, Copy&& copy) {
    for (const CUdeviceptr address : device_sides) {
        const CUresult result = bytes == 0 ? CUDA_SUCCESS : check_known(address);
        if (result != CUDA_SUCCESS) return result;
    }
    return copy();
}

// invented: the two contexts have to exist; the work is the current one's.
CUresult check_contexts(CUcontext one, CUcontext other) {
    return with_world([&](World& world) {
        return world.find_context(one) != nullptr && world.find_context(other) != nullptr ? CUDA_SUCCESS : kNotThere;
    });
}

// A value of `width` bytes, `count` times.
emulated::Work set_work(CUdeviceptr to, std::uint32_t value, unsigned int width, std::size_t count) {
    emulated::Work work;
    work.kind = emulated::Work::Kind::set;
    work.destination = static_cast<std::uintptr_t>(to);
    work.destination_outside = emulated::Outside::refused;
    work.bytes = count * width;
    work.value = value;
    work.width = width;
    return work;
}

CUresult check_set(CUdeviceptr to, unsigned int width, std::size_t count) {
    return to % width == 0 && count <= emulated::kAddressLimit ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult set(CUdeviceptr to, std::uint32_t value, unsigned int width, std::size_t count) {
    return with_emulator([&](emulated::EmulatedDriver& emulator) {
        const CUresult result = check_set(to, width, count);
        return result == CUDA_SUCCESS ? emulator.work_now(set_work(to, value, width, count)) : result;
    });
}

CUresult set_async(CUdeviceptr to, std::uint32_t value, unsigned int width, std::size_t count, CUstream stream) {
    return with_emulator([&](emulated::EmulatedDriver& emulator) {
        const CUresult result = check_set(to, width, count);
        return result == CUDA_SUCCESS ? emulator.work(set_work(to, value, width, count), stream) : result;
    });
}

CUresult set_in_own(CUdeviceptr to, std::uint32_t value, unsigned int width, std::size_t count) {
    const CUresult given = set_async(to, value, width, count, emulated::kStreamPerThread);
    return with_driver([&](Driver& driver) { return wait(driver, given); });
}

struct BatchCall {
    CUdeviceptr* to;
    CUdeviceptr* from;
    std::size_t* bytes;
    std::size_t count;
    const void* attributes;
    const std::size_t* first_copies;
    std::size_t attribute_count;
};

// As cuda.h has it: each copy has attributes, with an access order. All orders are kept by the order of streams.
CUresult batch(const BatchCall& call, CUstream stream) {
    return with_driver([&](Driver& driver) {
        const auto* const attributes = static_cast<const BatchAttributes*>(call.attributes);
        if (attributes == nullptr || call.first_copies == nullptr || call.attribute_count == 0) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        for (std::size_t i = 0; i < call.attribute_count; ++i) {
            const std::size_t first = call.first_copies[i];
            const bool ordered = i == 0 ? first == 0 : first > call.first_copies[i - 1];
            const int order = attributes[i].source_access_order;
            if (!ordered || first >= call.count || order < 1 || order > 3) return CUDA_ERROR_INVALID_VALUE;
        }
        return driver.memcpy_batch_async(call.to, call.from, call.bytes, call.count, stream);
    });
}

CUresult batch_of_12(const BatchCall& call, std::size_t* failed_copy, CUstream stream) {
    if (failed_copy != nullptr) *failed_copy = SIZE_MAX;  // a refusal is said of no copy
    return batch(call, stream);
}

}  // namespace

FABRICMEM_CUDA cuMemcpy(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.memcpy(to, from, bytes); });
}
FABRICMEM_CUDA cuMemcpy_ptds(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    return copy_in_own(to, from, bytes);
}
FABRICMEM_CUDA cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.memcpy_htod(to, from, bytes); });
}
FABRICMEM_CUDA cuMemcpyHtoD_v2_ptds(CUdeviceptr to, const void* from, std::size_t bytes) {
    return checked({to}, bytes, [&] { return copy_in_own(to, as_device(from), bytes); });
}
FABRICMEM_CUDA cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.memcpy_dtoh(to, from, bytes); });
}
FABRICMEM_CUDA cuMemcpyDtoH_v2_ptds(void* to, CUdeviceptr from, std::size_t bytes) {
    return checked({from}, bytes, [&] { return copy_in_own(as_device(to), from, bytes); });
}
FABRICMEM_CUDA cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    return with_driver([&](Driver& driver) { return driver.memcpy_dtod(to, from, bytes); });
}
FABRICMEM_CUDA cuMemcpyDtoD_v2_ptds(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    return checked({to, from}, bytes, [&] { return copy_in_own(to, from, bytes); });
}

FABRICMEM_CUDA cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return copy_async(to, from, bytes, stream);
}
FABRICMEM_CUDA cuMemcpyAsync_ptsz(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return copy_async(to, from, bytes, own(stream));
}
FABRICMEM_CUDA cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, std::size_t bytes, CUstream stream) {
    return checked({to}, bytes, [&] { return copy_async(to, as_device(from), bytes, stream); });
}
FABRICMEM_CUDA cuMemcpyHtoDAsync_v2_ptsz(CUdeviceptr to, const void* from, std::size_t bytes, CUstream stream) {
    return checked({to}, bytes, [&] { return copy_async(to, as_device(from), bytes, own(stream)); });
}
FABRICMEM_CUDA cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return checked({from}, bytes, [&] { return copy_async(as_device(to), from, bytes, stream); });
}
FABRICMEM_CUDA cuMemcpyDtoHAsync_v2_ptsz(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return checked({from}, bytes, [&] { return copy_async(as_device(to), from, bytes, own(stream)); });
}
FABRICMEM_CUDA cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return checked({to, from}, bytes, [&] { return copy_async(to, from, bytes, stream); });
}
FABRICMEM_CUDA cuMemcpyDtoDAsync_v2_ptsz(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    return checked({to, from}, bytes, [&] { return copy_async(to, from, bytes, own(stream)); });
}

FABRICMEM_CUDA cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                            std::size_t bytes) {
    const CUresult result = check_contexts(to_context, from_context);
    return result == CUDA_SUCCESS ? cuMemcpyDtoD_v2(to, from, bytes) : result;
}
FABRICMEM_CUDA cuMemcpyPeer_ptds(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                 std::size_t bytes) {
    const CUresult result = check_contexts(to_context, from_context);
    return result == CUDA_SUCCESS ? copy_in_own(to, from, bytes) : result;
}
FABRICMEM_CUDA cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                 std::size_t bytes, CUstream stream) {
    const CUresult result = check_contexts(to_context, from_context);
    return result == CUDA_SUCCESS ? copy_async(to, from, bytes, stream) : result;
}
FABRICMEM_CUDA cuMemcpyPeerAsync_ptsz(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                      std::size_t bytes, CUstream stream) {
    return cuMemcpyPeerAsync(to, to_context, from, from_context, bytes, own(stream));
}

// A struct that cuda.h has from 12.8 on.
FABRICMEM_CUDA cuMemcpyBatchAsync(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes, std::size_t count,
                                  struct CUmemcpyAttributes_st* attributes, std::size_t* first_copies,
                                  std::size_t attribute_count, std::size_t* failed_copy, CUstream stream) {
    return batch_of_12({to, from, bytes, count, attributes, first_copies, attribute_count}, failed_copy, stream);
}
FABRICMEM_CUDA cuMemcpyBatchAsync_ptsz(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes, std::size_t count,
                                       struct CUmemcpyAttributes_st* attributes, std::size_t* first_copies,
                                       std::size_t attribute_count, std::size_t* failed_copy, CUstream stream) {
    return batch_of_12({to, from, bytes, count, attributes, first_copies, attribute_count}, failed_copy, own(stream));
}
FABRICMEM_CUDA cuMemcpyBatchAsync_v2(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes, std::size_t count,
                                     struct CUmemcpyAttributes_st* attributes, std::size_t* first_copies,
                                     std::size_t attribute_count, CUstream stream) {
    return batch({to, from, bytes, count, attributes, first_copies, attribute_count}, stream);
}
FABRICMEM_CUDA cuMemcpyBatchAsync_v2_ptsz(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes, std::size_t count,
                                          struct CUmemcpyAttributes_st* attributes, std::size_t* first_copies,
                                          std::size_t attribute_count, CUstream stream) {
    return batch({to, from, bytes, count, attributes, first_copies, attribute_count}, own(stream));
}

FABRICMEM_CUDA cuMemsetD8_v2(CUdeviceptr to, unsigned char value, std::size_t count) {
    return with_driver([&](Driver& driver) { return driver.memset_d8(to, value, count); });
}
FABRICMEM_CUDA cuMemsetD8_v2_ptds(CUdeviceptr to, unsigned char value, std::size_t count) {
    return set_in_own(to, value, 1, count);
}
FABRICMEM_CUDA cuMemsetD16_v2(CUdeviceptr to, unsigned short value, std::size_t count) {
    return set(to, value, 2, count);
}
FABRICMEM_CUDA cuMemsetD16_v2_ptds(CUdeviceptr to, unsigned short value, std::size_t count) {
    return set_in_own(to, value, 2, count);
}
FABRICMEM_CUDA cuMemsetD32_v2(CUdeviceptr to, unsigned int value, std::size_t count) {
    return set(to, value, 4, count);
}
FABRICMEM_CUDA cuMemsetD32_v2_ptds(CUdeviceptr to, unsigned int value, std::size_t count) {
    return set_in_own(to, value, 4, count);
}
FABRICMEM_CUDA cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
    return with_driver([&](Driver& driver) { return driver.memset_d8_async(to, value, count, stream); });
}
FABRICMEM_CUDA cuMemsetD8Async_ptsz(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
    return cuMemsetD8Async(to, value, count, own(stream));
}
FABRICMEM_CUDA cuMemsetD16Async(CUdeviceptr to, unsigned short value, std::size_t count, CUstream stream) {
    return set_async(to, value, 2, count, stream);
}
FABRICMEM_CUDA cuMemsetD16Async_ptsz(CUdeviceptr to, unsigned short value, std::size_t count, CUstream stream) {
    return set_async(to, value, 2, count, own(stream));
}
FABRICMEM_CUDA cuMemsetD32Async(CUdeviceptr to, unsigned int value, std::size_t count, CUstream stream) {
    return set_async(to, value, 4, count, stream);
}
FABRICMEM_CUDA cuMemsetD32Async_ptsz(CUdeviceptr to, unsigned int value, std::size_t count, CUstream stream) {
    return set_async(to, value, 4, count, own(stream));
}
