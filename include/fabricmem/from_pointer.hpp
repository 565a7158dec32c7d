// SPDX-License-Identifier: Apache-2.0
// What memory that others made is (a torch tensor, an NCCL buffer), and the blobs by which a peer can import it. No
// CUDA type.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/export.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

/// Who made the memory, as far as the driver tells.
enum class MemoryKind : std::uint8_t {
    device_vmm,    ///< cuMemCreate, of a device
    host_vmm,      ///< cuMemCreate, of a host NUMA node
    device_alloc,  ///< cuMemAlloc, cudaMalloc
    device_pool,   ///< a stream-ordered pool: cuMemAllocAsync, cudaMallocAsync
    managed,       ///< cuMemAllocManaged, cudaMallocManaged
    pinned_host,   ///< cuMemAllocHost, cudaMallocHost, cuMemHostRegister
    plain_host,    ///< the heap, a stack, a file: readable, and the driver does not know it
};
/// "device_vmm": the enumerator's name.
[[nodiscard]] FABRICMEM_API std::string_view to_string(MemoryKind kind) noexcept;

enum class MemoryOwner : std::uint8_t {
    fabric_buffer,  ///< an open FabricBuffer of this driver's, or an arena's, a block's
    imported,       ///< an ImportedFabricBuffer of this driver's
    other,          ///< also imports of others, which the driver does not tell from memory without handles
};

/// The part of a range that lies in one allocation.
struct MemoryPiece {
    MemoryKind kind = MemoryKind::plain_host;
    MemoryOwner owner = MemoryOwner::other;
    void* address = nullptr;  ///< where this part begins
    std::uint64_t bytes = 0;  ///< of this part

    /// The allocation that it is in: where it is mapped, its mapped size, and how far in the part begins. Of plain_host
    /// nothing is known but the part itself.
    void* base = nullptr;
    std::uint64_t mapped_bytes = 0;
    std::uint64_t offset = 0;

    /// Of host memory that is not host_vmm: NUMA node -1, since the driver does not say. Of a device that this process
    /// does not see: device -1.
    Location location = Location::host_numa(-1);
    /// In which ways the memory could be shared, whether this version makes a blob of it or not: cudaMalloc memory has
    /// `cuda_ipc`, memory that was created for descriptors alone `posix_fd`.
    HandleKinds kinds{};
    bool rdma = false;  ///< whether the driver says that it is GPUDirect RDMA capable

    /// What a peer imports; its range is this part. None where a peer can't: why_not says why, and what to use instead.
    std::optional<HandleBlob> blob{};
    std::string why_not{};
};

/// What is behind a range, in the order of addresses. Never empty.
struct FABRICMEM_API PointerMemory {
    std::vector<MemoryPiece> pieces{};

    /// Whether a peer can write to all of it: each piece has a blob.
    [[nodiscard]] bool is_remotely_writable() const noexcept;
    /// One for each allocation that the range is in. Throws Error{unsupported} with the first piece's why_not where one
    /// has none.
    [[nodiscard]] std::vector<HandleBlob> blobs() const;
    /// "4194304 bytes of device_vmm on device 0 at 0x7f..., 512 bytes in": a line for each piece.
    [[nodiscard]] std::string describe() const;
};

struct FromPointerOptions {
    Id128 peer{};                  ///< into the blobs of memory that is no FabricBuffer's
    std::uint64_t generation = 0;  ///< the same
};

/// Asks what the `bytes` bytes from `pointer` are, and exports what can be: what it retains for that is released before
/// it returns, and nothing of the caller's changes. Needs no CUDA context. Memory of this driver's own buffers costs no
/// driver call, another allocation five and those made once in a driver's life.
///
/// A blob's allocation_id: of a FabricBuffer its own, also where the same memory is mapped elsewhere too; of an
/// ImportedFabricBuffer the exporter's, in the blob that it came from. Of other memory one that this driver object
/// chooses when it is first asked and gives again for as long as that mapping stays, whatever happens at its address
/// afterwards; mapped anew, or asked of another driver object, the same memory gets another one (a peer's cache then
/// imports it twice, which is safe; never is an id given to other memory). In one case it is new each time: where the
/// driver has no buffer id for the mapping.
///
/// The memory has to stay what it is during the call; a blob keeps nothing alive. Any thread.
///
/// Throws Error: bad_argument for null, 0 bytes, a range that overflows or is longer than what is mapped there, and an
/// address with nothing behind it (memory that was freed); unsupported in a forked child, and where the driver
/// does not tell where the mapping begins; as the driver call that failed.
[[nodiscard]] FABRICMEM_API PointerMemory from_pointer(const std::shared_ptr<Driver>& driver, const void* pointer,
                                                       std::uint64_t bytes, const FromPointerOptions& options = {});

}  // namespace fabricmem
