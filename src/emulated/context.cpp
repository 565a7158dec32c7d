// SPDX-License-Identifier: Apache-2.0
// The thread_local table behind ThreadState.
#include "emulated/context.hpp"

#include <cstdint>
#include <unordered_map>

namespace fabricmem::detail::emulated {

namespace {

struct Entry {
    std::weak_ptr<DriverLife> life;  // keeps the address from being used again, so the key can't name another driver
    ThreadState state;
};
using Entries = std::unordered_map<const DriverLife*, Entry>;

enum class Phase : std::uint8_t { unused, alive, ended };

// Trivially destroyed, so it can be read by statics that are destroyed after the thread's own.
thread_local Phase t_phase = Phase::unused;
thread_local Entries* t_entries = nullptr;

struct Owner {
    Owner() {
        t_entries = &entries;
        t_phase = Phase::alive;
    }
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;
    ~Owner() {
        t_entries = nullptr;
        t_phase = Phase::ended;
    }
    Entries entries;
};

}  // namespace

ThreadState* thread_state(const std::shared_ptr<DriverLife>& life) {
    if (t_phase == Phase::ended) return nullptr;
    if (t_phase == Phase::unused) {
        thread_local Owner owner;
        static_cast<void>(owner);
    }
    if (const auto found = t_entries->find(life.get()); found != t_entries->end()) return &found->second.state;
    std::erase_if(*t_entries, [](const auto& entry) { return entry.second.life.expired(); });
    return &t_entries->emplace(life.get(), Entry{life, {}}).first->second.state;
}

}  // namespace fabricmem::detail::emulated
