// SPDX-License-Identifier: Apache-2.0
// Goes along a range from allocation to allocation: what each is, and what a peer can have of it.
#include <fabricmem/from_pointer.hpp>

#include <time.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "buffer/buffer_parts.hpp"
#include "driver/check.hpp"
#include "driver/driver_state.hpp"
#include "error/refuse.hpp"
#include "platform/random_id.hpp"
#include "registry/pointer_facts.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

using detail::CallContext;
using detail::DriverState;
using detail::formatted;
using detail::PointerFacts;
using detail::refuse;

void* pointer_to(std::uintptr_t address) noexcept {
    return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// One of them, for the time of the call.
struct Walk {
    Driver& driver;
    DriverState& state;
    const FromPointerOptions& options;
};

// The part that begins at the address and is at most `bytes` long, in an allocation of that place.
MemoryPiece piece_of(std::uintptr_t address, std::uint64_t bytes, const detail::Range& whole) {
    MemoryPiece piece;
    const auto base = static_cast<std::uintptr_t>(whole.address);
    piece.address = pointer_to(address);
    piece.base = pointer_to(base);
    piece.mapped_bytes = whole.bytes;
    piece.offset = address - base;
    piece.bytes = std::min(bytes, whole.bytes - piece.offset);
    return piece;
}

// An own buffer's blob is of the whole of what was asked for, which the padding behind it is not part of; a peer that
// imports the buffer maps the padding too.
HandleBlob with_range(HandleBlob blob, const MemoryPiece& piece) {
    blob.offset = piece.offset;
    blob.bytes = piece.bytes;
    return blob;
}

std::optional<MemoryPiece> piece_of_buffer(const Walk& walk, std::uintptr_t address, std::uint64_t bytes) {
    const std::optional<detail::BookAnswer> found = walk.state.book.find(address);
    if (!found.has_value()) return std::nullopt;
    const LiveMemory& memory = found->memory;
    const auto base = static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(memory.base));
    MemoryPiece piece = piece_of(address, bytes, {base, memory.blob.mapped_bytes});
    piece.kind = memory.location.is_host() ? MemoryKind::host_vmm : MemoryKind::device_vmm;
    const bool own = found->origin == detail::BufferOrigin::own;
    piece.owner = own ? MemoryOwner::fabric_buffer : MemoryOwner::imported;
    piece.location = memory.location;
    piece.kinds = memory.kinds;
    piece.rdma = memory.blob.rdma.value_or(false);
    piece.blob = with_range(memory.blob, piece);
    return piece;
}

HandleKinds kinds_of(std::uint64_t handle_types) noexcept {
    HandleKinds kinds;
    if ((handle_types & CU_MEM_HANDLE_TYPE_FABRIC) != 0) kinds = kinds | HandleKind::fabric;
    if ((handle_types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0) kinds = kinds | HandleKind::posix_fd;
    return kinds;
}

std::uint64_t nanoseconds_now() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

// Called while `handle` is retained, so that no other memory can have its handle's bytes meanwhile.
Id128 id_of(const Walk& walk, const MemoryPiece& piece, const PointerFacts& facts, const HandleBlob& blob) {
    if (const auto own = walk.state.book.own_id_of(blob.handle); own.has_value()) return *own;
    if (facts.buffer_id == 0) return detail::random_id();  // nothing tells this mapping from a later one
    const detail::MappingKey key{reinterpret_cast<std::uintptr_t>(piece.base), piece.mapped_bytes, facts.buffer_id};
    return walk.state.foreign_ids.id_of(
        key, blob.handle, [&](const detail::MappingKey& other) { return detail::is_mapped(walk.driver, other); });
}

void export_piece(const Walk& walk, MemoryPiece& piece, const PointerFacts& facts,
                  CUmemGenericAllocationHandle handle) {
    HandleBlob blob = walk.state.memory_at(piece.location, CU_MEM_HANDLE_TYPE_FABRIC)->blob;
    detail::check(
        walk.driver.mem_export_to_shareable_handle(blob.handle.data(), handle, CU_MEM_HANDLE_TYPE_FABRIC, 0),
        walk.driver,
        CallContext{.call = "cuMemExportToShareableHandle", .bytes = piece.mapped_bytes, .location = piece.location});
    blob.kinds = HandleKind::fabric;
    blob.peer = walk.options.peer;
    blob.generation = walk.options.generation;
    blob.mapped_bytes = piece.mapped_bytes;
    blob.rdma = piece.rdma;
    blob.created_ns = nanoseconds_now();
    blob.allocation_id = id_of(walk, piece, facts, blob);
    piece.blob = with_range(blob, piece);
}

// Memory of cuMemCreate: `handle` is the reference that was retained for the question.
MemoryPiece piece_of_handle(const Walk& walk, std::uintptr_t address, std::uint64_t bytes, const PointerFacts& facts,
                            CUmemGenericAllocationHandle handle) {
    MemoryPiece piece = piece_of(address, bytes, detail::mapping_around(facts, address));
    CUmemAllocationProp properties{};
    detail::check(walk.driver.mem_get_allocation_properties_from_handle(&properties, handle), walk.driver,
                  {.call = "cuMemGetAllocationPropertiesFromHandle", .bytes = piece.mapped_bytes});
    piece.location = detail::location_of(properties);
    piece.kind = piece.location.is_host() ? MemoryKind::host_vmm : MemoryKind::device_vmm;
    piece.rdma = facts.is_rdma_capable != 0;
    // Both are without any of an import, which is not told from memory that was created so.
    const HandleKinds asked = kinds_of(static_cast<std::uint64_t>(properties.requestedHandleTypes));
    piece.kinds = HandleKinds::from_bits(asked.bits() & kinds_of(facts.handle_types).bits());
    if (piece.kinds.has(HandleKind::fabric)) {
        export_piece(walk, piece, facts, handle);
    } else {
        piece.why_not = formatted(
            "cuMemCreate made it without a fabric handle (handle types: {}): create it with CU_MEM_HANDLE_TYPE_FABRIC, "
            "or as a FabricBuffer; or it was imported: use the blob or the handle it came from",
            to_string(piece.kinds));
    }
    return piece;
}

MemoryKind kind_of_other(const PointerFacts& facts) noexcept {
    if (facts.is_managed != 0) return MemoryKind::managed;
    if (facts.memory_type == CU_MEMORYTYPE_HOST) return MemoryKind::pinned_host;
    return facts.pool != 0 ? MemoryKind::device_pool : MemoryKind::device_alloc;
}

std::string why_not(MemoryKind kind) {
    switch (kind) {
        case MemoryKind::device_alloc:
            return "not remotely writable by a fabric handle: it is cudaMalloc memory (cuda_ipc, within a node, which "
                   "this version does not import): allocate it as a FabricBuffer";
        case MemoryKind::device_pool:
            return "not remotely writable: memory of a stream-ordered pool has no handle of its own: allocate it as a "
                   "FabricBuffer";
        case MemoryKind::managed:
            return "not remotely writable: managed memory moves and has no handle: allocate it as a FabricBuffer";
        case MemoryKind::pinned_host:
            return "not remotely writable: page-locked host memory has no handle: allocate it as a FabricBuffer on a "
                   "host NUMA node";
        default:
            return "not remotely writable: it is plain host memory (heap, stack, a file), which no handle names: "
                   "allocate it as a FabricBuffer on a host NUMA node";
    }
}

MemoryPiece piece_of_other(std::uintptr_t address, std::uint64_t bytes, const PointerFacts& facts) {
    const detail::Range whole = facts.reservation.bytes != 0 ? facts.reservation : facts.mapping;
    if (address - static_cast<std::uintptr_t>(whole.address) >= whole.bytes)
        refuse(formatted("the driver knows {} and names no range that it is in", pointer_to(address)));
    MemoryPiece piece = piece_of(address, bytes, whole);
    piece.kind = kind_of_other(facts);
    if (facts.memory_type != CU_MEMORYTYPE_HOST) piece.location = Location::device(std::max(-1, facts.device));
    if (facts.is_ipc_capable != 0) piece.kinds = HandleKind::cuda_ipc;
    piece.rdma = facts.is_rdma_capable != 0;
    piece.why_not = why_not(piece.kind);
    return piece;
}

// Memory that the driver does not know: the CPU's, or nobody's.
MemoryPiece piece_of_unknown(std::uintptr_t address, std::uint64_t bytes) {
    for (const std::uintptr_t byte : {address, address + (bytes - 1)}) {
        if (detail::is_readable(byte)) continue;
        throw Error({.kind = ErrorKind::bad_argument,
                     .bytes = bytes,
                     .subject = formatted("nothing is mapped at {}", pointer_to(byte)),
                     .cause = "the memory was freed or unmapped, or this is no address, or it belongs to another "
                              "driver object's emulated device",
                     .cure = "ask before the memory is freed"});
    }
    MemoryPiece piece = piece_of(address, bytes, {static_cast<CUdeviceptr>(address), bytes});
    piece.why_not = why_not(MemoryKind::plain_host);
    return piece;
}

MemoryPiece piece_at(const Walk& walk, std::uintptr_t address, std::uint64_t bytes) {
    if (std::optional<MemoryPiece> ours = piece_of_buffer(walk, address, bytes); ours.has_value()) return *ours;
    const PointerFacts facts = detail::facts_of(walk.driver, address);
    if (facts.memory_type == 0) return piece_of_unknown(address, bytes);
    detail::Allocation retained = detail::retain(walk.driver, address, facts);
    if (!retained) return piece_of_other(address, bytes, facts);
    MemoryPiece piece = piece_of_handle(walk, address, bytes, facts, retained.get());
    detail::check(retained.close(), walk.driver,
                  {.call = "cuMemRelease", .bytes = piece.mapped_bytes, .location = piece.location});
    return piece;
}

bool is_vmm(const MemoryPiece& piece) noexcept {
    return piece.kind == MemoryKind::device_vmm || piece.kind == MemoryKind::host_vmm;
}

[[noreturn]] void refuse_length(const void* pointer, std::uint64_t bytes, std::uint64_t there, MemoryKind kind) {
    throw Error({.kind = ErrorKind::bad_argument,
                 .bytes = bytes,
                 .subject = formatted("a range of {} bytes at {}", bytes, pointer),
                 .cause = formatted("only {} of them are mapped there ({})", there, to_string(kind))});
}

void check_range(const void* pointer, std::uint64_t bytes) {
    if (pointer == nullptr) refuse("a null pointer");
    if (bytes == 0) refuse(formatted("a range of 0 bytes at {}", pointer));
    if (bytes - 1 > std::numeric_limits<std::uintptr_t>::max() - reinterpret_cast<std::uintptr_t>(pointer))
        refuse(formatted("a range of {} bytes at {} goes beyond the end of the address space", bytes, pointer));
}

}  // namespace

std::string_view to_string(MemoryKind kind) noexcept {
    switch (kind) {
        case MemoryKind::device_vmm: return "device_vmm";
        case MemoryKind::host_vmm: return "host_vmm";
        case MemoryKind::device_alloc: return "device_alloc";
        case MemoryKind::device_pool: return "device_pool";
        case MemoryKind::managed: return "managed";
        case MemoryKind::pinned_host: return "pinned_host";
        case MemoryKind::plain_host: return "plain_host";
    }
    return "unknown";
}

bool PointerMemory::is_remotely_writable() const noexcept {
    return std::all_of(pieces.begin(), pieces.end(), [](const MemoryPiece& piece) { return piece.blob.has_value(); });
}

std::vector<HandleBlob> PointerMemory::blobs() const {
    std::vector<HandleBlob> all;
    all.reserve(pieces.size());
    for (const MemoryPiece& piece : pieces) {
        if (!piece.blob.has_value()) {
            throw Error(
                {.kind = ErrorKind::unsupported,
                 .bytes = piece.bytes,
                 .subject = formatted("{} bytes of {} at {}", piece.bytes, to_string(piece.kind), piece.address),
                 .cause = piece.why_not});
        }
        all.push_back(*piece.blob);
    }
    return all;
}

std::string PointerMemory::describe() const {
    std::string text;
    for (const MemoryPiece& piece : pieces) {
        if (!text.empty()) text += '\n';
        text += formatted("{} bytes of {} on {} at {}, {} bytes into {} at {}", piece.bytes, to_string(piece.kind),
                          to_string(piece.location), piece.address, piece.offset, piece.mapped_bytes, piece.base);
        if (!piece.why_not.empty()) text += ": " + piece.why_not;
    }
    return text;
}

PointerMemory from_pointer(const std::shared_ptr<Driver>& driver, const void* pointer, std::uint64_t bytes,
                           const FromPointerOptions& options) {
    detail::check_driver(driver);
    check_range(pointer, bytes);
    const Walk walk{*driver, DriverState::of(*driver), options};
    const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
    PointerMemory memory;
    for (std::uint64_t done = 0; done < bytes;) {
        try {
            MemoryPiece piece = piece_at(walk, begin + done, bytes - done);
            // Side by side is one range for cuMemCreate memory alone: whoever reserved it mapped them there.
            if (done != 0 && !is_vmm(piece)) refuse_length(pointer, bytes, done, memory.pieces.back().kind);
            done += piece.bytes;
            memory.pieces.push_back(std::move(piece));
        } catch (const Error& error) {
            if (done == 0 || error.kind() != ErrorKind::bad_argument || error.code() != 0) throw;
            refuse_length(pointer, bytes, done, memory.pieces.back().kind);
        }
        if (done < bytes && !is_vmm(memory.pieces.back()))
            refuse_length(pointer, bytes, done, memory.pieces.back().kind);
    }
    return memory;
}

}  // namespace fabricmem
