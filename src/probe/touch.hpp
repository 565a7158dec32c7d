// SPDX-License-Identifier: Apache-2.0
// A GPU writes into a probe's memory and reads it, by a deadline, and without leaving queued work under memory that
// is unmapped.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "vmm/context.hpp"

namespace fabricmem::detail {

/// What a copy to the host's memory goes to.
struct Landing {
    std::vector<unsigned char> bytes;
    Landing* next = nullptr;  // of those that were given up
};

/// One device's work on a probe's buffers, on a non-blocking stream of its own. Each member waits for its work until
/// one deadline that all share (Patience::probing from the making on), and throws Error{timed_out} there: the buffers,
/// the stream and the context are then given up, since unmapping under queued work loses the context. Throws Error for
/// a call that fails.
class Touch {
public:
    /// `buffers`: all that the device is to touch; they outlive this.
    Touch(Driver& driver, int ordinal, std::vector<MappedBuffer*> buffers);

    void fill(const MappedBuffer& buffer, unsigned char value, std::size_t bytes);
    /// By stream write-values, which need no memory of the host's.
    void write(const MappedBuffer& buffer, std::span<const std::uint32_t> words);
    /// Into pageable memory: freeing page-locked memory waits for all of the GPU's work, other people's too (an H100's
    /// driver hung in cuMemFreeHost under a stream that was held up). On x86 such a copy is over when the call is, so
    /// it is made when the stream has come to rest; where it is not (Grace), what it goes to is given up with the rest.
    [[nodiscard]] std::vector<unsigned char> read(const MappedBuffer& buffer, std::size_t bytes);

private:
    void wait(const char* call, std::size_t bytes, const Location& where);

    Driver& driver_;
    CurrentContext current_;
    Stream stream_;
    std::vector<MappedBuffer*> buffers_;
    std::unique_ptr<Landing> landing_;  // of the copy that is under way
    std::chrono::milliseconds patience_;
    std::chrono::steady_clock::time_point deadline_;
};

}  // namespace fabricmem::detail
