// SPDX-License-Identifier: Apache-2.0
// Contexts, primary ones and others, and what each thread holds of a driver.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include <cuda.h>

namespace fabricmem::detail::emulated {

struct Stream;

/// A device's primary context, or one that was made. Its address is its CUcontext; it lives as long as the driver, so a
/// stale one is told apart by `retained` and never read after its end.
struct Context {
    explicit Context(int ordinal) noexcept : device(ordinal) {}

    [[nodiscard]] bool active() const noexcept { return retained.load(std::memory_order_acquire) > 0; }
    [[nodiscard]] CUcontext handle() noexcept { return reinterpret_cast<CUcontext>(this); }

    const int device;
    std::uint64_t id = 0;                      ///< unlike every other context's of the driver; 0: of no use yet
    std::atomic<unsigned int> flags{0};        ///< CUctx_flags, as they were given
    std::shared_ptr<Stream> default_stream;    ///< set by the StreamEngine, then as it is
    std::atomic<std::size_t> retained{0};      ///< of one that was made: 1, and 0 from its end on
    std::atomic<CUresult> lost{CUDA_SUCCESS};  ///< what every call that needs the context answers once work has failed
};

/// What a thread holds of one driver.
struct ThreadState {
    std::vector<Context*> contexts;
    std::unordered_map<const Context*, std::shared_ptr<Stream>> streams;  ///< CU_STREAM_PER_THREAD
    CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
};

/// Names a driver to its threads. Those that outlive the driver notice by its end, and drop what they hold of it.
struct DriverLife {};

/// This thread's state of a driver; null while the thread's own statics are being destroyed. A thread forgets dead
/// drivers when it meets a new one.
[[nodiscard]] ThreadState* thread_state(const std::shared_ptr<DriverLife>& life);

}  // namespace fabricmem::detail::emulated
