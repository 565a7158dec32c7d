// SPDX-License-Identifier: Apache-2.0
#include "driver/foreign_ids.hpp"

#include <algorithm>

#include "platform/random_id.hpp"

namespace fabricmem::detail {

const ForeignIds::Entry* ForeignIds::find(const MappingKey& key) const {
    const auto found = entries_.find(key.base);
    return found != entries_.end() && found->second.key == key ? &found->second : nullptr;
}

const ForeignIds::Entry* ForeignIds::find_same_handle(const Handle& handle, const MappingKey& than) const {
    for (const auto& [base, entry] : entries_) {
        if (base != than.base && entry.handle == handle) return &entry;
    }
    return nullptr;
}

void ForeignIds::erase(const MappingKey& key) {
    const auto found = entries_.find(key.base);
    if (found != entries_.end() && found->second.key == key) entries_.erase(found);
}

Id128 ForeignIds::id_of(const MappingKey& key, const Handle& handle, const IsAlive& is_alive) {
    std::optional<Entry> same;  // a mapping of the same memory, seen alive after this one was
    bool full = false;
    for (;;) {
        {
            const std::lock_guard lock(mutex_);
            if (const Entry* const known = find(key); known != nullptr) return known->id;
            const Entry* const other = find_same_handle(handle, key);
            if (other == nullptr || (same.has_value() && other->key == same->key)) {
                const Id128 id = other == nullptr ? random_id() : other->id;
                entries_.insert_or_assign(key.base, Entry{key, handle, id});
                full = entries_.size() >= sweep_at_;
                if (!full) return id;
                same = Entry{key, handle, id};
                break;
            }
            same = *other;
        }
        if (is_alive(same->key)) continue;
        const std::lock_guard lock(mutex_);
        erase(same->key);
        same.reset();
    }
    sweep(is_alive);
    return same->id;
}

void ForeignIds::sweep(const IsAlive& is_alive) {
    std::vector<MappingKey> keys;
    {
        const std::lock_guard lock(mutex_);
        keys.reserve(entries_.size());
        for (const auto& [base, entry] : entries_) keys.push_back(entry.key);
    }
    std::vector<MappingKey> gone;
    for (const MappingKey& key : keys) {
        if (!is_alive(key)) gone.push_back(key);
    }
    const std::lock_guard lock(mutex_);
    for (const MappingKey& key : gone) erase(key);
    sweep_at_ = std::max(kSweepFrom, 2 * entries_.size());
}

std::size_t ForeignIds::size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
}

}  // namespace fabricmem::detail
