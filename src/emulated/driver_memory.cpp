// SPDX-License-Identifier: Apache-2.0
// The emulated driver's virtual memory management calls. None of them needs a context.
#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "emulated/emulated_driver.hpp"
#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr unsigned int kWindowsHandleTypes = 2 | 4;

CUresult check_location(const World& world, const CUmemLocation& location) {
    switch (static_cast<int>(location.type)) {
        case kLocationDevice: return world.has_device(location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
        case kLocationHost: return CUDA_SUCCESS;
        case kLocationHostNuma: return world.has_node(location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
        default: return CUDA_ERROR_INVALID_VALUE;  // HOST_NUMA_CURRENT among them
    }
}

// Bits that are no handle type are not looked at.
CUresult check_properties(const World& world, const CUmemAllocationProp* properties) {
    if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
    const auto types = static_cast<unsigned int>(properties->requestedHandleTypes);
    if ((types & kWindowsHandleTypes) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult result = check_location(world, properties->location); result != CUDA_SUCCESS) return result;
    if (static_cast<int>(properties->location.type) == kLocationDevice) return CUDA_SUCCESS;
    const bool travels = (types & (kHandlePosixFd | kHandleFabric)) != 0;
    if (static_cast<int>(properties->location.type) == kLocationHost && travels) return CUDA_ERROR_INVALID_VALUE;
    return properties->allocFlags.gpuDirectRDMACapable != 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

// The granularity is told for what could not be created, too: measured for every handle type and kind of place.
CUresult check_asked(const World& world, const CUmemAllocationProp* properties) {
    if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
    const bool device = static_cast<int>(properties->location.type) == kLocationDevice;
    return device ? check_location(world, properties->location) : CUDA_SUCCESS;
}

// What travels is the device's number on its node, not this process's ordinal.
MemoryTraits traits_of(const World& world, const CUmemAllocationProp& properties, std::size_t bytes) {
    const auto kind = static_cast<int>(properties.location.type);
    return {
        .location_kind = kind,
        .location_id =
            kind == kLocationDevice ? world.fabric.number_of(properties.location.id) : properties.location.id,
        .rdma = properties.allocFlags.gpuDirectRDMACapable != 0,
        .handle_types = static_cast<unsigned int>(properties.requestedHandleTypes) & (kHandlePosixFd | kHandleFabric),
        .bytes = bytes};
}

Slowed slowed(const World& world, CallCost cost, std::size_t bytes = 0) {
    return {world.fabric.latency_factor(), cost, bytes};
}

CUresult new_descriptor(const Memory& memory, void* result) {
    const int copy = ::fcntl(memory.descriptor(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return out_of_memory("fcntl", errno);
    std::memcpy(result, &copy, sizeof copy);
    return CUDA_SUCCESS;
}

// Memory of this node's devices is had where the process sees the device.
bool is_visible(const World& world, const Memory& memory) {
    return !memory.is_device() || world.fabric.ordinal_of(memory.traits().location_id) >= 0;
}

CUresult import_by_descriptor(World& world, int descriptor, CUmemGenericAllocationHandle* handle) {
    const Slowed slow = slowed(world, CallCost::import_descriptor);
    std::shared_ptr<Memory> memory;
    const CUresult result = import_descriptor(descriptor, world.memories, &memory);
    if (result != CUDA_SUCCESS) return result;
    if (!is_visible(world, *memory)) return CUDA_ERROR_INVALID_DEVICE;
    *handle = world.space.add_handle(std::move(memory), Origin::imported);
    return CUDA_SUCCESS;
}

CUresult import_by_handle(World& world, const FabricHandleBytes& bytes, CUmemGenericAllocationHandle* handle) {
    const Slowed slow = slowed(world, CallCost::import_fabric);
    if (!world.fabric.has_fabric()) return CUDA_ERROR_NOT_SUPPORTED;  // invented
    FabricHandle told;
    if (const CUresult result = decode(bytes, &told); result != CUDA_SUCCESS) return result;
    std::optional<RemoteImport::Source> source;
    if (const CUresult result = world.fabric.admit(told, &source); result != CUDA_SUCCESS) return result;
    std::shared_ptr<Memory> memory;
    if (const CUresult result = import_fabric(told, world.memories, &memory); result != CUDA_SUCCESS) return result;
    std::shared_ptr<const RemoteImport> remote;
    if (source.has_value()) {
        remote = std::make_shared<const RemoteImport>(world.fabric, *source);
    } else if (!is_visible(world, *memory)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *handle = world.space.add_handle(std::move(memory), Origin::imported, std::move(remote));
    return CUDA_SUCCESS;
}

}  // namespace

CUresult EmulatedDriver::mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                        CUmemAllocationGranularity_flags option) noexcept {
    return call([&](World& world) {
        if (bytes == nullptr ||
            (option != CU_MEM_ALLOC_GRANULARITY_MINIMUM && option != CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        if (const CUresult result = check_asked(world, properties); result != CUDA_SUCCESS) return result;
        *bytes = kGranularity;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                    const CUmemAllocationProp* properties, unsigned long long flags) noexcept {
    return call([&](World& world) {
        if (handle == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
        if (const CUresult result = check_properties(world, properties); result != CUDA_SUCCESS) return result;
        if (bytes == 0 || bytes % kGranularity != 0) return CUDA_ERROR_INVALID_VALUE;
        const Slowed slow = slowed(world, CallCost::create, bytes);
        MemoryTraits traits = traits_of(world, *properties, bytes);
        const int place = properties->location.id;
        // Known of boxes without fabric: the request succeeds and grants nothing.
        if (!world.has_fabric(traits.location_kind, place)) traits.handle_types &= ~kHandleFabric;
        if ((traits.handle_types & kHandleFabric) != 0) {
            // Without channels the module has no fabric memory at all: read in its sources, not measured.
            if (world.fabric.node().imex_channel_count == 0) return CUDA_ERROR_NOT_SUPPORTED;
            if (!world.fabric.channel().has_value()) return CUDA_ERROR_NOT_PERMITTED;
            const CUresult result = world.fabric.may_create(traits.location_kind == kLocationDevice ? place : -1);
            if (result != CUDA_SUCCESS) return result;
        }
        std::shared_ptr<Memory> memory;
        const CUresult result = world.memories.create(traits, world.budget(traits.location_kind, place), &memory);
        if (result == CUDA_SUCCESS) *handle = world.space.add_handle(std::move(memory), Origin::created);
        return result;
    });
}

CUresult EmulatedDriver::mem_release(CUmemGenericAllocationHandle handle) noexcept {
    return call([&](World& world) {
        const bool slow = world.fabric.latency_factor() > 0;
        const Slowed until = slowed(world, CallCost::release, slow ? world.space.bytes_of(handle) : 0);
        if (world.fabric.releases_hang() && world.space.release_ends_remote(handle)) {
            if (const CUresult result = world.fabric.wait_for(Switch::releases); result != CUDA_SUCCESS) return result;
        }
        return world.space.release(handle);
    });
}

CUresult EmulatedDriver::mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept {
    return call([&](World& world) {
        if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
        HandleId id = 0;
        const CUresult result = world.space.retain(reinterpret_cast<std::uintptr_t>(address), &id);
        if (result == CUDA_SUCCESS) *handle = id;
        return result;
    });
}

CUresult EmulatedDriver::mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                                   CUmemGenericAllocationHandle handle) noexcept {
    return call([&](World& world) {
        if (properties == nullptr) return CUDA_ERROR_INVALID_VALUE;
        std::shared_ptr<Memory> memory;
        Origin origin = Origin::created;
        bool remote = false;
        if (const CUresult result = world.space.look_up(handle, &memory, &origin, &remote); result != CUDA_SUCCESS) {
            return result;
        }
        const MemoryTraits& traits = memory->traits();
        const bool created = origin == Origin::created;
        *properties = {};
        properties->type = CU_MEM_ALLOCATION_TYPE_PINNED;
        properties->requestedHandleTypes = static_cast<CUmemAllocationHandleType>(created ? traits.handle_types : 0);
        properties->location.type = static_cast<CUmemLocationType>(traits.location_kind);
        properties->location.id =
            memory->is_device() ? world.ordinal_at(traits.location_id, remote) : traits.location_id;
        // Neither the handle types nor the RDMA flag travel.
        properties->allocFlags.gpuDirectRDMACapable = created && traits.rdma ? 1 : 0;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                                        CUmemAllocationHandleType type,
                                                        unsigned long long flags) noexcept {
    return call([&](World& world) {
        if (shareable == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
        std::shared_ptr<Memory> memory;
        Origin origin = Origin::created;
        if (const CUresult result = world.space.look_up(handle, &memory, &origin); result != CUDA_SUCCESS) {
            return result;
        }
        const auto kind = static_cast<unsigned int>(type);
        if (kind != kHandleFabric && kind != kHandlePosixFd) return CUDA_ERROR_INVALID_VALUE;
        if (origin != Origin::created || (memory->traits().handle_types & kind) == 0) return CUDA_ERROR_INVALID_VALUE;
        const bool fabric = kind == kHandleFabric;
        const Slowed slow = slowed(world, fabric ? CallCost::export_fabric : CallCost::export_descriptor);
        if (!fabric) return new_descriptor(*memory, shareable);
        Exporter exporter = world.exporter;
        exporter.fabric = world.fabric.handle_fabric().to_byte();
        const FabricHandleBytes bytes = export_fabric(*memory, exporter);
        std::memcpy(shareable, bytes.data(), bytes.size());
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                          CUmemAllocationHandleType type) noexcept {
    return call([&](World& world) {
        if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (static_cast<unsigned int>(type) == kHandlePosixFd) {
            // The driver takes the descriptor itself in the pointer's place.
            return import_by_descriptor(world, static_cast<int>(reinterpret_cast<std::intptr_t>(shareable)), handle);
        }
        if ((static_cast<unsigned int>(type) & kWindowsHandleTypes) == static_cast<unsigned int>(type) && type != 0) {
            return CUDA_ERROR_NOT_SUPPORTED;
        }
        if (static_cast<unsigned int>(type) != kHandleFabric || shareable == nullptr) return CUDA_ERROR_INVALID_VALUE;
        FabricHandleBytes bytes;
        std::memcpy(bytes.data(), shareable, bytes.size());
        return import_by_handle(world, bytes, handle);
    });
}

CUresult EmulatedDriver::mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment,
                                             CUdeviceptr hint, unsigned long long flags) noexcept {
    return call([&](World& world) {
        if (address == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
        const Slowed slow = slowed(world, CallCost::reserve);
        std::uintptr_t made = 0;
        const CUresult result = world.space.reserve(bytes, alignment, to_address(hint), &made);
        if (result == CUDA_SUCCESS) *address = made;
        return result;
    });
}

CUresult EmulatedDriver::mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept {
    return call([&](World& world) {
        const Slowed slow = slowed(world, CallCost::free);
        return world.space.free_range(to_address(address), bytes);
    });
}

CUresult EmulatedDriver::mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset,
                                 CUmemGenericAllocationHandle handle, unsigned long long flags) noexcept {
    return call([&](World& world) {
        if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
        const Slowed slow = slowed(world, CallCost::map);
        return world.space.map(to_address(address), bytes, offset, handle);
    });
}

CUresult EmulatedDriver::mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept {
    return call([&](World& world) {
        const Slowed slow = slowed(world, CallCost::unmap);
        if (world.fabric.releases_hang() && world.space.unmap_ends_remote(to_address(address), bytes)) {
            if (const CUresult result = world.fabric.wait_for(Switch::releases); result != CUDA_SUCCESS) return result;
        }
        return world.space.unmap(to_address(address), bytes);
    });
}

CUresult EmulatedDriver::mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                        std::size_t count) noexcept {
    return call([&](World& world) {
        const Slowed slow = slowed(world, CallCost::set_access, bytes);
        return world.space.set_access(to_address(address), bytes, access, count);
    });
}

CUresult EmulatedDriver::mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                                        CUdeviceptr address) noexcept {
    return call([&](World& world) {
        if (flags == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
        return world.space.get_access(to_address(address), *location, flags);
    });
}

CUresult EmulatedDriver::mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept {
    return call([&](World& world) {
        if (world.top() == nullptr) return CUDA_ERROR_INVALID_CONTEXT;  // measured, for memory of every kind
        const Place place = world.space.find(to_address(address));
        // invented: a reserved address with nothing mapped there is as unknown as heap memory.
        if (place.kind == Place::Kind::unknown || place.kind == Place::Kind::reserved) return CUDA_ERROR_NOT_FOUND;
        // Measured, and a trap: base 0 for mapped host memory. The pointer attributes tell the truth.
        const bool host = place.kind == Place::Kind::vmm && !place.memory->is_device();
        if (base != nullptr) *base = host ? 0 : place.base;
        if (bytes != nullptr) *bytes = place.bytes;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                                          CUmemRangeHandleType type,
                                                          unsigned long long flags) noexcept {
    return call([&](World& world) {
        if (handle == nullptr || flags != 0 || type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        const Place place = world.space.find(to_address(address));
        const bool mapped = place.kind == Place::Kind::vmm || place.kind == Place::Kind::device_alloc;
        if (!mapped || bytes == 0 || bytes > place.bytes - (to_address(address) - place.base)) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        // invented: host memory has no dma-buf; the descriptor is the memory's own kind of file, not a dma-buf.
        if (!place.memory->is_device()) return CUDA_ERROR_NOT_SUPPORTED;
        return new_descriptor(*place.memory, handle);
    });
}

CUresult EmulatedDriver::mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept {
    return call_with_context([&](World& world, Context& context) {
        if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
        if (bytes > kAddressLimit) return CUDA_ERROR_OUT_OF_MEMORY;
        const MemoryTraits traits{.location_kind = kLocationDevice,
                                  .location_id = world.fabric.number_of(context.device),
                                  .rdma = false,
                                  .handle_types = 0,
                                  .bytes = (bytes + kGranularity - 1) / kGranularity * kGranularity};
        std::shared_ptr<Memory> memory;
        CUresult result = world.memories.create(traits, world.budget(kLocationDevice, context.device), &memory);
        if (result != CUDA_SUCCESS) return result;
        std::uintptr_t made = 0;
        result = world.space.map_device_alloc(memory, bytes, &context, &made);
        if (result == CUDA_SUCCESS) *address = made;
        return result;
    });
}

CUresult EmulatedDriver::mem_free(CUdeviceptr address) noexcept {
    if (address == 0) return call([](World&) { return CUDA_SUCCESS; });
    return call_with_context([&](World& world, Context& context) {
        // Measured: it waits for the device's work, and hangs where a stream is held up.
        if (const CUresult result = world.streams.synchronize(context); result != CUDA_SUCCESS) return result;
        return world.space.free_device_alloc(to_address(address));
    });
}

CUresult EmulatedDriver::mem_alloc_host(void** address, std::size_t bytes) noexcept {
    return call_with_context([&](World& world, Context&) {
        if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
        if (bytes > kAddressLimit) return CUDA_ERROR_OUT_OF_MEMORY;
        std::uintptr_t made = 0;
        const CUresult result = world.space.alloc_pinned(bytes, &made);
        if (result == CUDA_SUCCESS) *address = reinterpret_cast<void*>(made);
        return result;
    });
}

CUresult EmulatedDriver::mem_free_host(void* address) noexcept {
    if (address == nullptr) return call([](World&) { return CUDA_SUCCESS; });
    return call_with_context([&](World& world, Context& context) {
        if (const CUresult result = world.streams.synchronize(context); result != CUDA_SUCCESS) return result;
        return world.space.free_pinned(reinterpret_cast<std::uintptr_t>(address));
    });
}

CUresult EmulatedDriver::ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept {
    return call([&](World& world) {
        if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const Place place = world.space.find(to_address(address));
        if (place.kind != Place::Kind::device_alloc) return CUDA_ERROR_INVALID_VALUE;
        // invented: the bytes. The seam has no call that opens them.
        const FabricHandleBytes bytes = export_fabric(*place.memory, world.exporter);
        static_assert(sizeof handle->reserved == kFabricHandleBytes);
        std::memcpy(handle->reserved, bytes.data(), bytes.size());
        return CUDA_SUCCESS;
    });
}

}  // namespace fabricmem::detail::emulated
