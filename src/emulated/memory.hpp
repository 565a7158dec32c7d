// SPDX-License-Identifier: Apache-2.0
// One allocation as this driver sees it: a memfd, its properties, and at most one alias. Knows no address of the
// user's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <cuda.h>

#include "emulated/ledger.hpp"
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
    using Key = std::pair<std::uint64_t, std::uint64_t>;  // st_dev, st_ino

    Memory(FileDescriptor file, const Key& key, const MemoryTraits& traits, std::shared_ptr<Ledger> ledger,
           std::shared_ptr<Budget> charged);
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory();

    [[nodiscard]] int descriptor() const noexcept { return file_.get(); }
    [[nodiscard]] const Key& key() const noexcept { return key_; }
    [[nodiscard]] const MemoryTraits& traits() const noexcept { return traits_; }
    [[nodiscard]] bool is_device() const noexcept { return traits_.location_kind == 1; }

    /// The whole memory where this process's emulator can load and store it, made at the first call; null where the
    /// system refuses (logged). The user never sees this address.
    [[nodiscard]] std::byte* alias() noexcept;
    /// From here on a fabric handle of it can't be imported, although imports keep the memory. Kept as a seal of the
    /// file's, so that it is seen by every process that has it.
    void end_export() const noexcept;
    [[nodiscard]] static bool export_ended(int descriptor) noexcept;

    [[nodiscard]] std::byte* alias_if_made() const noexcept { return alias_.load(std::memory_order_acquire); }

private:
    FileDescriptor file_;
    Key key_;
    MemoryTraits traits_;
    std::shared_ptr<Ledger> ledger_;
    std::shared_ptr<Budget> charged_;  // null for imports: the exporter's driver has paid
    std::mutex alias_mutex_;
    std::atomic<std::byte*> alias_{nullptr};
};

/// Finds the one Memory of an allocation again, so that a process holds one descriptor of it. Thread-safe.
class MemoryTable {
public:
    explicit MemoryTable(std::shared_ptr<Ledger> ledger) : ledger_(std::move(ledger)) {}

    /// A new allocation of zeros. OUT_OF_MEMORY where the budget or the system has no more.
    CUresult create(const MemoryTraits& traits, const std::shared_ptr<Budget>& budget, std::shared_ptr<Memory>* memory);
    /// The memory behind a descriptor that this process was given; `file` is closed where the memory is known already.
    std::shared_ptr<Memory> adopt(FileDescriptor file, const Memory::Key& key, const MemoryTraits& traits);

private:
    // With mutex_ held.
    std::shared_ptr<Memory> insert(FileDescriptor file, const Memory::Key& key, const MemoryTraits& traits,
                                   std::shared_ptr<Budget> charged);

    std::shared_ptr<Ledger> ledger_;
    std::mutex mutex_;
    // Entries of dead memories are swept when the table has doubled, which keeps a lookup's cost and its size bounded.
    std::map<Memory::Key, std::weak_ptr<Memory>> memories_;
    std::size_t sweep_at_ = 64;
};

/// "fabricmem:1:0:..." and back. False where the file is not an emulated allocation's.
[[nodiscard]] bool read_traits(int descriptor, MemoryTraits* traits) noexcept;

/// OUT_OF_MEMORY, after a log line that names the limit behind `error`.
[[nodiscard]] CUresult out_of_memory(const char* call, int error) noexcept;

}  // namespace fabricmem::detail::emulated
