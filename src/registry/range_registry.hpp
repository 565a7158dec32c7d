// SPDX-License-Identifier: Apache-2.0
// The table behind OwnedRanges: sorted snapshots that readers find an address in, replaced as a whole by writers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include <fabricmem/owned_ranges.hpp>

#include "registry/read_gate.hpp"

namespace fabricmem::detail {

class RangeRegistry {
public:
    RangeRegistry();
    RangeRegistry(const RangeRegistry&) = delete;
    RangeRegistry& operator=(const RangeRegistry&) = delete;
    ~RangeRegistry();

    // As OwnedRanges' members.
    void add(const BufferInfo& buffer);
    void begin_tear_down(const BufferInfo& buffer) noexcept;
    void end_tear_down(const BufferInfo& buffer) noexcept;
    [[nodiscard]] OwnedRange look_up(std::uintptr_t address, std::uint64_t bytes) const noexcept;
    [[nodiscard]] std::size_t size() const noexcept;

private:
    struct Buffer {
        Location location = Location::device(0);
        HandleBlob blob;
        // Set once, by a release that look-ups acquire: one that begins after begin_tear_down() has returned sees it.
        std::atomic<bool> tearing_down{false};
        bool ended = false;  // guarded by mutex_: to be left out of the next snapshot
    };
    struct Slot {
        std::uintptr_t base = 0;
        std::uint64_t bytes = 0;         // of the buffer
        std::uint64_t mapped_bytes = 0;  // nobody else can be there
        std::shared_ptr<Buffer> buffer;
    };
    using Snapshot = std::vector<Slot>;  // by base; no two overlap

    // With the lock held.
    [[nodiscard]] Buffer* find(const BufferInfo& buffer) const noexcept;
    void publish(std::unique_ptr<const Snapshot> next) noexcept;

    std::uint64_t made_in_;
    mutable ReadGate gate_;
    std::mutex mutex_;  // of the writers
    std::atomic<const Snapshot*> current_;
};

}  // namespace fabricmem::detail
