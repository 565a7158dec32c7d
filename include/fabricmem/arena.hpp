// SPDX-License-Identifier: Apache-2.0
// Many small blocks in one FabricBuffer: one driver allocation, one handle, no driver call for a block. No CUDA type.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Arena;
class Driver;

namespace detail {
class ArenaCore;

struct ArenaRelease {
    void operator()(ArenaCore* core) const noexcept;
};
}  // namespace detail

struct ArenaOptions {
    /// Blocks live at once, 1 to 2^24. Bounds the bookkeeping, about 64 bytes a block, which is beside the memory (the
    /// CPU can't touch a device's), reserved once and taken from the system as it is first used.
    std::uint32_t max_blocks = 65'536;
};

/// One moment of an arena, in bytes. Blocks take whole units of 64 bytes.
struct ArenaStatistics {
    std::uint64_t capacity_bytes = 0;
    std::uint64_t live_blocks = 0;
    std::uint64_t asked_bytes = 0;         ///< by the live blocks
    std::uint64_t reserved_bytes = 0;      ///< for them: asked_bytes, each block's rounded up
    std::uint64_t free_bytes = 0;          ///< capacity_bytes - reserved_bytes
    std::uint64_t largest_free_bytes = 0;  ///< what a block can have at most now, aligned to 64 bytes

    /// The share of reserved_bytes that nobody asked for, 0 to 1; 0 where nothing is reserved.
    [[nodiscard]] double waste() const noexcept {
        return reserved_bytes == 0
                   ? 0
                   : static_cast<double>(reserved_bytes - asked_bytes) / static_cast<double>(reserved_bytes);
    }
    /// The share of free_bytes that is not in the largest piece, 0 to 1; 0 where nothing is free.
    [[nodiscard]] double fragmentation() const noexcept {
        return free_bytes == 0 ? 0
                               : static_cast<double>(free_bytes - largest_free_bytes) / static_cast<double>(free_bytes);
    }
    friend bool operator==(const ArenaStatistics&, const ArenaStatistics&) = default;
};

/// A part of an arena's memory, which it keeps alive: the last of an arena's blocks takes the memory down where the
/// arena is gone by then. Movable, not copyable; empty when moved from or freed: then address() and driver() are null,
/// sizes are 0, and blob(), location() and access() throw Error{closed}.
///
/// Threads: as a MappedBuffer. Different blocks need no lock, also those of one arena.
///
/// The GPU is never waited for: memory that is freed under queued work may be another block's by the time that the work
/// gets to it.
///
/// In a forked child blocks own nothing: their destructors do nothing.
class FABRICMEM_API Block {
public:
    Block() noexcept = default;
    Block(Block&& other) noexcept
        : core_(std::exchange(other.core_, nullptr)),
          offset_(std::exchange(other.offset_, 0)),
          bytes_(std::exchange(other.bytes_, 0)),
          piece_(other.piece_),
          pool_(other.pool_) {}
    Block& operator=(Block&& other) noexcept;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    /// As free(), without its errors.
    ~Block() {
        if (core_ != nullptr) static_cast<void>(release());
    }

    /// A device address; the CPU may use it where access().host.
    [[nodiscard]] void* address() const noexcept;
    /// What was asked for. Never rounded.
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
    /// From the arena's start, in bytes.
    [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
    /// What travels: the arena's blob with this block's range. An importer maps the whole arena for it.
    [[nodiscard]] HandleBlob blob() const;
    [[nodiscard]] Location location() const;
    /// Who got access to the arena. Valid while the block lives.
    [[nodiscard]] const Access& access() const;
    /// The driver that the block keeps alive; null when empty.
    [[nodiscard]] std::shared_ptr<Driver> driver() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }

    /// Gives the range back to the arena, to be given out again at once. Where it is the last block of an arena that is
    /// gone, the memory is taken down, as by ~FabricBuffer. Throws Error{closed} where the block is empty, so for a
    /// second free, and Error{unsupported} in a forked child, where the block is empty afterwards all the same.
    void free();

private:
    friend class Arena;

    Block(detail::ArenaCore* core, std::uint32_t pool, std::uint32_t piece, std::uint64_t offset,
          std::uint64_t bytes) noexcept
        : core_(core), offset_(offset), bytes_(bytes), piece_(piece), pool_(pool) {}
    bool release() noexcept;  // false in a forked child
    [[nodiscard]] const detail::ArenaCore& open_core() const;

    detail::ArenaCore* core_ = nullptr;  // counts its blocks, and lives as long as there is one
    std::uint64_t offset_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint32_t piece_ = 0;
    std::uint32_t pool_ = 0;
};

/// A FabricBuffer that is given out in blocks. Blocks cost no driver call and no heap allocation, and may be freed by
/// any thread, before or after the arena's end. All of the mapping is used, so what the buffer's size was rounded up by
/// too: capacity and blob() are the whole of it. Movable, not copyable; empty when moved from or closed: then address()
/// is null and all else but close() throws Error{closed}.
///
/// Threads: allocate(), try_allocate() and const members may be called from many threads at once; a move, close() or
/// the destructor by one thread while no other uses the object. Locks are held for the time of bookkeeping alone, never
/// in a call of the driver's. From 64 MiB on threads but the first one that allocates get parts of the arena to
/// themselves for small blocks (up to 64 KiB, more in a larger arena), as long as there is room; what is free at the
/// ends of two parts is not joined while both are in use, so that an arena that is nearly full has less room for large
/// blocks then.
///
/// In a forked child the arena owns nothing: its destructor does nothing; allocating, close(), statistics() and
/// export_again() throw Error{unsupported}.
class FABRICMEM_API Arena {
public:
    /// Takes the buffer over, also where it throws: Error{closed} for one that is closed, bad_argument for max_blocks,
    /// out_of_memory where the system has no room for the bookkeeping.
    explicit Arena(FabricBuffer buffer, ArenaOptions options = {});
    /// With a buffer of its own. Throws as FabricBuffer's constructor, and as above.
    Arena(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions buffer_options = {},
          ArenaOptions options = {});
    Arena(Arena&&) noexcept;
    Arena& operator=(Arena&&) noexcept;
    /// Takes the memory down as ~FabricBuffer does, now, or where blocks are live with the last of them.
    ~Arena();

    /// `bytes` (rounded up to 64) at a multiple of `alignment_bytes`, a power of two up to the granularity (less than
    /// 64 is 64). The memory is not set: it holds what the last block left there.
    ///
    /// Throws Error: bad_argument (0 bytes, more than the capacity, a wrong alignment); out_of_memory where there is no
    /// room now, which says what is free, the largest piece and how many blocks are live, or where max_blocks are live;
    /// closed; unsupported in a forked child.
    [[nodiscard]] Block allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = 64);
    /// As allocate(), but nullopt in place of out_of_memory.
    [[nodiscard]] std::optional<Block> try_allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = 64);

    /// Throws Error: closed; unsupported in a forked child.
    [[nodiscard]] ArenaStatistics statistics() const;
    /// The whole memory, as it was exported when the buffer was made.
    [[nodiscard]] const HandleBlob& blob() const;
    /// As FabricBuffer::export_again(), of the whole memory; HandleBlob::sub_range() by a block's offset() and bytes()
    /// makes the block's of it.
    [[nodiscard]] HandleBlob export_again() const;
    [[nodiscard]] Location location() const;
    [[nodiscard]] const Access& access() const;
    /// In which units the memory was made, in bytes: the largest alignment of a block.
    [[nodiscard]] std::uint64_t granularity() const;
    /// Where the memory begins.
    [[nodiscard]] void* address() const noexcept;
    [[nodiscard]] std::shared_ptr<Driver> driver() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }

    /// As FabricBuffer::close(), and throws as it does. Throws Error{conflict} that counts the blocks where some are
    /// live: the arena stays open then, and whole. A second call returns `released`.
    CloseResult close();

private:
    using Core = std::unique_ptr<detail::ArenaCore, detail::ArenaRelease>;

    [[nodiscard]] const detail::ArenaCore& open_core() const;
    [[nodiscard]] detail::ArenaCore& core_of_this_process() const;

    Core core_;
};

}  // namespace fabricmem
