// SPDX-License-Identifier: Apache-2.0
#include "flags/sealed_slot.hpp"

#include <atomic>
#include <cstring>

#include "blob/crc32c.hpp"
#include "blob/wire.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::size_t kSealed = 56;
constexpr std::size_t kSlotWords = 8;

}  // namespace

SlotBytes seal(const SlotMessage& message) noexcept {
    SlotBytes bytes{};
    if (message == SlotMessage{}) return bytes;
    put_le(bytes.data(), message.sequence);
    std::memcpy(bytes.data() + 8, message.payload.data(), message.payload.size());
    put_le(bytes.data() + kSealed, crc32c(std::span<const std::byte>(bytes).first(kSealed)));
    return bytes;
}

std::optional<SlotMessage> unseal(const SlotBytes& bytes) noexcept {
    if (bytes == SlotBytes{}) return SlotMessage{};
    if (get_le<std::uint32_t>(bytes.data() + kSealed) != crc32c(std::span<const std::byte>(bytes).first(kSealed)) ||
        get_le<std::uint32_t>(bytes.data() + kSealed + 4) != 0) {
        return std::nullopt;
    }
    SlotMessage message;
    message.sequence = get_le<std::uint64_t>(bytes.data());
    std::memcpy(message.payload.data(), bytes.data() + 8, message.payload.size());
    return message;
}

SlotBytes load_slot(const void* address) noexcept {
    // A const object is not loaded atomically by C++20's atomic_ref; nothing is stored here.
    auto* words = static_cast<std::uint64_t*>(const_cast<void*>(address));
    SlotBytes bytes;
    for (std::size_t i = 0; i < kSlotWords; ++i) {
        const std::uint64_t word = std::atomic_ref(words[i]).load(std::memory_order_acquire);
        std::memcpy(bytes.data() + 8 * i, &word, 8);
    }
    return bytes;
}

void store_slot(void* address, const SlotBytes& bytes) noexcept {
    auto* words = static_cast<std::uint64_t*>(address);
    for (std::size_t i = 1; i <= kSlotWords; ++i) {  // the first word, which has the sequence, last
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + 8 * (i % kSlotWords), 8);
        std::atomic_ref(words[i % kSlotWords]).store(word, std::memory_order_release);
    }
}

}  // namespace fabricmem::detail
