// SPDX-License-Identifier: Apache-2.0
// Access rights of mappings, and what a copy may touch.
#include <cerrno>

#include "emulated/address_find.hpp"
#include "emulated/address_space.hpp"
#include "emulated/numbers.hpp"
#include "emulated/pages.hpp"

namespace fabricmem::detail::emulated {

namespace {

bool is_host(int kind) noexcept { return kind == kLocationHost || kind == kLocationHostNuma; }

std::uint64_t bit(int device) noexcept { return std::uint64_t{1} << device; }

void set_bit(std::uint64_t* mask, int device, bool on) noexcept {
    *mask = on ? *mask | bit(device) : *mask & ~bit(device);
}

}  // namespace

CUresult AddressSpace::check_device_access(int ordinal, const Mapping& mapping) const noexcept {
    if (ordinal < 0 || ordinal >= fabric_.device_count()) return CUDA_ERROR_INVALID_VALUE;  // measured; cuda.h says 101
    if (mapping.remote != nullptr) return mapping.remote->may_access(ordinal);
    if (!mapping.memory->is_device()) return CUDA_SUCCESS;
    // invented: the code for a device without P2P access.
    return fabric_.can_access(ordinal, mapping.memory->traits().location_id) ? CUDA_SUCCESS
                                                                             : CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}

CUresult AddressSpace::check_host_access(const CUmemLocation& location, const Mapping& mapping) const noexcept {
    const auto nodes = static_cast<int>(fabric_.node().numa_node_bytes.size());
    if (static_cast<int>(location.type) == kLocationHostNuma && (location.id < 0 || location.id >= nodes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // invented: no CPU reaches another node's memory, of whatever kind.
    if (mapping.remote != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    const bool reaches = !mapping.memory->is_device() || fabric_.node().coherence == Coherence::cpu_and_gpu;
    return reaches ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult AddressSpace::check_access(const CUmemAccessDesc& access, const Mapping& mapping) const noexcept {
    const int kind = static_cast<int>(access.location.type);
    const auto flags = static_cast<unsigned int>(access.flags);
    if (flags != kAccessNone && flags != kAccessRead && flags != kAccessReadWrite) return CUDA_ERROR_INVALID_VALUE;
    if (kind == kLocationDevice) return check_device_access(access.location.id, mapping);
    return is_host(kind) ? check_host_access(access.location, mapping) : CUDA_ERROR_INVALID_VALUE;
}

CUresult AddressSpace::whole_mappings(std::uintptr_t address, std::size_t bytes,
                                      std::vector<Mappings::iterator>* found) {
    std::uintptr_t next = address;
    for (auto mapping = mappings_.find(address); next - address < bytes; ++mapping) {
        if (mapping == mappings_.end() || mapping->first != next || mapping->second.handle == 0) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        found->push_back(mapping);
        next += mapping->second.bytes;
    }
    return next - address == bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool AddressSpace::show_to_host(std::uintptr_t base, const Mapping& mapping, unsigned int flags) noexcept {
    if (flags == mapping.host_access) return true;
    if (flags == kAccessNone) return hide_pages(base, mapping.bytes);
    return show_file(base, mapping.bytes, mapping.memory->descriptor(), flags == kAccessReadWrite);
}

CUresult AddressSpace::set_access(std::uintptr_t address, std::size_t bytes, const CUmemAccessDesc* access,
                                  std::size_t count) {
    if (bytes == 0 || access == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(mutex_);
    std::vector<Mappings::iterator> found;
    if (const CUresult result = whole_mappings(address, bytes, &found); result != CUDA_SUCCESS) return result;
    // All is checked before anything is changed.
    for (const auto& mapping : found) {
        for (std::size_t i = 0; i < count; ++i) {
            if (const CUresult result = check_access(access[i], mapping->second); result != CUDA_SUCCESS) return result;
        }
    }
    for (const auto& mapping : found) {
        unsigned int host_access = mapping->second.host_access;
        for (std::size_t i = 0; i < count; ++i) {
            if (is_host(static_cast<int>(access[i].location.type))) host_access = access[i].flags;
        }
        if (!show_to_host(mapping->first, mapping->second, host_access)) return out_of_memory("mmap", errno);
        mapping->second.host_access = host_access;
        for (std::size_t i = 0; i < count; ++i) {
            if (static_cast<int>(access[i].location.type) != kLocationDevice) continue;
            const auto flags = static_cast<unsigned int>(access[i].flags);
            set_bit(&mapping->second.readers, access[i].location.id, flags != kAccessNone);
            set_bit(&mapping->second.writers, access[i].location.id, flags == kAccessReadWrite);
        }
    }
    return CUDA_SUCCESS;
}

CUresult AddressSpace::get_access(std::uintptr_t address, const CUmemLocation& location,
                                  unsigned long long* flags) const {
    const int kind = static_cast<int>(location.type);
    const std::lock_guard lock(mutex_);
    const auto mapping = entry_around(mappings_, address);
    if (mapping == mappings_.end() || mapping->second.handle == 0) return CUDA_ERROR_INVALID_VALUE;
    if (is_host(kind)) {
        *flags = mapping->second.host_access;
        return CUDA_SUCCESS;
    }
    if (kind != kLocationDevice) return CUDA_ERROR_INVALID_DEVICE;
    if (location.id < 0 || location.id >= fabric_.device_count()) return CUDA_ERROR_INVALID_DEVICE;
    const bool reads = (mapping->second.readers & bit(location.id)) != 0;
    const bool writes = (mapping->second.writers & bit(location.id)) != 0;
    *flags = writes ? kAccessReadWrite : (reads ? kAccessRead : kAccessNone);
    return CUDA_SUCCESS;
}

Place AddressSpace::find(std::uintptr_t address) const {
    const std::lock_guard lock(mutex_);
    if (const auto found = entry_around(mappings_, address); found != mappings_.end()) {
        const Mapping& mapping = found->second;
        const auto range = mapping.handle != 0 ? entry_around(ranges_, address) : ranges_.end();
        return {.kind = mapping.handle != 0 ? Place::Kind::vmm : Place::Kind::device_alloc,
                .base = found->first,
                .bytes = mapping.bytes,
                .range_base = range == ranges_.end() ? found->first : range->first,
                .range_bytes = range == ranges_.end() ? mapping.bytes : range->second.bytes,
                .memory = mapping.memory,
                .buffer_id = mapping.buffer_id,
                .readers = mapping.readers,
                .writers = mapping.writers,
                .host_access = mapping.host_access,
                .owner = mapping.owner,
                .remote = mapping.remote != nullptr,
                .imported = mapping.imported};
    }
    Place place;
    if (const auto found = entry_around(ranges_, address); found != ranges_.end()) {
        place.kind = Place::Kind::reserved;
        place.base = found->first;
        place.bytes = found->second.bytes;
    } else if (const auto pinned = entry_around(pinned_, address); pinned != pinned_.end()) {
        place.kind = Place::Kind::pinned;
        place.base = pinned->first;
        place.bytes = pinned->second.bytes;
        place.buffer_id = pinned->second.buffer_id;
    }
    place.range_base = place.base;
    place.range_bytes = place.bytes;
    return place;
}

CUresult AddressSpace::resolve_host(std::uintptr_t address, std::size_t bytes, Outside outside, Pieces* pieces) const {
    if (const auto pinned = entry_around(pinned_, address); pinned != pinned_.end()) {
        if (bytes > pinned->second.bytes - (address - pinned->first)) return CUDA_ERROR_INVALID_VALUE;
        pieces->push_back({nullptr, pinned->second.pages, address, bytes});
        return CUDA_SUCCESS;
    }
    const auto next = ranges_.lower_bound(address);
    const bool runs_into_a_range = next != ranges_.end() && next->first - address < bytes;
    if (outside == Outside::refused || runs_into_a_range) return CUDA_ERROR_INVALID_VALUE;
    pieces->push_back({nullptr, nullptr, address, bytes});
    return CUDA_SUCCESS;
}

CUresult AddressSpace::resolve(std::uintptr_t address, std::size_t bytes, int device, Want want, Outside outside,
                               Pieces* pieces) const {
    pieces->clear();
    if (address == 0 || bytes > kAddressLimit || address + bytes < address) return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(mutex_);
    if (entry_around(ranges_, address) == ranges_.end()) return resolve_host(address, bytes, outside, pieces);
    while (bytes != 0) {  // over as many mappings as lie side by side
        const auto found = entry_around(mappings_, address);
        if (found == mappings_.end()) return CUDA_ERROR_INVALID_VALUE;
        const Mapping& mapping = found->second;
        // With PROT_READ alone a copy or memset is refused; invented: so is a write-value.
        const std::uint64_t allowed = want == Want::read ? mapping.readers : mapping.writers;
        if ((allowed & bit(device)) == 0) return CUDA_ERROR_INVALID_VALUE;
        const std::uint64_t offset = address - found->first;
        const std::size_t here = mapping.bytes - offset < bytes ? mapping.bytes - offset : bytes;
        pieces->push_back({mapping.memory, nullptr, offset, here});
        address += here;
        bytes -= here;
    }
    return CUDA_SUCCESS;
}

}  // namespace fabricmem::detail::emulated
