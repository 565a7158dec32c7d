// SPDX-License-Identifier: Apache-2.0
// The two owners: FabricBuffer makes and exports memory, ImportedFabricBuffer maps a peer's. No CUDA type.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

namespace detail {
struct BufferParts;
struct ImportHere;
}  // namespace detail

/// Whether the CPU gets access through the address.
enum class HostAccess : std::uint8_t {
    automatic,  ///< asked for on host memory, done without (with a warning) where the driver refuses; not on device
                ///< memory
    required,   ///< Error where it is not granted
    none,       ///< not asked for: a CPU load or store is a SIGSEGV
};

/// GPUDirect RDMA, with which a NIC reads and writes the memory.
enum class Rdma : std::uint8_t {
    automatic,  ///< asked for on device memory where the device has it
    required,   ///< Error{unsupported} where it is not granted
    off,        ///< NVLink does not need it, and 2 MiB are made and freed in a sixth less time (docs/hardware.md)
};

enum class Zeroing : std::uint8_t { none, memset };
enum class RetireAddress : std::uint8_t { no, yes };

/// What the callbacks of a buffer are told; valid during the call.
struct BufferInfo {
    void* address;
    std::uint64_t bytes;
    std::uint64_t mapped_bytes;
    Location location;
    const HandleBlob& blob;
};

struct FabricBufferOptions {
    Location location = Location::device(0);
    /// Devices that get access, by ordinal; nullopt: every device that can reach the memory (the owner and its P2P
    /// peers; for host memory every device).
    std::optional<std::vector<int>> access{};
    HostAccess host_access = HostAccess::automatic;
    Permission permission = Permission::read_write;  ///< of this process; importers choose their own
    Rdma rdma = Rdma::automatic;
    /// Of the address; 0 or a power of two, rounded up to the granularity.
    std::uint64_t alignment_bytes = 0;
    /// New memory read as zero wherever it was measured (docs/driver-notes.md), but no contract says so. `memset` sets
    /// all mapped bytes: on the current context where it is one of the memory's device, else on the primary context,
    /// retained for that time (which makes it where nothing else has); it waits for its own stream alone.
    Zeroing zeroing = Zeroing::none;
    /// The handle types to create the memory for. Has to have `fabric`; with posix_fd too, other libraries (NCCL) can
    /// export a descriptor from it.
    HandleKinds kinds = HandleKind::fabric;
    /// `yes` keeps the address range reserved after the buffer's end, so that no later allocation of this process gets
    /// an address that peers may still hold. Capped per driver object at 1,024 ranges and 1 TiB of addresses: beyond
    /// that the oldest is given back. Ranges outlive their driver object, so keep one for the process, or the caps add
    /// up. No memory is kept.
    RetireAddress retire_address = RetireAddress::no;
    Id128 peer{};                  ///< into the blob
    std::uint64_t generation = 0;  ///< into the blob
    /// Called once the buffer is whole, before the constructor returns. What it throws undoes the buffer and is passed
    /// on; before_tear_down and after_tear_down are not called then.
    std::function<void(const BufferInfo&)> on_make{};
    /// Called by close() and by the destructor while the memory is still mapped. What it throws is logged. A buffer in
    /// a static is destroyed at exit, when the driver may have shut down and taken the mapping with it: it is called
    /// all the same.
    std::function<void(const BufferInfo&)> before_tear_down{};
    /// Called by close() and by the destructor once the memory is given back, as far as the driver took it. `address`
    /// says where it was: another buffer may have that address by then. What it throws is logged.
    std::function<void(const BufferInfo&)> after_tear_down{};
};

struct ImportOptions {
    /// Devices that get access, by ordinal; nullopt: every device (for memory of a device that this process sees, that
    /// device and its P2P peers).
    std::optional<std::vector<int>> access{};
    HostAccess host_access = HostAccess::automatic;
    Permission permission = Permission::read_write;
    std::uint64_t alignment_bytes = 0;  ///< as in FabricBufferOptions
    /// How long an import may take. 0: for as long as the driver takes, on the caller's thread. Else its driver calls
    /// are made on a thread of their own, and one that has not returned by then is abandoned: Error{timed_out} names
    /// the call and both sides. The thread owns all that the call touches, the driver too; what comes of the call is
    /// given back when it returns (stuck_calls() counts it until then), and the process's end does not wait for it.
    std::chrono::milliseconds timeout{0};
    /// The same for each end of the buffer: close(), the destructor, a move assignment over it. nullopt: as `timeout`.
    std::optional<std::chrono::milliseconds> tear_down_timeout{};
};

/// What the two owners share: one whole allocation, mapped at one address. Movable, not copyable; empty when moved from
/// or closed: then address() is null, sizes are 0, and blob(), location() and access() throw Error{closed}.
///
/// Threads: const members may be called from many threads at once; a move, close() or the destructor by one thread
/// while no other uses the object. Different objects need no lock.
///
/// The GPU is never waited for: the memory must be idle when it is unmapped (close(), destructor, move assignment over
/// it). GPU work on it that is still queued then fails with CUDA_ERROR_ILLEGAL_ADDRESS (700) or LAUNCH_FAILED (719),
/// which loses the whole CUDA context (docs/driver-notes.md).
///
/// After fork() the child's copies own nothing: its destructors do nothing, and calls of the driver's throw
/// Error{unsupported}.
class FABRICMEM_API MappedBuffer {
public:
    /// Where the blob's range begins: base + offset. A device address; the CPU may use it where access().host.
    [[nodiscard]] void* address() const noexcept;
    /// Size of the range: what was asked for, or what the blob says. Never rounded.
    [[nodiscard]] std::uint64_t bytes() const noexcept;
    /// Size of the whole mapping: the allocation's, a multiple of granularity().
    [[nodiscard]] std::uint64_t mapped_bytes() const noexcept;
    /// In which units this process's driver maps such memory, in bytes; an exporter on another GPU type may have
    /// another one (its blob says which).
    [[nodiscard]] std::uint64_t granularity() const noexcept;
    /// Where the memory is. Of an import: this process's ordinal of the device, or -1 where it does not see it; the
    /// host NUMA node, or -1 where the blob is not known to come from this node and boot.
    [[nodiscard]] Location location() const;
    /// The handle types that were granted; of an import, the kind that it was imported by.
    [[nodiscard]] HandleKinds kinds() const noexcept;
    /// Who got access; by far not always all who were asked for.
    [[nodiscard]] const Access& access() const;
    /// Whether the memory is GPUDirect RDMA capable, as the driver says (of an import: as its blob says; register with
    /// a NIC at the owner).
    [[nodiscard]] bool rdma() const noexcept;
    /// What travels. Of an import: the blob it came from.
    [[nodiscard]] const HandleBlob& blob() const;
    /// The driver that the buffer keeps alive; null when closed.
    [[nodiscard]] std::shared_ptr<Driver> driver() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return parts_ != nullptr; }

protected:
    explicit MappedBuffer(std::unique_ptr<detail::BufferParts> parts) noexcept;
    MappedBuffer(MappedBuffer&&) noexcept;
    MappedBuffer& operator=(MappedBuffer&&) noexcept;
    ~MappedBuffer();

    [[nodiscard]] std::unique_ptr<detail::BufferParts>& parts() noexcept { return parts_; }
    [[nodiscard]] const detail::BufferParts& open_parts() const;

private:
    friend struct detail::BufferParts;

    std::unique_ptr<detail::BufferParts> parts_;
};

enum class CloseResult : std::uint8_t {
    released,          ///< this process holds no reference to the memory any more
    still_referenced,  ///< something in this process still does (a transport that never released the handle it
                       ///< retained)
    unknown,           ///< all that the buffer held is given back; whether others hold references could not be found
                       ///< out (the log says which code the driver answered)
};

/// Fabric memory of this process: exactly one allocation, mapped whole at its base, exported once.
class FABRICMEM_API FabricBuffer : public MappedBuffer {
public:
    /// Makes `bytes` (1 to 2^47, rounded up to the granularity, 2 MiB as measured) of memory, gives access, exports it.
    /// Never changes the thread's CUDA context, and makes none but for Zeroing::memset. Cheap to fail: nothing is left
    /// behind.
    ///
    /// Throws Error: bad_argument, unsupported, not_permitted (no usable IMEX channel), out_of_memory, system (a fabric
    /// that is still being probed), timed_out (zeroing, where the GPU does not get to it within 60 s), closed (at exit,
    /// after the driver's end), driver.
    FabricBuffer(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions options = {});
    FabricBuffer(FabricBuffer&&) noexcept;
    FabricBuffer& operator=(FabricBuffer&&) noexcept;
    /// As close(), but reports to the log alone, does not look for references that others left, and does nothing in a
    /// forked child or once the driver has shut down at exit.
    ~FabricBuffer();

    /// The same memory exported afresh: blob() with the handle that the driver gives now, and `created_ns` of now. A
    /// handle that was exported while this node's IMEX daemon was not up works on this node alone, for ever; a fresh
    /// one is good. Where nothing has changed the driver gives the same 64 bytes. blob() stays as it is. Threads: a
    /// const member.
    ///
    /// Throws Error: closed; unsupported in a forked child; as the constructor where the driver call failed.
    [[nodiscard]] HandleBlob export_again() const;

    /// Unmaps, releases and gives the address back. Importers keep their mappings and the bytes in them; nobody can
    /// import the memory any more once the last reference is gone.
    ///
    /// Says whether something in this process still holds a retained handle to the memory. The driver counts references
    /// but does not tell; it imports the memory's own handle for as long as the exporter has one, and then no more
    /// (docs/driver-notes.md), so that is tried: one more call. Imports, here or in peers, do not count,
    /// but for a peer's that is being made at that very moment (seen on an H100). Where that call fails for another
    /// reason the answer is `unknown`.
    /// Throws Error where a driver call failed; what could be released is, and the buffer is closed all the same. A
    /// second call returns `released`.
    CloseResult close();
};

/// A peer's memory, or this process's own, mapped here. Keeps the physical memory alive after its exporter's end.
/// Holding an import ties this process to the exporter's node: the driver disables every process that holds one from a
/// lost node.
class FABRICMEM_API ImportedFabricBuffer : public MappedBuffer {
public:
    /// Imports the blob's allocation, maps it whole, and points to the blob's range. Importing from another node asks
    /// the IMEX daemon, which can wait without limit for a lost peer: without ImportOptions::timeout this blocks for as
    /// long.
    ///
    /// Throws Error: timed_out; conflict, where 64 calls of this driver's that were abandoned have not returned;
    /// system, where no thread can be started for a timeout; bad_blob and unsupported (a wrong kind; a size that is
    /// wrong in itself, or no multiple of this driver's granularity) before any driver call but those that are made
    /// once in a driver's life; bad_argument. Where a call of the import failed, with both sides' identity: peer_gone,
    /// not_permitted (another IMEX channel), foreign_domain, system (no IMEX daemon), out_of_memory, closed (at exit,
    /// after the driver's end), driver.
    ImportedFabricBuffer(std::shared_ptr<Driver> driver, const HandleBlob& blob, const ImportOptions& options = {});
    ImportedFabricBuffer(ImportedFabricBuffer&&) noexcept;
    ImportedFabricBuffer& operator=(ImportedFabricBuffer&&) noexcept;
    /// As close(), but reports to the log alone. Dropping the last import from another node asks the IMEX daemon too:
    /// with a tear_down_timeout a destructor does not wait longer, and where no thread can be had for it, the tear-down
    /// is left to the next one that the driver's calls with a timeout get.
    ~ImportedFabricBuffer();

    /// Unmaps, releases and gives the address back. Throws Error where a driver call failed; what could be released is,
    /// and the buffer is closed all the same. With a tear_down_timeout also timed_out: the rest is given back when the
    /// call returns; and, with the buffer left open, conflict and system, as the constructor.
    void close();

private:
    friend struct detail::ImportHere;
    explicit ImportedFabricBuffer(std::unique_ptr<detail::BufferParts> parts) noexcept;
};

/// How many calls of this driver's were abandoned at a deadline (ImportOptions::timeout) and have not returned, or not
/// given back yet what came of them. 0 in a forked child. Any thread. A FabricBuffer's own calls have no deadline: no
/// other node is asked for them.
[[nodiscard]] FABRICMEM_API std::size_t stuck_calls(const Driver& driver) noexcept;

/// As ImportedFabricBuffer's constructor, but nullopt where the exporter has released the memory or is gone
/// (peer_gone).
[[nodiscard]] FABRICMEM_API std::optional<ImportedFabricBuffer> import_if_alive(std::shared_ptr<Driver> driver,
                                                                                const HandleBlob& blob,
                                                                                const ImportOptions& options = {});

}  // namespace fabricmem
