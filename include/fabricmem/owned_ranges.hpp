// SPDX-License-Identifier: Apache-2.0
// For the exporter's side of a transport that is told raw addresses: from any address inside a buffer to the buffer,
// the offset and the blob to send, without a driver call. No CUDA type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include <fabricmem/export.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

namespace detail {
class RangeRegistry;
}

enum class OwnedState : std::uint8_t {
    owned,         ///< the whole range is in one buffer
    not_owned,     ///< it begins in no buffer
    tearing_down,  ///< it begins in a buffer whose tear-down has begun: the address means nothing until that has ended
    beyond_end,    ///< it begins in a buffer and ends behind it
    crosses_buffers,  ///< the same, and reaches into another buffer: blobs are of one buffer each
};
/// "tearing_down": the enumerator's name.
[[nodiscard]] FABRICMEM_API std::string_view to_string(OwnedState state) noexcept;

struct OwnedRange {
    OwnedState state = OwnedState::not_owned;
    // Of the buffer that the range begins in; nothing where it is not_owned.
    void* base = nullptr;
    std::uint64_t buffer_bytes = 0;
    Location location = Location::device(0);
    std::uint64_t offset = 0;  ///< of the range, from `base`
    HandleBlob blob{};         ///< what a transport sends for the range: a sub-range of the buffer's. Where it is owned
};

/// The buffers of a process, by address. A buffer is in it from the end of its making; from the beginning of its
/// tear-down, look-ups of its addresses say so; with the end of it they are free for the next buffer, whose entry is
/// another one, with another blob.
///
///     OwnedRanges ranges;
///     FabricBuffer pool(driver, bytes, ranges.watch({.location = Location::device(0)}));
///     const HandleBlob to_send = ranges.at(pointer, length).blob;
///
/// Threads: all members may be called at once. A look-up takes no lock, allocates nothing and makes no system call;
/// what adds and removes takes a lock, which no driver call is made under, and waits for the look-ups that are under
/// way. Buffers may outlive it. In a forked child look-ups answer as they would have in the parent at the fork, add()
/// throws Error{unsupported}, and ends do nothing.
class FABRICMEM_API OwnedRanges {
public:
    OwnedRanges();
    OwnedRanges(const OwnedRanges&) = delete;
    OwnedRanges& operator=(const OwnedRanges&) = delete;
    ~OwnedRanges();

    /// The options with callbacks that keep the buffer in here for as long as it lives, around those that are there: it
    /// is added after the caller's on_make, quarantined before the caller's before_tear_down, and removed before the
    /// caller's after_tear_down. For FabricBuffer and Arena; the options are good for several buffers.
    [[nodiscard]] FabricBufferOptions watch(FabricBufferOptions options = {}) const;

    /// What watch() wires, for those who have callbacks of their own. Throws Error: bad_argument for a range that is
    /// empty or overflows, a blob without an allocation id, or an id that is in here; conflict where a buffer that is
    /// not being torn down is at one of the addresses; unsupported in a forked child; std::bad_alloc.
    void add(const BufferInfo& buffer) const;
    /// To be called before the memory goes. Nothing for a buffer that is not in here.
    void begin_tear_down(const BufferInfo& buffer) const noexcept;
    /// To be called when it is gone. Where there is no memory for it, the entry stays in quarantine until the next
    /// change, or until another buffer has the address.
    void end_tear_down(const BufferInfo& buffer) const noexcept;

    /// What the `bytes` bytes from `address` are. Addresses between a buffer's end (what was asked for) and the end of
    /// its mapping are nobody's. 0 bytes are looked up as 1, with the blob of 1.
    [[nodiscard]] OwnedRange look_up(const void* address, std::uint64_t bytes) const noexcept;
    /// The same for those who expect it to be owned. Throws Error: bad_argument where it is not owned, goes beyond the
    /// end or crosses buffers, or is of 0 bytes; conflict where the buffer is being torn down.
    [[nodiscard]] OwnedRange at(const void* address, std::uint64_t bytes) const;
    /// How many buffers are in here, those in quarantine too.
    [[nodiscard]] std::size_t size() const noexcept;

private:
    std::shared_ptr<detail::RangeRegistry> registry_;
};

}  // namespace fabricmem
