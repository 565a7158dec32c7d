// SPDX-License-Identifier: Apache-2.0
// Making and importing 2 MiB, by the library and by the bare calls; and the blob's wire form.
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "pingpong_setup.hpp"
#include "raw_memory.hpp"

namespace bench {
namespace {

using fabricmem::FabricBuffer;
using fabricmem::HandleBlob;
using fabricmem::ImportedFabricBuffer;
using pingpong::Place;

constexpr std::size_t kBytes = 2 << 20;
constexpr std::array kPlaces{Place::device, Place::host};

FabricBuffer make_buffer(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, Place place) {
    fabricmem::FabricBufferOptions wanted;
    wanted.location = pingpong::location_of(place, options.device);
    return {driver, kBytes, wanted};
}

std::string name_of(std::string_view what, Place place) {
    return std::string(what) + "/" + std::string(to_string(place));
}

Amount amount_of(const Options& options) { return {.rounds = options.rounds, .runs = options.runs}; }

/// Raw beside raw: what is found there is noise.
template <class Raw>
Comparison measure_null(const Options& options, const TimingDriver& driver, const std::string& name, Raw&& raw) {
    Comparison comparison{.name = "null " + name,
                          .what = "raw in the place of the library too: the difference is what this bench can't tell"};
    auto same = raw;
    measure_in_turns(amount_of(options), driver, comparison, same, raw);
    return comparison;
}

/// `like` is memory of this process that is made as the exporter made its own.
void measure_import(const std::shared_ptr<TimingDriver>& driver, const Options& options, const HandleBlob& blob,
                    const FabricBuffer& like, std::string name, std::string what, const Take& take) {
    Comparison comparison{.name = std::move(name), .what = std::move(what)};
    RawPlan plan = plan_like(like);
    plan.bytes = blob.mapped_bytes;
    const RawHandle handle = raw_handle_of(blob);
    const auto raw = [&] { const RawMemory memory(*driver, plan, handle); };
    measure_in_turns(
        amount_of(options), *driver, comparison, [&] { const ImportedFabricBuffer imported(driver, blob); }, raw);
    take(comparison);
    take(measure_null(options, *driver, comparison.name, raw));
}

}  // namespace

void bench_blob(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take) {
    const HandleBlob made = make_buffer(driver, options, Place::device).blob();
    constexpr std::uint32_t kAtOnce = 100;  // one is too short for the clock
    Comparison comparison{.name = "blob", .what = "HandleBlob::to_bytes and from_bytes of the result"};
    for (std::uint32_t run = 0; run < options.runs; ++run) {
        std::vector<double> took_us;
        for (std::uint32_t round = 0; round < options.rounds; ++round) {
            HandleBlob blob = made;
            auto there_and_back = [&] {
                for (std::uint32_t i = 0; i < kAtOnce; ++i) {
                    const HandleBlob back = HandleBlob::from_bytes(blob.to_bytes());
                    blob.generation = back.generation + 1;  // so that none can be left out
                }
            };
            took_us.push_back(time_us(there_and_back) / kAtOnce);
            if (blob.generation != kAtOnce) throw std::logic_error("the blob came back changed");
        }
        comparison.library.run_medians_us.push_back(median_of(std::move(took_us)));
    }
    take(comparison);
}

void bench_lifecycle(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take) {
    const auto timing = std::make_shared<TimingDriver>(driver);
    for (const Place place : kPlaces) {
        const RawPlan plan = plan_like(make_buffer(timing, options, place));
        Comparison comparison{.name = name_of("lifecycle", place),
                              .what =
                                  "make, export and destroy 2 MiB; raw: cuMemAddressReserve, Create, Map, "
                                  "SetAccess, cuPointerGetAttributes, Export; Unmap, Release, AddressFree"};
        const auto raw = [&] { const RawMemory memory(*timing, plan); };
        measure_in_turns(
            amount_of(options), *timing, comparison,
            [&] { const FabricBuffer made = make_buffer(timing, options, place); }, raw);
        take(comparison);
        take(measure_null(options, *timing, comparison.name, raw));
    }
}

void bench_own_import(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take) {
    const auto timing = std::make_shared<TimingDriver>(driver);
    for (const Place place : kPlaces) {
        const FabricBuffer exported = make_buffer(timing, options, place);
        measure_import(timing, options, exported.blob(), exported, name_of("import own", place),
                       "import and destroy 2 MiB that this process exports; raw: cuMemAddressReserve, Import, "
                       "Map, SetAccess; Unmap, Release, AddressFree",
                       take);
    }
}

void bench_import(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control,
                  const Take& take) {
    const auto timing = std::make_shared<TimingDriver>(driver);
    for (const Place place : kPlaces) {
        const FabricBuffer like = make_buffer(timing, options, place);
        const HandleBlob blob =
            HandleBlob::from_bytes(control.receive(pingpong::Message::blob, "a blob of the second process"));
        measure_import(timing, options, blob, like, name_of("import", place),
                       "import and destroy 2 MiB that another process exports; raw: as import own", take);
        control.send(pingpong::Message::done, "");
    }
}

void serve_import(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                  pingpong::Control& control) {
    for (const Place place : kPlaces) {
        const FabricBuffer exported = make_buffer(driver, options, place);
        control.send(pingpong::Message::blob, exported.blob().to_bytes());
        (void)control.receive(pingpong::Message::done, "the end of the importing");
    }
}

}  // namespace bench
