// SPDX-License-Identifier: Apache-2.0
// Tries fabric memory from create to touch and takes all down again.
#include <fabricmem/probe.hpp>

#include <algorithm>
#include <chrono>
#include <span>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "buffer/buffer_parts.hpp"
#include "driver/check.hpp"
#include "driver/driver_state.hpp"
#include "text/text.hpp"
#include "vmm/context.hpp"

namespace fabricmem {
namespace {

using detail::BufferParts;
using detail::DriverState;

constexpr unsigned char kPattern = 0xa5;
constexpr std::size_t kTouchedBytes = 4096;

CUdeviceptr pointer(const void* address) noexcept {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(address));
}

// What a probe touches memory with. It reads back into pageable memory: freeing page-locked memory waits for all of the
// GPU's work, other people's too (an H100's driver hung in cuMemFreeHost under a stream that was held up). A copy into
// pageable memory is over when the call is, so it is made when the stream has come to rest.
struct Touch {
    Touch(Driver& driver_to_use, int ordinal)
        : driver(driver_to_use),
          current(driver, ordinal),
          stream(detail::make_stream(driver)),
          patience(DriverState::of(driver).patience.probing),
          deadline(std::chrono::steady_clock::now() + patience) {}

    Driver& driver;
    detail::CurrentContext current;
    std::unique_ptr<unsigned char[]> seen = std::make_unique<unsigned char[]>(kTouchedBytes);
    detail::Stream stream;
    std::chrono::milliseconds patience;
    std::chrono::steady_clock::time_point deadline;
};

// Waits for what was queued last. Unmapping under queued work loses the context, and ending the context may wait for
// the work: all of it is given up instead.
void wait(Touch& touch, const char* call, FabricBuffer& own, ImportedFabricBuffer& imported) {
    if (detail::wait_for(touch.driver, touch.stream.get(), touch.deadline) == detail::Finished::yes) return;
    touch.stream.abandon();
    touch.current.keep_alive();
    BufferParts::of(own).give_up();
    BufferParts::of(imported).give_up();
    throw Error({.kind = ErrorKind::timed_out,
                 .call = call,
                 .bytes = kTouchedBytes,
                 .subject = to_string(own.location()),
                 .cause = detail::formatted("the GPU did not get to it within {} ms", touch.patience.count()),
                 .cure = "look for a kernel that never ends"});
}

// The device that touches: the one that is asked about, or is nearest; for a host node any that got access.
int toucher(const Location& asked, const Access& own, const Access& imported) {
    const auto able = [&](int device) {
        const auto has = [&](const std::vector<int>& all) {
            return std::find(all.begin(), all.end(), device) != all.end();
        };
        return has(own.devices) && has(imported.devices);
    };
    if (asked.kind() != LocationKind::host_numa) {
        if (able(asked.index())) return asked.index();
    } else if (const auto found = std::find_if(own.devices.begin(), own.devices.end(), able);
               found != own.devices.end()) {
        return *found;
    }
    const std::string who =
        asked.kind() == LocationKind::host_numa ? "no GPU" : detail::formatted("not even device {}", asked.index());
    throw Error({.kind = ErrorKind::unsupported,
                 .call = "cuMemSetAccess",
                 .subject = detail::formatted("{} got access to memory of {}", who, to_string(asked)),
                 .cause = "the driver refused it; the log has its code",
                 .cure = "use memory that the GPU can reach, its own as a rule"});
}

// A GPU writes through the import, and what the exporter's own mapping holds then is read back.
void touch(Driver& driver, const Location& asked, FabricBuffer& own, ImportedFabricBuffer& imported) {
    Touch with(driver, toucher(asked, own.access(), imported.access()));
    detail::check(driver.memset_d8_async(pointer(imported.address()), kPattern, kTouchedBytes, with.stream.get()),
                  driver, {.call = "cuMemsetD8Async", .bytes = kTouchedBytes, .location = own.location()});
    wait(with, "cuMemsetD8Async", own, imported);
    detail::check(
        driver.memcpy_async(pointer(with.seen.get()), pointer(own.address()), kTouchedBytes, with.stream.get()), driver,
        {.call = "cuMemcpyAsync", .bytes = kTouchedBytes, .location = own.location()});
    wait(with, "cuMemcpyAsync", own, imported);
    const std::span seen(with.seen.get(), kTouchedBytes);
    if (std::all_of(seen.begin(), seen.end(), [](unsigned char byte) { return byte == kPattern; })) return;
    throw Error({.kind = ErrorKind::driver,
                 .subject = detail::formatted(
                     "what the GPU wrote through an import on {} did not arrive in the exporter's mapping",
                     to_string(own.location()))});
}

void try_all(const std::shared_ptr<Driver>& driver, const Location& location, ProbeResult& result) {
    FabricBuffer own(driver, 1, {.location = location});
    ImportedFabricBuffer imported(driver, own.blob());
    touch(*driver, location, own, imported);
    result.kinds = own.kinds();
    imported.close();
    if (own.close() == CloseResult::still_referenced) {
        throw Error(
            {.kind = ErrorKind::conflict, .subject = "the probe's memory is still referenced after it was released"});
    }
}

}  // namespace

ProbeResult probe(const std::shared_ptr<Driver>& driver, const Location& location) {
    ProbeResult result{location, std::nullopt, HandleKinds(), {}};
    try {
        try_all(driver, location, result);
        result.summary = detail::formatted("fabric memory works on {} (within this node; other nodes were not tried)",
                                           to_string(location));
    } catch (const Error& error) {
        result.why_not = error;
        result.summary = detail::formatted("no fabric memory on {}: {}", to_string(location), error.what());
    }
    return result;
}

}  // namespace fabricmem
