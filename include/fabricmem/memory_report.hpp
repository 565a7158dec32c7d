// SPDX-License-Identifier: Apache-2.0
// What a driver's buffers hold: on call, and at exit where that is asked for. No CUDA type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/export.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

/// A buffer that is open.
struct LiveMemory {
    const void* base = nullptr;  ///< where the whole allocation is mapped
    Location location = Location::device(0);
    HandleKinds kinds{};
    HandleBlob blob{};  ///< its own; of an import: the one that it came from
};

/// What the buffers of one driver object hold at one moment. Arenas, flags and handshakes keep theirs in buffers too.
struct FABRICMEM_API MemoryReport {
    std::vector<LiveMemory> buffers{};  ///< FabricBuffers, the oldest first
    std::vector<LiveMemory> imports{};  ///< ImportedFabricBuffers, the oldest first
    std::uint64_t buffer_bytes = 0;     ///< mapped, of all of them
    std::uint64_t import_bytes = 0;     ///< the same

    std::size_t given_up = 0;  ///< buffers that stay mapped until the process ends: work on them was never done
    std::uint64_t given_up_bytes = 0;
    std::size_t failed_tear_downs = 0;  ///< buffers that the driver did not take back whole (the log says which)
    std::uint64_t failed_tear_down_bytes = 0;
    std::size_t retired_ranges = 0;  ///< reserved addresses without memory (RetireAddress::yes)
    std::uint64_t retired_bytes = 0;
    std::size_t stuck_calls = 0;  ///< as stuck_calls()

    /// Whether nothing is held: no buffer and no import, none given up or not taken back, no call stuck. Retired ranges
    /// hold no memory.
    [[nodiscard]] bool is_clean() const noexcept;
    /// Several lines for humans: the sums, then a line for each buffer, and whose memory an import is. Names at most 64
    /// buffers and 64 imports. No handle bytes are in it.
    [[nodiscard]] std::string describe() const;
};

/// Makes no driver call. Any thread; buffers that are being made or taken down meanwhile may be in it or not. In a
/// forked child it is empty: all is the parent's. Throws std::bad_alloc alone.
[[nodiscard]] FABRICMEM_API MemoryReport memory_report(const Driver& driver);

/// Logs the driver's report when the process exits: a warning where something is held, else a line of level info. The
/// driver is not kept alive by it, and nothing is said of one that is gone by then (its buffers went before).
///
/// Said when the statics are destroyed that were made before this function's first call, so call it early in main: a
/// buffer in a static that was made before is in the report, though it is about to be destroyed. Makes no driver call,
/// so it is safe after the driver has shut down. Not after _exit(), quick_exit() or a signal, and not in a forked
/// child. A second call for the same driver does nothing. Throws Error{bad_argument} where `driver` is null.
FABRICMEM_API void report_memory_at_exit(const std::shared_ptr<Driver>& driver);

}  // namespace fabricmem
