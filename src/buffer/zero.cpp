// SPDX-License-Identifier: Apache-2.0
#include "buffer/zero.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "text/text.hpp"
#include "vmm/context.hpp"

namespace fabricmem::detail {
namespace {

// Unmapping memory under queued work loses the context, and ending the context may wait for the work, so both are given
// up instead.
[[noreturn]] void give_up(BufferParts& parts, Stream& stream, CurrentContext& current,
                          std::chrono::milliseconds patience) {
    const std::uint64_t bytes = parts.range.get().bytes;
    stream.abandon();
    current.keep_alive();
    parts.give_up();
    log(LogLevel::error, "{} bytes are kept until the process ends: a memset of them is still queued", bytes);
    throw Error({.kind = ErrorKind::timed_out,
                 .call = "cuMemsetD8Async",
                 .bytes = bytes,
                 .subject = to_string(parts.location),
                 .cause = formatted("the GPU did not get to it within {} ms", patience.count()),
                 .cure = "look for a kernel that never ends",
                 .check = "FM-MEMORY-011"});
}

}  // namespace

void zero(BufferParts& parts, int owner) {
    const Range& whole = parts.range.get();
    if (parts.access.host) {
        std::memset(parts.base(), 0, whole.bytes);
        return;
    }
    // Not the host, so there is one.
    const std::vector<int>& able = parts.access.devices;
    const int ordinal = std::find(able.begin(), able.end(), owner) != able.end() ? owner : able.front();
    Driver& driver = *parts.driver;
    CurrentContext current(driver, ordinal);
    Stream stream = make_stream(driver);
    check(driver.memset_d8_async(whole.address, 0, whole.bytes, stream.get()), driver,
          {.call = "cuMemsetD8Async", .bytes = whole.bytes, .location = parts.location});
    const std::chrono::milliseconds patience = DriverState::of(driver).patience.zeroing;
    if (wait_for(driver, stream.get(), std::chrono::steady_clock::now() + patience) == Finished::no)
        give_up(parts, stream, current, patience);
    check(stream.close(), driver, {.call = "cuStreamDestroy"});
}

}  // namespace fabricmem::detail
