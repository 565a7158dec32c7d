// SPDX-License-Identifier: Apache-2.0
// What tells allocations apart, over all hosts, boots and processes. Never an address, never the handle's bytes.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>

#include <fabricmem/handle_blob.hpp>

namespace fabricmem::detail {

/// Nine words, so that comparing is cheap. What a blob does not know is told apart from zero.
class CacheKey {
public:
    CacheKey() noexcept = default;
    explicit CacheKey(const HandleBlob& blob) noexcept {
        std::uint64_t known = 0;
        put_id(0, blob.allocation_id, 1, known);
        put_id(2, blob.host_id, 2, known);
        put_id(4, blob.boot_id, 4, known);
        words_[6] = put(blob.process_start, 8, known);
        words_[7] = put(blob.pid_namespace, 16, known);
        words_[8] = (put(blob.process_id, 32, known) << 32) | known;
    }

    /// The allocation's id is random, and the rest is the same for a process's allocations: mixed all the same, since
    /// ids come from others.
    [[nodiscard]] std::uint64_t hash() const noexcept {
        constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15U;
        std::uint64_t mixed = (words_[0] ^ std::rotl(words_[1], 29) ^ std::rotl(words_[6], 17)) * kOdd;
        mixed ^= mixed >> 32;
        return mixed * kOdd;
    }
    [[nodiscard]] Id128 allocation_id() const noexcept {
        Id128 id;
        std::memcpy(id.bytes.data(), words_.data(), id.bytes.size());
        return id;
    }

    friend bool operator==(const CacheKey&, const CacheKey&) noexcept = default;
    friend bool operator<(const CacheKey& one, const CacheKey& two) noexcept { return one.words_ < two.words_; }

private:
    void put_id(std::size_t at, const std::optional<Id128>& id, std::uint64_t flag, std::uint64_t& known) noexcept {
        if (!id.has_value()) return;
        std::memcpy(&words_[at], id->bytes.data(), id->bytes.size());
        known |= flag;
    }
    template <typename Number>
    static std::uint64_t put(const std::optional<Number>& number, std::uint64_t flag, std::uint64_t& known) noexcept {
        if (!number.has_value()) return 0;
        known |= flag;
        return *number;
    }

    std::array<std::uint64_t, 9> words_{};
};

/// For maps by id.
struct IdLess {
    [[nodiscard]] bool operator()(const Id128& one, const Id128& two) const noexcept { return one.bytes < two.bytes; }
};

}  // namespace fabricmem::detail
