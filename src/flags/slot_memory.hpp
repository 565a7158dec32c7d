// SPDX-License-Identifier: Apache-2.0
// Where slots lie and how they are reached: by the CPU, or by copies of a device's.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include <fabricmem/flag_slots.hpp>

#include "vmm/copy_port.hpp"
#include "worker/turn.hpp"

namespace fabricmem::detail {

/// Whether the CPU may load and store in this memory: it has access, and where the memory is a peer's, both run on this
/// node since this boot. Stores of a CPU into another node's memory are never made.
[[nodiscard]] bool cpu_may_touch(const Access& access, Driver& driver, const HandleBlob* imported_from);

class SlotMemory {
public:
    SlotMemory(Block block, std::size_t slot_bytes, const FlagSlotsOptions& options);
    SlotMemory(std::shared_ptr<const ImportedFabricBuffer> buffer, std::uint64_t offset, std::size_t count,
               std::size_t slot_bytes, const FlagSlotsOptions& options);
    SlotMemory(const SlotMemory&) = delete;
    SlotMemory& operator=(const SlotMemory&) = delete;
    ~SlotMemory();

    [[nodiscard]] std::size_t count() const noexcept { return count_; }
    [[nodiscard]] bool is_direct() const noexcept { return port_ == nullptr; }

    /// The slot's address; direct memory only. Throws Error{bad_argument} for one beyond the last, Error{unsupported}
    /// in a forked child, whose memory this is not.
    [[nodiscard]] std::byte* direct(std::size_t index) const;
    void write(std::size_t index, std::span<const std::byte> bytes);
    void write_zeros();
    /// Throws Error{bad_argument} where this process may only read.
    void check_writable() const;
    /// False where the deadline, or the copy's own time limit, came first; the latter throws Error{timed_out}.
    [[nodiscard]] bool read(std::size_t index, std::span<std::byte> bytes,
                            std::optional<std::chrono::steady_clock::time_point> deadline) const;

private:
    void start(const Access& access, const Location& location, const HandleBlob* imported_from,
               const FlagSlotsOptions& options);
    void check_index(std::size_t index) const;
    [[nodiscard]] Error too_late() const;

    std::shared_ptr<Driver> driver_;
    Block block_;
    std::shared_ptr<const ImportedFabricBuffer> buffer_;
    std::byte* address_ = nullptr;
    std::size_t count_;
    std::size_t slot_bytes_;
    std::uint64_t born_in_;
    std::chrono::milliseconds copy_timeout_;
    bool writable_ = true;
    mutable Turn turn_;  // guards the port
    std::unique_ptr<CopyPort> port_;
};

}  // namespace fabricmem::detail
