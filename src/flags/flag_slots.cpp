// SPDX-License-Identifier: Apache-2.0
// FlagSlots: values as the bytes of slots, and waiting for them.
#include <fabricmem/flag_slots.hpp>

#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "flags/sealed_slot.hpp"
#include "flags/slot_memory.hpp"
#include "flags/wait_pause.hpp"

namespace fabricmem {
namespace {

using Clock = std::chrono::steady_clock;
using detail::SlotBytes;
using detail::SlotMemory;

template <typename Word>
void store_directly(std::byte* address, Word value) noexcept {
    std::atomic_ref(*reinterpret_cast<Word*>(address)).store(value, std::memory_order_release);
}
void store_directly(std::byte* address, const SlotMessage& message) noexcept {
    detail::store_slot(address, detail::seal(message));
}

// std::optional<Value>: nothing where a message is being written.
template <typename Word>
std::optional<Word> load_directly(const std::byte* address) noexcept {
    auto* word = reinterpret_cast<Word*>(const_cast<std::byte*>(address));
    return std::atomic_ref(*word).load(std::memory_order_acquire);
}
template <>
std::optional<SlotMessage> load_directly(const std::byte* address) noexcept {
    return detail::unseal(detail::load_slot(address));
}

template <typename Word>
std::array<std::byte, sizeof(Word)> to_bytes(const Word& value) noexcept {
    std::array<std::byte, sizeof(Word)> bytes{};
    std::memcpy(bytes.data(), &value, sizeof(Word));
    return bytes;
}
SlotBytes to_bytes(const SlotMessage& message) noexcept { return detail::seal(message); }

template <typename Word>
std::optional<Word> from_bytes(const std::array<std::byte, sizeof(Word)>& bytes) noexcept {
    Word value;
    std::memcpy(&value, bytes.data(), sizeof(Word));
    return value;
}
template <typename Message>
std::optional<SlotMessage> from_bytes(const SlotBytes& bytes) noexcept {
    return detail::unseal(bytes);
}

// False at the deadline, with `value` as it was.
template <typename Value>
bool look(const SlotMemory& memory, std::size_t index, std::optional<Clock::time_point> deadline,
          std::optional<Value>& value) {
    if (memory.is_direct()) {
        value = load_directly<Value>(memory.direct(index));
        return true;
    }
    std::array<std::byte, FlagSlots<Value>::kSlotBytes> bytes;
    if (!memory.read(index, bytes, deadline)) return false;
    value = from_bytes<Value>(bytes);
    return true;
}

template <typename Word>
bool is_there(Word held, Word awaited, Until until) noexcept {
    if (until == Until::equal) return held == awaited;
    return static_cast<Word>(held - awaited) < Word{1} << (8 * sizeof(Word) - 1);
}
bool is_there(const SlotMessage& held, std::uint64_t awaited, Until until) noexcept {
    return is_there(held.sequence, awaited, until);
}

}  // namespace

std::array<std::byte, SlotMessage::kBytes> SlotMessage::to_bytes() const noexcept { return detail::seal(*this); }
std::optional<SlotMessage> SlotMessage::from_bytes(const std::array<std::byte, kBytes>& bytes) noexcept {
    return detail::unseal(bytes);
}

template <SlotValue Value>
FlagSlots<Value>::FlagSlots(Block block, const FlagSlotsOptions& options)
    : memory_(std::make_unique<SlotMemory>(std::move(block), kSlotBytes, options)) {}
template <SlotValue Value>
FlagSlots<Value>::FlagSlots(std::shared_ptr<const ImportedFabricBuffer> buffer, std::uint64_t offset, std::size_t count,
                            const FlagSlotsOptions& options)
    : memory_(std::make_unique<SlotMemory>(std::move(buffer), offset, count, kSlotBytes, options)) {}
template <SlotValue Value>
FlagSlots<Value>::FlagSlots(FlagSlots&&) noexcept = default;
template <SlotValue Value>
FlagSlots<Value>& FlagSlots<Value>::operator=(FlagSlots&&) noexcept = default;
template <SlotValue Value>
FlagSlots<Value>::~FlagSlots() = default;

template <SlotValue Value>
std::size_t FlagSlots<Value>::count() const noexcept {
    return memory_ == nullptr ? 0 : memory_->count();
}
template <SlotValue Value>
bool FlagSlots<Value>::is_direct() const noexcept {
    return memory_ != nullptr && memory_->is_direct();
}

template <SlotValue Value>
void FlagSlots<Value>::store(std::size_t index, const Value& value) {
    SlotMemory& memory = open();
    memory.check_writable();
    if (memory.is_direct()) {
        store_directly(memory.direct(index), value);
    } else {
        memory.write(index, to_bytes(value));
    }
}

template <SlotValue Value>
typename FlagSlots<Value>::Loaded FlagSlots<Value>::load(std::size_t index) const {
    std::optional<Value> value;
    static_cast<void>(look(open(), index, std::nullopt, value));
    if constexpr (std::is_same_v<Value, SlotMessage>) {
        return value;
    } else {
        return *value;
    }
}

template <SlotValue Value>
std::optional<Value> FlagSlots<Value>::wait_until(std::size_t index, const Awaited& value, Clock::time_point deadline,
                                                  Until until) const {
    const SlotMemory& memory = open();
    detail::WaitPause pause;
    // The first look is taken in any case: also where the deadline is now.
    for (std::optional<Clock::time_point> limit;; limit = deadline) {
        std::optional<Value> held;
        if (!look(memory, index, limit, held)) return std::nullopt;
        if (held.has_value() && is_there(*held, value, until)) return held;
        if (Clock::now() >= deadline) return std::nullopt;
        pause.wait(deadline);
    }
}

template <SlotValue Value>
void FlagSlots<Value>::reset(std::size_t index) {
    store(index, Value{});
}

template <SlotValue Value>
void FlagSlots<Value>::reset_all() {
    SlotMemory& memory = open();
    memory.check_writable();
    if (!memory.is_direct()) return memory.write_zeros();
    for (std::size_t i = 0; i < memory.count(); ++i) store_directly(memory.direct(i), Value{});
}

template <SlotValue Value>
SlotMemory& FlagSlots<Value>::open() const {
    if (memory_ == nullptr) throw Error({.kind = ErrorKind::closed, .subject = "slots that were moved from"});
    return *memory_;
}

template class FlagSlots<std::uint32_t>;
template class FlagSlots<std::uint64_t>;
template class FlagSlots<SlotMessage>;

}  // namespace fabricmem
