// SPDX-License-Identifier: Apache-2.0
// Tries fabric memory from create to touch and takes all down again.
#include <fabricmem/probe.hpp>

#include <array>
#include <chrono>
#include <utility>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "driver/check.hpp"
#include "text/text.hpp"
#include "vmm/context.hpp"

namespace fabricmem {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);
constexpr unsigned char kPattern = 0xa5;
constexpr std::size_t kTouchedBytes = 4096;

CUdeviceptr pointer(const MappedBuffer& buffer) noexcept {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(buffer.address()));
}

[[noreturn]] void timed_out(const char* call) {
    throw Error({.kind = ErrorKind::timed_out,
                 .call = call,
                 .bytes = kTouchedBytes,
                 .cause = "the GPU did not get to it within 10 s",
                 .cure = "look for a kernel that never ends"});
}

// The device that touches: the one that is asked about, or is nearest; for a host node any.
int toucher(const Location& asked, const Access& access) {
    if (asked.kind() != LocationKind::host_numa) return asked.index();
    if (!access.devices.empty()) return access.devices.front();
    throw Error({.kind = ErrorKind::unsupported,
                 .call = "cuMemSetAccess",
                 .subject = detail::formatted("no GPU got access to memory of {}", to_string(asked))});
}

// A GPU writes through the import, and what the exporter's own mapping holds then is read back.
void touch(Driver& driver, const Location& asked, FabricBuffer& own, ImportedFabricBuffer& imported) {
    detail::CurrentContext current(driver, toucher(asked, own.access()));
    detail::Stream stream = detail::make_stream(driver);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    const auto wait = [&](const char* call) {
        if (detail::wait_for(driver, stream.get(), deadline) == detail::Finished::yes) return;
        // Unmapping under queued work loses the context, and ending the context may wait for it: keep all of it
        // instead.
        stream.abandon();
        current.keep_alive();
        static_cast<void>(new FabricBuffer(std::move(own)));
        static_cast<void>(new ImportedFabricBuffer(std::move(imported)));
        timed_out(call);
    };
    detail::check(driver.memset_d8_async(pointer(imported), kPattern, kTouchedBytes, stream.get()), driver,
                  {.call = "cuMemsetD8Async", .bytes = kTouchedBytes, .location = own.location()});
    wait("cuMemsetD8Async");
    // Into pageable memory, so the copy is done when the call returns; the stream has just shown that the GPU works.
    std::array<unsigned char, kTouchedBytes> seen{};
    detail::check(driver.memcpy_async(static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(seen.data())),
                                      pointer(own), seen.size(), stream.get()),
                  driver, {.call = "cuMemcpyAsync", .bytes = seen.size(), .location = own.location()});
    wait("cuMemcpyAsync");
    for (const unsigned char byte : seen) {
        if (byte == kPattern) continue;
        throw Error({.kind = ErrorKind::driver,
                     .subject = detail::formatted(
                         "what the GPU wrote through an import on {} did not arrive in the exporter's mapping",
                         to_string(own.location()))});
    }
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
