// SPDX-License-Identifier: Apache-2.0
// Copies by the GPU between this process's memory and the second process's, beside copies within its own.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "common/text.hpp"
#include "pingpong_gpu.hpp"
#include "pingpong_setup.hpp"

namespace bench {
namespace {

constexpr std::array<std::uint64_t, 4> kCopiedMiB{1, 16, 256, 1024};
constexpr std::uint64_t kEmulatedMostMiB = 16;  // what a copy costs there is the emulation's, however large
constexpr std::array kCopiedPlaces{pingpong::Place::device, pingpong::Place::host};

std::vector<std::uint64_t> copied_sizes(const fabricmem::Driver& driver) {
    std::vector<std::uint64_t> sizes;
    for (const std::uint64_t mib : kCopiedMiB) {
        if (driver.name() == "cuda" || mib <= kEmulatedMostMiB) sizes.push_back(mib << 20);
    }
    return sizes;
}

fabricmem::FabricBufferOptions copied_memory(const Options& options, pingpong::Place place) {
    fabricmem::FabricBufferOptions wanted;
    wanted.location = pingpong::location_of(place, options.device);
    return wanted;
}

/// nullopt where there is no room.
std::optional<fabricmem::FabricBuffer> make_where_room(const std::shared_ptr<fabricmem::Driver>& driver,
                                                       std::uint64_t bytes,
                                                       const fabricmem::FabricBufferOptions& wanted) {
    try {
        return fabricmem::FabricBuffer(driver, bytes, wanted);
    } catch (const fabricmem::Error& error) {
        if (error.kind() != fabricmem::ErrorKind::out_of_memory) throw;
        return std::nullopt;
    }
}

CUdeviceptr start_of(const fabricmem::MappedBuffer& buffer) { return reinterpret_cast<CUdeviceptr>(buffer.address()); }

/// Copies one after the other on a stream, then waits for it; microseconds of one.
Way copies(std::string name, const std::shared_ptr<fabricmem::Driver>& driver, const pingpong::Stream& stream,
           CUdeviceptr destination, CUdeviceptr source, std::uint64_t bytes) {
    const std::uint64_t at_once = std::clamp<std::uint64_t>((std::uint64_t{256} << 20) / bytes, 1, 64);
    auto batch = [=, &stream] {
        for (std::uint64_t i = 0; i < at_once; ++i) stream.copy(destination, source, bytes);
        examples::check_call(*driver, driver->stream_synchronize(stream.get()), "cuStreamSynchronize");
    };
    return {std::move(name), [=]() mutable { return time_us(batch) / static_cast<double>(at_once); }};
}

double gb_per_s(std::uint64_t bytes, const Series& series) {
    return static_cast<double>(bytes) / (1000 * series.median());
}

Comparison compare_copies(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                          pingpong::Place place, std::uint64_t bytes, const fabricmem::ImportedFabricBuffer& imported) {
    Comparison comparison{
        .name = examples::formatted("bandwidth {} MiB/{}", bytes >> 20, to_string(place)),
        .what =
            "one copy of a batch on a stream, waited for at its end: library: into the second process's memory; raw: "
            "within this process's own; beside: out of the second process's"};
    const fabricmem::FabricBufferOptions wanted = copied_memory(options, place);
    const auto own = make_where_room(driver, bytes, wanted);
    const auto other = make_where_room(driver, bytes, wanted);
    if (bytes > imported.bytes() || !own || !other) {
        comparison.skipped = "there is no room for so much memory";
        return comparison;
    }
    const pingpong::Stream stream(driver);
    const std::vector<Way> ways{copies("library", driver, stream, start_of(imported), start_of(*own), bytes),
                                copies("raw", driver, stream, start_of(*other), start_of(*own), bytes),
                                copies("out of imported", driver, stream, start_of(*own), start_of(imported), bytes)};
    const auto share = static_cast<std::uint32_t>(driver->name() == "cuda" ? 50 : 100);
    const Amount amount{.rounds = std::max(options.rounds / share, std::min(options.rounds, 3U)), .runs = options.runs};
    measure_ways(amount, comparison, ways, Second::raw);
    comparison.figures = {{"GB/s into imported", gb_per_s(bytes, comparison.library)},
                          {"GB/s out of imported", gb_per_s(bytes, comparison.beside.front().second)},
                          {"GB/s within own", gb_per_s(bytes, *comparison.raw)}};
    return comparison;
}

}  // namespace

void bench_bandwidth(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                     pingpong::Control& control, const Take& take) {
    const pingpong::CurrentContext context(driver, options.device);
    for (const pingpong::Place place : kCopiedPlaces) {
        {
            const fabricmem::ImportedFabricBuffer imported(
                driver, fabricmem::HandleBlob::from_bytes(
                            control.receive(pingpong::Message::blob, "the blob of memory to copy to")));
            for (const std::uint64_t bytes : copied_sizes(*driver)) {
                take(compare_copies(driver, options, place, bytes, imported));
            }
        }
        control.send(pingpong::Message::done, "");
    }
}

void serve_bandwidth(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                     pingpong::Control& control) {
    const pingpong::CurrentContext context(driver, options.device);
    for (const pingpong::Place place : kCopiedPlaces) {
        std::vector<std::uint64_t> sizes = copied_sizes(*driver);
        std::optional<fabricmem::FabricBuffer> buffer;
        for (; !sizes.empty() && !buffer; sizes.pop_back()) {
            buffer = make_where_room(driver, sizes.back(), copied_memory(options, place));
        }
        if (!buffer) throw std::runtime_error("there is no room for memory to copy to");
        control.send(pingpong::Message::blob, buffer->blob().to_bytes());
        (void)control.receive(pingpong::Message::done, "the end of the copying");
    }
}

}  // namespace bench
