// SPDX-License-Identifier: Apache-2.0
// A CUDA context for the few things that need one, and a stream of our own in it. The caller's is as it was afterwards.
#pragma once

#include <chrono>
#include <cstddef>

#include <fabricmem/driver.hpp>

#include "vmm/unique_handle.hpp"

namespace fabricmem::detail {

/// Keeps the thread's current context where it is one of this device's; else the device's primary context is retained
/// and current until the end of scope. Stream captures of other threads don't mind what is done meanwhile.
class CurrentContext {
public:
    CurrentContext(Driver& driver, int ordinal);
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;
    ~CurrentContext();

    /// Work is queued that nobody waits for: the device's primary context stays retained until the process ends.
    void keep_alive() noexcept { retained_ = false; }

private:
    Driver& driver_;
    CUdevice device_ = 0;
    bool retained_ = false;
    bool pushed_ = false;
    CUstreamCaptureMode other_mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
    bool exchanged_ = false;
};

struct StreamTraits {
    using Value = CUstream;
    static constexpr const char* kCloseCall = "cuStreamDestroy";
    static std::uint64_t bytes(Value) noexcept { return 0; }
    static CUresult close(Driver& driver, Value stream) noexcept { return driver.stream_destroy(stream); }
};
using Stream = UniqueHandle<StreamTraits>;

/// A non-blocking stream: it does not wait for the null stream, nor the null stream for it.
[[nodiscard]] Stream make_stream(Driver& driver);

enum class Finished : std::uint8_t { yes, no };

/// Waits until the stream's work is done; Finished::no at the deadline. Throws Error where the work failed.
[[nodiscard]] Finished wait_for(Driver& driver, CUstream stream, std::chrono::steady_clock::time_point deadline);

}  // namespace fabricmem::detail
