// SPDX-License-Identifier: Apache-2.0
// One import's place in a cache. Slots are never freed before their cache, so that threads may count in one that has
// become another import's meanwhile, see that, and take it back.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/types.hpp>

#include "cache/cache_key.hpp"
#include "cache/striped_refs.hpp"

namespace fabricmem::detail {

class CacheCore;

/// A cached import, and its place in a list of those that are to end: no memory is needed for that.
struct CachedImport {
    explicit CachedImport(ImportedFabricBuffer made) noexcept : buffer(std::move(made)) {}

    ImportedFabricBuffer buffer;
    bool of_other_node = false;  // once it is to end
    std::unique_ptr<CachedImport> next;
};

/// CachedImports, one after the other.
class ImportList {
public:
    ImportList() noexcept = default;
    ImportList(const ImportList&) = delete;
    ImportList& operator=(const ImportList&) = delete;
    ~ImportList() {
        while (pop() != nullptr) {  // not by recursion
        }
    }
    void push(std::unique_ptr<CachedImport> import) noexcept {
        import->next = std::move(first_);
        first_ = std::move(import);
    }
    [[nodiscard]] std::unique_ptr<CachedImport> pop() noexcept {
        std::unique_ptr<CachedImport> import = std::move(first_);
        if (import != nullptr) first_ = std::move(import->next);
        return import;
    }
    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }

private:
    std::unique_ptr<CachedImport> first_;
};

/// Why an import is retired.
enum class Retire : std::uint8_t { for_room, idle, by_peer, invalidated, outdated, at_end };

/// What a hit looks at is in the first two cache lines, and a stripe.
struct alignas(64) CacheSlot {
    enum class State : std::uint8_t {
        free,
        reserved,  // an import is being made for it
        live,      // can be acquired
        retired,   // can't, but is referenced
    };

    // Written while nobody has a reference, read by those who have one.
    CacheKey key;
    std::byte* base = nullptr;
    std::uint64_t mapped_bytes = 0;
    std::unique_ptr<CachedImport> import;
    CacheCore* core = nullptr;  // never changes

    // Any thread.
    std::atomic<std::uint64_t> next{0};       // the next one of its bucket (CacheTable)
    std::atomic<std::uint64_t> last_used{0};  // a tick of the core's, stored only where it differs
    std::atomic<std::int64_t> idle_ms{0};
    StripedRefs refs;

    // Guarded by the core's mutex.
    State state = State::free;
    Id128 peer;
    std::uint64_t generation = 0;
    std::uint64_t serial = 0;  // of the import

    [[nodiscard]] bool has(std::uint64_t offset, std::uint64_t bytes) const noexcept {
        return bytes != 0 && offset <= mapped_bytes && bytes <= mapped_bytes - offset;
    }
    /// Has the key on its way while the reference is taken, which on x86 no later load overtakes.
    void prefetch() const noexcept {
        __builtin_prefetch(&key);
        __builtin_prefetch(&mapped_bytes);
    }
    /// By who has a reference.
    void touch(std::uint64_t tick) noexcept {
        if (last_used.load(std::memory_order_relaxed) != tick) last_used.store(tick, std::memory_order_relaxed);
    }
};

/// Gives a reference back, and ends the import where it was the last one of a retired one.
void let_go(CacheSlot& slot, std::uint32_t stripe) noexcept;

}  // namespace fabricmem::detail
