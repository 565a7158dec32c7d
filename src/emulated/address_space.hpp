// SPDX-License-Identifier: Apache-2.0
// Which addresses are reserved, what is mapped there, and who may touch it. Its lock is held for look-ups and for the
// mmap calls of this folder, never while bytes are copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <cuda.h>

#include "emulated/context.hpp"
#include "emulated/handle_table.hpp"
#include "emulated/memory.hpp"

namespace fabricmem::detail::emulated {

enum class Want : std::uint8_t { read, write };

/// What an address outside every reservation and every pinned block is.
enum class Outside : std::uint8_t { host_memory, refused };

/// Host memory that the driver made; goes when the last work that uses it is done.
class PinnedPages {
public:
    PinnedPages(std::uintptr_t address, std::size_t bytes) noexcept : address_(address), bytes_(bytes) {}
    PinnedPages(const PinnedPages&) = delete;
    PinnedPages& operator=(const PinnedPages&) = delete;
    ~PinnedPages();

private:
    std::uintptr_t address_;
    std::size_t bytes_;
};

/// Bytes that a copy touches: of a memory, or (memory null) of the host at an address.
struct Piece {
    std::shared_ptr<Memory> memory;
    std::shared_ptr<const PinnedPages> pinned;  ///< kept while the piece is used; null for other host memory
    std::uint64_t offset = 0;                   ///< into the memory; without one the address itself
    std::size_t bytes = 0;
};
using Pieces = std::vector<Piece>;

/// What is at an address.
struct Place {
    enum class Kind : std::uint8_t { unknown, reserved, vmm, device_alloc, pinned };
    Kind kind = Kind::unknown;
    std::uintptr_t base = 0;
    std::size_t bytes = 0;
    std::uintptr_t range_base = 0;  ///< of the reservation; what is in none: as the two above
    std::size_t range_bytes = 0;
    std::shared_ptr<Memory> memory;
    std::uint64_t buffer_id = 0;
    std::uint64_t readers = 0;  ///< a bit for each device
    std::uint64_t writers = 0;
    unsigned int host_access = kAccessNone;
    const Context* owner = nullptr;  ///< of a device_alloc
    bool remote = false;             ///< another node's memory
    bool imported = false;
};

class AddressSpace {
public:
    /// `fabric` outlives it.
    AddressSpace(const Membership& fabric, std::shared_ptr<Ledger> ledger);
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;
    ~AddressSpace();

    [[nodiscard]] HandleId add_handle(std::shared_ptr<Memory> memory, Origin origin,
                                      std::shared_ptr<const RemoteImport> remote = nullptr);
    CUresult release(HandleId id);
    CUresult look_up(HandleId id, std::shared_ptr<Memory>* memory, Origin* origin, bool* remote = nullptr);
    /// 0 for a number that is no handle.
    [[nodiscard]] std::size_t bytes_of(HandleId id);
    /// Whether this release, or this unmap, ends an import of another node's memory.
    [[nodiscard]] bool release_ends_remote(HandleId id);
    [[nodiscard]] bool unmap_ends_remote(std::uintptr_t address, std::size_t bytes);
    CUresult retain(std::uintptr_t address, HandleId* id);

    CUresult reserve(std::size_t bytes, std::size_t alignment, std::uintptr_t hint, std::uintptr_t* address);
    CUresult free_range(std::uintptr_t address, std::size_t bytes);
    CUresult map(std::uintptr_t address, std::size_t bytes, std::size_t offset, HandleId id);
    CUresult unmap(std::uintptr_t address, std::size_t bytes);
    CUresult set_access(std::uintptr_t address, std::size_t bytes, const CUmemAccessDesc* access, std::size_t count);
    CUresult get_access(std::uintptr_t address, const CUmemLocation& location, unsigned long long* flags) const;

    /// `owner`: the context that it belongs to.
    CUresult map_device_alloc(const std::shared_ptr<Memory>& memory, std::size_t bytes, const Context* owner,
                              std::uintptr_t* address);
    CUresult free_device_alloc(std::uintptr_t address);
    CUresult alloc_pinned(std::size_t bytes, std::uintptr_t* address);
    CUresult free_pinned(std::uintptr_t address);
    /// Memory of the caller's that the device may use from here on, as cuMemHostRegister makes it.
    CUresult register_host(std::uintptr_t address, std::size_t bytes);
    CUresult unregister_host(std::uintptr_t address);
    /// What a context that ends takes with it.
    void free_device_allocs_of(const Context* owner);

    [[nodiscard]] Place find(std::uintptr_t address) const;
    /// The pieces behind an address as `device` may touch them; INVALID_VALUE where it may not. Plain host memory is
    /// not checked.
    CUresult resolve(std::uintptr_t address, std::size_t bytes, int device, Want want, Outside outside,
                     Pieces* pieces) const;

    struct Counts {
        std::size_t handles = 0;
        std::size_t ranges = 0;
        std::size_t mappings = 0;
    };
    [[nodiscard]] Counts counts() const;

private:
    struct Range {
        std::size_t bytes = 0;
        bool device_alloc = false;  // cuMemAlloc's own: cuMemAddressFree refuses it
    };
    struct Mapping {
        std::size_t bytes = 0;
        HandleId handle = 0;  // 0: cuMemAlloc's, which has none
        const Context* owner = nullptr;
        std::shared_ptr<Memory> memory;
        std::uint64_t buffer_id = 0;
        std::uint64_t readers = 0;
        std::uint64_t writers = 0;
        unsigned int host_access = kAccessNone;
        const RemoteImport* remote = nullptr;  // the handle's, which a mapping keeps
        bool imported = false;
    };
    struct Pinned {
        std::size_t bytes = 0;
        std::shared_ptr<const PinnedPages> pages;  // null: memory of the caller's
        std::uint64_t buffer_id = 0;
    };
    using Ranges = std::map<std::uintptr_t, Range>;
    using Mappings = std::map<std::uintptr_t, Mapping>;

    // All with mutex_ held.
    [[nodiscard]] bool mapped_within(std::uintptr_t address, std::size_t bytes) const noexcept;
    CUresult resolve_host(std::uintptr_t address, std::size_t bytes, Outside outside, Pieces* pieces) const;
    [[nodiscard]] bool within_one_range(std::uintptr_t address, std::size_t bytes) const noexcept;
    CUresult check_access(const CUmemAccessDesc& access, const Mapping& mapping) const noexcept;
    CUresult check_device_access(int ordinal, const Mapping& mapping) const noexcept;
    CUresult check_host_access(const CUmemLocation& location, const Mapping& mapping) const noexcept;
    CUresult whole_mappings(std::uintptr_t address, std::size_t bytes, std::vector<Mappings::iterator>* found);
    static bool show_to_host(std::uintptr_t base, const Mapping& mapping, unsigned int flags) noexcept;
    void remove_device_alloc(Mappings::iterator mapping, std::shared_ptr<Memory>* memory);

    const Membership& fabric_;
    const std::shared_ptr<Ledger> ledger_;
    mutable std::mutex mutex_;
    HandleTable handles_;
    Ranges ranges_;
    Mappings mappings_;
    std::map<std::uintptr_t, Pinned> pinned_;
    std::uint64_t last_buffer_id_ = 0;
};

}  // namespace fabricmem::detail::emulated
