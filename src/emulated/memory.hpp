// SPDX-License-Identifier: Apache-2.0
// One allocation as one driver sees it: its properties, and its part of the file that the process shares. Knows no
// address of the user's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <cuda.h>

#include "emulated/backing.hpp"
#include "emulated/ledger.hpp"
#include "emulated/limits.hpp"
#include "emulated/process.hpp"

namespace fabricmem::detail::emulated {

/// What an allocation is. Its memfd's name says it too, for those who get only the descriptor.
struct MemoryTraits {
    int location_kind = 0;
    int location_id = 0;
    bool rdma = false;
    unsigned int handle_types = 0;  ///< what it can travel as; of an import: what it travelled as
    std::size_t bytes = 0;
};

class Memory {
public:
    using Key = Backing::Key;

    Memory(std::shared_ptr<Backing> backing, const MemoryTraits& traits, std::shared_ptr<Ledger> ledger,
           std::shared_ptr<Budget> charged) noexcept;
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory();

    [[nodiscard]] int descriptor() const noexcept { return backing_->descriptor(); }
    [[nodiscard]] const Key& key() const noexcept { return backing_->key(); }
    [[nodiscard]] const MemoryTraits& traits() const noexcept { return traits_; }
    [[nodiscard]] bool is_device() const noexcept { return traits_.location_kind == 1; }

    /// As Backing's, and counted as this driver's from the first call on.
    [[nodiscard]] std::byte* alias() noexcept;
    [[nodiscard]] std::byte* alias_if_made() const noexcept { return backing_->alias_if_made(); }
    void end_export() const noexcept { backing_->end_export(); }

private:
    std::shared_ptr<Backing> backing_;
    MemoryTraits traits_;
    std::shared_ptr<Ledger> ledger_;
    std::shared_ptr<Budget> charged_;  // null for imports: the exporter's driver has paid
    std::atomic<bool> alias_counted_{false};
};

/// Finds the one Memory of an allocation in a driver again. Thread-safe.
class MemoryTable {
public:
    MemoryTable(Backings& backings, std::shared_ptr<Ledger> ledger) : backings_(backings), ledger_(std::move(ledger)) {}

    [[nodiscard]] Backings& backings() const noexcept { return backings_; }

    /// A new allocation of zeros. OUT_OF_MEMORY where the budget or the system has no more.
    CUresult create(const MemoryTraits& traits, const std::shared_ptr<Budget>& budget, std::shared_ptr<Memory>* memory);
    /// The memory of a backing of this process's.
    std::shared_ptr<Memory> adopt(std::shared_ptr<Backing> backing, const MemoryTraits& traits);
    /// The memory behind a descriptor that this process was given; `file` is closed where the memory is known already.
    std::shared_ptr<Memory> adopt(FileDescriptor file, const Memory::Key& key, const MemoryTraits& traits) {
        return adopt(backings_.adopt(std::move(file), key, traits.bytes), traits);
    }

private:
    // With mutex_ held.
    std::shared_ptr<Memory> insert(std::shared_ptr<Backing> backing, const MemoryTraits& traits,
                                   std::shared_ptr<Budget> charged);

    Backings& backings_;
    std::shared_ptr<Ledger> ledger_;
    std::mutex mutex_;
    // Entries of dead memories are swept when the table has doubled, which keeps a lookup's cost and its size bounded.
    std::map<Memory::Key, std::weak_ptr<Memory>> memories_;
    std::size_t sweep_at_ = 64;
};

/// "fabricmem:1:0:..." and back. False where the file is not an emulated allocation's.
[[nodiscard]] bool read_traits(int descriptor, MemoryTraits* traits) noexcept;

}  // namespace fabricmem::detail::emulated
