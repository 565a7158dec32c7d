// SPDX-License-Identifier: Apache-2.0
// The emulated driver's pointer attributes.
#include <cstring>

#include "emulated/emulated_driver.hpp"
#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr int kMemoryTypeHost = 1;
constexpr int kMemoryTypeDevice = 2;
// Of headers newer than 12.3, or not the same in all.
constexpr int kMemoryBlockId = 20;
constexpr std::uint64_t kPage = std::uint64_t{2} << 20;  // what all memory is mapped by

// An answer and how many bytes of it the caller's variable takes.
struct Answer {
    CUresult result = CUDA_SUCCESS;
    std::uint64_t value = 0;
    std::size_t bytes = 0;
};

Answer whole(std::uint64_t value) { return {CUDA_SUCCESS, value, sizeof(std::uint64_t)}; }
Answer number(int value) { return {CUDA_SUCCESS, static_cast<std::uint32_t>(value), sizeof(int)}; }
Answer refusal() { return {CUDA_ERROR_INVALID_VALUE, 0, 0}; }

struct Asked {
    const World& world;
    const Place& place;
    std::uintptr_t address;
};

Answer range_answer(const Asked& asked, int attribute) {
    switch (attribute) {
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: return whole(asked.place.range_base);
        case CU_POINTER_ATTRIBUTE_RANGE_SIZE: return whole(asked.place.range_bytes);
        case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR: return whole(asked.place.base);
        case CU_POINTER_ATTRIBUTE_MAPPING_SIZE: return whole((asked.place.bytes + kPage - 1) / kPage * kPage);
        default: return refusal();
    }
}

unsigned int access_of(const Asked& asked) {
    const Context* const context = asked.world.top();
    if (context == nullptr) return kAccessNone;
    if (!asked.place.memory) return kAccessReadWrite;
    const std::uint64_t bit = std::uint64_t{1} << context->device;
    if ((asked.place.writers & bit) != 0) return kAccessReadWrite;
    return (asked.place.readers & bit) != 0 ? kAccessRead : kAccessNone;
}

// Of memory that the driver knows. invented: whatever docs/driver-notes.md has no case for.
Answer answer(const Asked& asked, int attribute) {
    const Place& place = asked.place;
    const Memory* const memory = place.memory.get();
    const bool device = memory != nullptr && memory->is_device();
    switch (attribute) {
        case CU_POINTER_ATTRIBUTE_CONTEXT: return whole(reinterpret_cast<std::uintptr_t>(place.owner));
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: return number(device ? kMemoryTypeDevice : kMemoryTypeHost);
        case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: return whole(asked.address);
        case CU_POINTER_ATTRIBUTE_HOST_POINTER:
            return device ? Answer{CUDA_ERROR_INVALID_VALUE, 0, sizeof(std::uint64_t)} : whole(asked.address);
        case CU_POINTER_ATTRIBUTE_BUFFER_ID: return whole(place.buffer_id);
        case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        case CU_POINTER_ATTRIBUTE_IS_MANAGED: return number(0);
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: {
            return number(device ? asked.world.ordinal_at(memory->traits().location_id, place.remote) : kNoDevice);
        }
        case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
            return number(place.kind == Place::Kind::device_alloc ? 1 : 0);
        case CU_POINTER_ATTRIBUTE_MAPPED: return number(1);
        case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
            return whole(memory == nullptr || place.imported ? 0 : memory->traits().handle_types);
        case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
            return number(place.kind == Place::Kind::device_alloc || (memory != nullptr && memory->traits().rdma) ? 1
                                                                                                                  : 0);
        case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: return number(static_cast<int>(access_of(asked)));
        case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: return whole(0);
        case kMemoryBlockId: return whole(memory == nullptr ? place.buffer_id : mix(memory->key().second));
        default: return range_answer(asked, attribute);
    }
}

bool is_known(const Place& place) { return place.kind != Place::Kind::unknown && place.kind != Place::Kind::reserved; }

}  // namespace

CUresult EmulatedDriver::pointer_get_attribute(void* value, CUpointer_attribute attribute,
                                               CUdeviceptr address) noexcept {
    return call([&](World& world) {
        if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const Place place = world.space.find(static_cast<std::uintptr_t>(address));
        if (!is_known(place)) return CUDA_ERROR_INVALID_VALUE;
        const Answer found = answer({world, place, static_cast<std::uintptr_t>(address)}, static_cast<int>(attribute));
        if (found.result == CUDA_SUCCESS) std::memcpy(value, &found.value, found.bytes);
        return found.result;
    });
}

CUresult EmulatedDriver::pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                                CUdeviceptr address) noexcept {
    return call([&](World& world) {
        if (count == 0 || attributes == nullptr || values == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const Place place = world.space.find(static_cast<std::uintptr_t>(address));
        for (unsigned int i = 0; i < count; ++i) {
            if (values[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
            // As the driver does: what does not apply, or is asked of unknown memory, is zero and no error.
            Answer found =
                answer({world, place, static_cast<std::uintptr_t>(address)}, static_cast<int>(attributes[i]));
            if (!is_known(place)) found.value = 0;
            std::memcpy(values[i], &found.value, found.bytes);
        }
        return CUDA_SUCCESS;
    });
}

}  // namespace fabricmem::detail::emulated
