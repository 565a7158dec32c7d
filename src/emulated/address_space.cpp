// SPDX-License-Identifier: Apache-2.0
// Reservations, mappings and handles. Access rights are in address_access.cpp.
#include "emulated/address_space.hpp"

#include <cerrno>

#include "emulated/address_find.hpp"
#include "emulated/numbers.hpp"
#include "emulated/pages.hpp"

namespace fabricmem::detail::emulated {

namespace {

bool is_granular(std::uint64_t value) noexcept { return value % kGranularity == 0; }
bool is_power_of_two(std::uint64_t value) noexcept { return value != 0 && (value & (value - 1)) == 0; }

}  // namespace

AddressSpace::AddressSpace(const Membership& fabric, std::shared_ptr<Ledger> ledger)
    : fabric_(fabric), ledger_(std::move(ledger)) {}

AddressSpace::~AddressSpace() {
    for (const auto& [address, range] : ranges_) free_pages(address, range.bytes);
}

PinnedPages::~PinnedPages() { free_pages(address_, bytes_); }

HandleId AddressSpace::add_handle(std::shared_ptr<Memory> memory, Origin origin,
                                  std::shared_ptr<const RemoteImport> remote) {
    const std::lock_guard lock(mutex_);
    return handles_.add(std::move(memory), origin, std::move(remote));
}

CUresult AddressSpace::release(HandleId id) {
    std::shared_ptr<Memory> last;  // before the lock: ends after it
    const std::lock_guard lock(mutex_);
    if (handles_.find(id) == nullptr) return CUDA_ERROR_INVALID_VALUE;
    last = handles_.release(id);
    return CUDA_SUCCESS;
}

std::size_t AddressSpace::bytes_of(HandleId id) {
    const std::lock_guard lock(mutex_);
    const HandleRecord* const record = handles_.find(id);
    return record == nullptr ? 0 : record->memory->traits().bytes;
}

bool AddressSpace::release_ends_remote(HandleId id) {
    const std::lock_guard lock(mutex_);
    return handles_.ends_remote(id, HandleTable::Dropped::reference);
}

bool AddressSpace::unmap_ends_remote(std::uintptr_t address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (auto mapping = mappings_.lower_bound(address); mapping != mappings_.end(); ++mapping) {
        if (mapping->first - address >= bytes) break;
        if (handles_.ends_remote(mapping->second.handle, HandleTable::Dropped::mapping)) return true;
    }
    return false;
}

CUresult AddressSpace::look_up(HandleId id, std::shared_ptr<Memory>* memory, Origin* origin, bool* remote) {
    const std::lock_guard lock(mutex_);
    const HandleRecord* const record = handles_.find(id);
    if (record == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *memory = record->memory;
    *origin = record->origin;
    if (remote != nullptr) *remote = record->remote != nullptr;
    return CUDA_SUCCESS;
}

CUresult AddressSpace::retain(std::uintptr_t address, HandleId* id) {
    const std::lock_guard lock(mutex_);
    const auto mapping = entry_around(mappings_, address);
    if (mapping == mappings_.end() || mapping->second.handle == 0) return CUDA_ERROR_INVALID_VALUE;
    *id = mapping->second.handle;
    handles_.retain(*id);
    return CUDA_SUCCESS;
}

CUresult AddressSpace::reserve(std::size_t bytes, std::size_t alignment, std::uintptr_t hint, std::uintptr_t* address) {
    if (bytes == 0 || !is_granular(bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (alignment != 0 && !is_power_of_two(alignment)) return CUDA_ERROR_INVALID_VALUE;
    if (bytes > kAddressLimit || alignment > kAddressLimit) return CUDA_ERROR_OUT_OF_MEMORY;  // invented: which code
    if (alignment < kGranularity) alignment = kGranularity;
    const std::lock_guard lock(mutex_);
    const std::uintptr_t made = reserve_pages(bytes, alignment, hint);
    if (made == 0) return out_of_memory("mmap of a reservation", errno);
    try {
        ranges_.emplace(made, Range{bytes, false});
    } catch (...) {
        free_pages(made, bytes);
        throw;
    }
    *address = made;
    return CUDA_SUCCESS;
}

CUresult AddressSpace::free_range(std::uintptr_t address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto range = ranges_.find(address);
    if (range == ranges_.end() || range->second.bytes != bytes || range->second.device_alloc) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (mapped_within(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (!free_pages(address, bytes)) return out_of_memory("munmap of a reservation", errno);
    ranges_.erase(range);
    return CUDA_SUCCESS;
}

bool AddressSpace::mapped_within(std::uintptr_t address, std::size_t bytes) const noexcept {
    const auto next = mappings_.lower_bound(address);
    if (next != mappings_.end() && next->first - address < bytes) return true;
    return entry_around(mappings_, address) != mappings_.end();
}

bool AddressSpace::within_one_range(std::uintptr_t address, std::size_t bytes) const noexcept {
    const auto range = entry_around(ranges_, address);
    if (range == ranges_.end() || range->second.device_alloc) return false;
    return bytes <= range->second.bytes - (address - range->first);
}

CUresult AddressSpace::map(std::uintptr_t address, std::size_t bytes, std::size_t offset, HandleId id) {
    if (address == 0 || bytes == 0 || !is_granular(address)) return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(mutex_);
    HandleRecord* const record = handles_.find(id);
    if (record == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (offset != 0 || bytes != record->memory->traits().bytes) return CUDA_ERROR_NOT_SUPPORTED;
    // invented: a mapping that crosses into a neighbouring reservation is refused.
    if (!within_one_range(address, bytes) || mapped_within(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (record->remote) {
        if (const CUresult result = record->remote->may_map(); result != CUDA_SUCCESS) return result;
    }
    mappings_.emplace(address, Mapping{.bytes = bytes,
                                       .handle = id,
                                       .memory = record->memory,
                                       .buffer_id = ++last_buffer_id_,
                                       .readers = 0,
                                       .writers = 0,
                                       .host_access = kAccessNone,
                                       .remote = record->remote.get(),
                                       .imported = record->origin == Origin::imported});
    handles_.add_mapping(id);
    return CUDA_SUCCESS;
}

CUresult AddressSpace::unmap(std::uintptr_t address, std::size_t bytes) {
    if (bytes == 0 || !is_granular(address) || !is_granular(bytes)) return CUDA_ERROR_INVALID_VALUE;
    Mappings ended;  // before the lock: they end after it. Moved as they are: giving back needs no memory
    const std::lock_guard lock(mutex_);
    if (!within_one_range(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
    const auto first = mappings_.lower_bound(address);
    if (entry_around(mappings_, address) != mappings_.end() && (first == mappings_.end() || first->first != address)) {
        return CUDA_ERROR_INVALID_VALUE;  // it begins inside a mapping
    }
    auto last = first;
    for (; last != mappings_.end() && last->first - address < bytes; ++last) {
        if (last->first - address + last->second.bytes > bytes) return CUDA_ERROR_INVALID_VALUE;  // it ends inside one
    }
    for (auto mapping = first; mapping != last; ++mapping) {
        if (mapping->second.host_access != kAccessNone && !hide_pages(mapping->first, mapping->second.bytes)) {
            return out_of_memory("mmap of a reservation", errno);
        }
        mapping->second.host_access = kAccessNone;
    }
    for (auto mapping = first; mapping != last;) {
        const auto here = mapping++;
        // Not the last that keeps the memory: the mapping does until it ends.
        static_cast<void>(handles_.remove_mapping(here->second.handle));
        ended.insert(mappings_.extract(here));
    }
    return CUDA_SUCCESS;
}

CUresult AddressSpace::map_device_alloc(const std::shared_ptr<Memory>& memory, std::size_t bytes, const Context* owner,
                                        std::uintptr_t* address) {
    const std::lock_guard lock(mutex_);
    const std::size_t reserved = memory->traits().bytes;
    const std::uintptr_t made = reserve_pages(reserved, kGranularity, 0);
    if (made == 0) return out_of_memory("mmap of a reservation", errno);
    std::uint64_t everyone = 0;  // invented: peers need no cuCtxEnablePeerAccess
    for (int ordinal = 0; ordinal < fabric_.device_count(); ++ordinal) {
        if (fabric_.can_access(ordinal, memory->traits().location_id)) everyone |= std::uint64_t{1} << ordinal;
    }
    try {
        ranges_.emplace(made, Range{reserved, true});
        mappings_.emplace(made, Mapping{.bytes = bytes,
                                        .handle = 0,
                                        .owner = owner,
                                        .memory = memory,
                                        .buffer_id = ++last_buffer_id_,
                                        .readers = everyone,
                                        .writers = everyone,
                                        .host_access = kAccessNone,
                                        .remote = nullptr});
    } catch (...) {
        ranges_.erase(made);
        free_pages(made, reserved);
        throw;
    }
    *address = made;
    return CUDA_SUCCESS;
}

void AddressSpace::remove_device_alloc(Mappings::iterator mapping, std::shared_ptr<Memory>* memory) {
    const auto range = ranges_.find(mapping->first);
    *memory = std::move(mapping->second.memory);
    mappings_.erase(mapping);
    free_pages(range->first, range->second.bytes);
    ranges_.erase(range);
}

CUresult AddressSpace::free_device_alloc(std::uintptr_t address) {
    std::shared_ptr<Memory> ended;
    const std::lock_guard lock(mutex_);
    const auto mapping = mappings_.find(address);
    if (mapping == mappings_.end() || mapping->second.handle != 0) return CUDA_ERROR_INVALID_VALUE;
    remove_device_alloc(mapping, &ended);
    return CUDA_SUCCESS;
}

void AddressSpace::free_device_allocs_of(const Context* owner) {
    std::vector<std::shared_ptr<Memory>> ended;
    const std::lock_guard lock(mutex_);
    for (auto mapping = mappings_.begin(); mapping != mappings_.end();) {
        const auto here = mapping++;
        if (here->second.handle != 0 || here->second.owner != owner) continue;
        remove_device_alloc(here, &ended.emplace_back());
    }
}

CUresult AddressSpace::alloc_pinned(std::size_t bytes, std::uintptr_t* address) {
    const std::lock_guard lock(mutex_);
    const std::uintptr_t made = allocate_pages(bytes);
    if (made == 0) return out_of_memory("mmap of host memory", errno);
    std::shared_ptr<const PinnedPages> pages;
    try {
        pages = std::make_shared<const PinnedPages>(made, bytes);
    } catch (...) {
        free_pages(made, bytes);
        throw;
    }
    pinned_.emplace(made, Pinned{bytes, std::move(pages), ++last_buffer_id_});
    ledger_->allocations.fetch_add(1, std::memory_order_relaxed);
    *address = made;
    return CUDA_SUCCESS;
}

CUresult AddressSpace::free_pinned(std::uintptr_t address) {
    const std::lock_guard lock(mutex_);
    const auto pinned = pinned_.find(address);
    if (pinned == pinned_.end() || pinned->second.pages == nullptr) return CUDA_ERROR_INVALID_VALUE;
    pinned_.erase(pinned);
    ledger_->allocations.fetch_sub(1, std::memory_order_relaxed);
    return CUDA_SUCCESS;
}

CUresult AddressSpace::register_host(std::uintptr_t address, std::size_t bytes) {
    if (address == 0 || bytes == 0 || bytes > kAddressLimit || address + bytes < address)
        return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(mutex_);
    const auto overlaps = [&](const auto& table) {
        const auto next = table.lower_bound(address);
        return entry_around(table, address) != table.end() || (next != table.end() && next->first - address < bytes);
    };
    if (overlaps(ranges_)) return CUDA_ERROR_INVALID_VALUE;
    if (overlaps(pinned_)) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    pinned_.emplace(address, Pinned{bytes, nullptr, ++last_buffer_id_});
    return CUDA_SUCCESS;
}

CUresult AddressSpace::unregister_host(std::uintptr_t address) {
    const std::lock_guard lock(mutex_);
    const auto found = pinned_.find(address);
    if (found == pinned_.end() || found->second.pages != nullptr) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    pinned_.erase(found);
    return CUDA_SUCCESS;
}

AddressSpace::Counts AddressSpace::counts() const {
    const std::lock_guard lock(mutex_);
    return {.handles = handles_.references(), .ranges = ranges_.size(), .mappings = mappings_.size()};
}

}  // namespace fabricmem::detail::emulated
