// SPDX-License-Identifier: Apache-2.0
// Allocation ids for memory that others made: the same for as long as a mapping stays, never given to other memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include <fabricmem/export.hpp>
#include <fabricmem/handle_blob.hpp>

namespace fabricmem::detail {

/// A mapping, as the driver numbers them: the buffer id is another one for each, for the process's life. So whoever has
/// the same three is the same mapping, and it has been there all the while.
struct MappingKey {
    std::uintptr_t base = 0;
    std::uint64_t bytes = 0;
    std::uint64_t buffer_id = 0;
    friend bool operator==(const MappingKey&, const MappingKey&) = default;
};

/// Thread-safe; asks no driver with its lock held. Exported for tests.
class FABRICMEM_API ForeignIds {
public:
    using Handle = std::array<std::uint8_t, HandleBlob::kHandleBytes>;
    /// Whether the mapping is still there, by asking the driver. May throw, which id_of() passes on.
    using IsAlive = std::function<bool(const MappingKey&)>;

    /// The id of the mapping's memory. A mapping that is not known yet has the id of another one with the same handle,
    /// where that is still there: the driver exports the same bytes for the same allocation, but says nowhere that they
    /// are never those of a later one. Else a new one. Drops, now and then, what is not there any more.
    [[nodiscard]] Id128 id_of(const MappingKey& key, const Handle& handle, const IsAlive& is_alive);

    [[nodiscard]] std::size_t size() const;

private:
    static constexpr std::size_t kSweepFrom = 256;

    struct Entry {
        MappingKey key;
        Handle handle;
        Id128 id;
    };

    // With the lock held.
    [[nodiscard]] const Entry* find(const MappingKey& key) const;
    [[nodiscard]] const Entry* find_same_handle(const Handle& handle, const MappingKey& than) const;
    void erase(const MappingKey& key);

    void sweep(const IsAlive& is_alive);

    mutable std::mutex mutex_;                 // guards all below
    std::map<std::uintptr_t, Entry> entries_;  // by base: one mapping at a time
    std::size_t sweep_at_ = kSweepFrom;
};

}  // namespace fabricmem::detail
