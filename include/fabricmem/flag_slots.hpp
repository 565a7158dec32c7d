// SPDX-License-Identifier: Apache-2.0
// Flags in fabric memory that one process sets and another looks at: direct loads and stores where the CPU may, copies
// by the GPU where it may not. No CUDA.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>

#include <fabricmem/arena.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/fabric_buffer.hpp>

namespace fabricmem {

namespace detail {
class SlotMemory;
}

/// What a 64-byte slot holds: a sequence number and some bytes that belong to it. A slot that was reset, or is new, has
/// sequence 0 and zeros.
struct FABRICMEM_API SlotMessage {
    static constexpr std::size_t kBytes = 64;

    std::uint64_t sequence = 0;
    std::array<std::byte, 48> payload{};

    /// As it lies in a slot, for those who carry it there by other means: sequence, payload, their CRC-32C,
    /// little-endian (docs/handshake.md); all zero for a message that is.
    [[nodiscard]] std::array<std::byte, kBytes> to_bytes() const noexcept;
    /// Nothing where the bytes are no whole message, as while it is being written.
    [[nodiscard]] static std::optional<SlotMessage> from_bytes(const std::array<std::byte, kBytes>& bytes) noexcept;

    friend bool operator==(const SlotMessage&, const SlotMessage&) = default;
};

/// What slots hold: 4, 8 and 64 bytes each.
template <typename Value>
concept SlotValue =
    std::is_same_v<Value, std::uint32_t> || std::is_same_v<Value, std::uint64_t> || std::is_same_v<Value, SlotMessage>;

/// What ends a wait.
enum class Until : std::uint8_t {
    equal,    ///< the slot holds the value (a message: its sequence)
    reached,  ///< it holds the value or one of the 2^31 (2^63) after it, counted around as CUDA's wait-value does
};

struct FlagSlotsOptions {
    /// The device that copies where the CPU may not; -1: the memory's own, or the first with access.
    int device = -1;
    /// How long a copy may take before a call gives up on it; behind a kernel that never ends on our own stream there
    /// is none, so only a GPU in trouble takes that long.
    std::chrono::milliseconds copy_timeout{10'000};
};

/// Slots in a row, over a block of this process's or over a range of a peer's memory. On host memory that the CPU may
/// touch, slots are loaded with acquire and stored with release, directly: the memory has to be this node's, so a
/// peer's only where its blob is of this boot (docs/driver-notes.md). Anywhere else they are copied, on a non-blocking
/// stream of the object's own through memory of the host's: never on the null stream and never by a synchronous copy,
/// so that a kernel which spins there stops nobody. What was written to other memory before a store() by the CPU, or by
/// GPU work that has finished, is there for whoever sees the flag.
///
/// A slot has one writer at a time. 64-byte slots can't be read torn: a checksum over sequence and payload is in them.
///
/// Threads: calls may come from many threads; those that copy take turns. Keeps the memory alive. Throws Error:
/// bad_argument (an index beyond count(), memory that is too small or not aligned to the slots, a store to what was
/// mapped read-only), timed_out (a copy that is not done within copy_timeout; it is waited for by the next call),
/// unsupported (nobody can copy), driver. In a forked child its calls throw Error{unsupported}.
template <SlotValue Value>
class FABRICMEM_API FlagSlots {
public:
    static constexpr std::size_t kSlotBytes = std::is_same_v<Value, SlotMessage> ? 64 : sizeof(Value);
    /// What load() returns: of a message, nothing where it is being written just now.
    using Loaded = std::conditional_t<std::is_same_v<Value, SlotMessage>, std::optional<SlotMessage>, Value>;
    /// What a wait is for: the value, or a message's sequence.
    using Awaited = std::conditional_t<std::is_same_v<Value, SlotMessage>, std::uint64_t, Value>;

    /// As many slots as fit into the block. Does not reset them: new fabric memory has no promised contents.
    explicit FlagSlots(Block block, const FlagSlotsOptions& options = {});
    /// The slots in a peer's memory, from `offset` bytes behind buffer->address() on.
    FlagSlots(std::shared_ptr<const ImportedFabricBuffer> buffer, std::uint64_t offset, std::size_t count,
              const FlagSlotsOptions& options = {});
    FlagSlots(FlagSlots&&) noexcept;
    FlagSlots& operator=(FlagSlots&&) noexcept;
    ~FlagSlots();

    [[nodiscard]] std::size_t count() const noexcept;
    /// Whether the CPU loads and stores the slots itself.
    [[nodiscard]] bool is_direct() const noexcept;

    void store(std::size_t index, const Value& value);
    [[nodiscard]] Loaded load(std::size_t index) const;
    /// What the slot held when the wait ended; nothing where the deadline came first. Looks at once, then ever more
    /// seldom, at least every millisecond: memory that a GPU writes wakes nobody.
    [[nodiscard]] std::optional<Value> wait_until(std::size_t index, const Awaited& value,
                                                  std::chrono::steady_clock::time_point deadline,
                                                  Until until = Until::equal) const;
    /// Stores zeros.
    void reset(std::size_t index);
    void reset_all();

private:
    [[nodiscard]] detail::SlotMemory& open() const;

    std::unique_ptr<detail::SlotMemory> memory_;
};

extern template class FlagSlots<std::uint32_t>;
extern template class FlagSlots<std::uint64_t>;
extern template class FlagSlots<SlotMessage>;

}  // namespace fabricmem
