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

// A GPU writes through the import, and what the exporter's own mapping holds then is read back.
void touch(Driver& driver, FabricBuffer& own, ImportedFabricBuffer& imported) {
    const detail::CurrentContext current(driver, own.access().devices.front());
    detail::Stream stream = detail::make_stream(driver);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    detail::check(driver.memset_d8_async(pointer(imported), kPattern, kTouchedBytes, stream.get()), driver,
                  {.call = "cuMemsetD8Async", .bytes = kTouchedBytes, .location = own.location()});
    if (detail::wait_for(driver, stream.get(), deadline) == detail::Finished::no) {
        // Unmapping under queued work loses the context: keep both mappings instead.
        stream.abandon();
        static_cast<void>(new FabricBuffer(std::move(own)));
        static_cast<void>(new ImportedFabricBuffer(std::move(imported)));
        timed_out("cuMemsetD8Async");
    }
    // Into pageable memory, so the copy is done when the call returns; the stream has just shown that the GPU works.
    std::array<unsigned char, kTouchedBytes> seen{};
    detail::check(driver.memcpy_async(static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(seen.data())),
                                      pointer(own), seen.size(), stream.get()),
                  driver, {.call = "cuMemcpyAsync", .bytes = seen.size(), .location = own.location()});
    detail::check(driver.stream_synchronize(stream.get()), driver, {.call = "cuStreamSynchronize"});
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
    touch(*driver, own, imported);
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
