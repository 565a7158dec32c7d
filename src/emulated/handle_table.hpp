// SPDX-License-Identifier: Apache-2.0
// CUmemGenericAllocationHandle values: what each stands for, and what still refers to it. No lock of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "emulated/membership.hpp"
#include "emulated/memory.hpp"
#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

using HandleId = std::uint64_t;

enum class Origin : std::uint8_t { created, imported };

struct HandleRecord {
    std::shared_ptr<Memory> memory;
    Origin origin = Origin::created;
    std::size_t references = 0;                    ///< what cuMemRelease has yet to drop
    std::shared_ptr<const RemoteImport> remote{};  ///< of an import from another node; null for this node's memory
    std::size_t mappings = 0;  ///< a mapping keeps the record, so that a retain finds the same handle again
};

class HandleTable {
public:
    HandleTable() = default;
    HandleTable(const HandleTable&) = delete;
    HandleTable& operator=(const HandleTable&) = delete;
    /// Other drivers of the process may keep what this one made; its handles end with it.
    ~HandleTable() {
        for (const auto& [id, record] : records_) {
            if (record.origin == Origin::created) record.memory->end_export();
        }
    }

    HandleId add(std::shared_ptr<Memory> memory, Origin origin, std::shared_ptr<const RemoteImport> remote) {
        const HandleId id = next_id();
        records_.emplace(id, HandleRecord{std::move(memory), origin, 1, std::move(remote), 0});
        ++references_;
        return id;
    }

    /// The record of a handle that the caller holds a reference to; null for every other number.
    [[nodiscard]] HandleRecord* find(HandleId id) noexcept {
        HandleRecord* const record = find_any(id);
        return record != nullptr && record->references != 0 ? record : nullptr;
    }

    /// Whether dropping this ends an import of another node's memory.
    enum class Dropped : std::uint8_t { reference, mapping };
    [[nodiscard]] bool ends_remote(HandleId id, Dropped what) noexcept {
        const HandleRecord* const record = find_any(id);
        if (record == nullptr || record->remote == nullptr) return false;
        const bool reference = what == Dropped::reference;
        return record->references == (reference ? 1U : 0U) && record->mappings == (reference ? 0U : 1U);
    }

    void retain(HandleId id) noexcept {
        ++find_any(id)->references;
        ++references_;
    }
    /// The memory that `id` kept, where this was the last that referred to it: let it end outside the lock.
    [[nodiscard]] std::shared_ptr<Memory> release(HandleId id) noexcept {
        --find_any(id)->references;
        --references_;
        return drop_unused(id);
    }
    void add_mapping(HandleId id) noexcept { ++find_any(id)->mappings; }
    [[nodiscard]] std::shared_ptr<Memory> remove_mapping(HandleId id) noexcept {
        --find_any(id)->mappings;
        return drop_unused(id);
    }

    [[nodiscard]] std::size_t references() const noexcept { return references_; }

private:
    HandleRecord* find_any(HandleId id) noexcept {
        const auto found = records_.find(id);
        return found == records_.end() ? nullptr : &found->second;
    }

    std::shared_ptr<Memory> drop_unused(HandleId id) noexcept {
        const auto found = records_.find(id);
        if (found->second.references != 0 || found->second.mappings != 0) return nullptr;
        std::shared_ptr<Memory> memory = std::move(found->second.memory);
        // Imports of this process, of any of its drivers, may keep the memory; its handle is worth nothing all the
        // same.
        if (found->second.origin == Origin::created) memory->end_export();
        records_.erase(found);
        return memory;
    }

    // mix() is a bijection with mix(0) == 0, so values do not come back and are never 0.
    HandleId next_id() noexcept { return mix(++last_); }

    std::unordered_map<HandleId, HandleRecord> records_;
    std::uint64_t last_ = 0;
    std::size_t references_ = 0;
};

}  // namespace fabricmem::detail::emulated
