// SPDX-License-Identifier: Apache-2.0
// The ping-pong's own loop on memory that the library made, and a bare loop on memory that the bare calls made, block
// by block.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "pingpong_loop.hpp"
#include "pingpong_setup.hpp"
#include "raw_memory.hpp"
#include "raw_pingpong.hpp"

namespace bench {
namespace {

using fabricmem::Driver;
using pingpong::Control;
using pingpong::Message;
using pingpong::Mode;
using pingpong::Place;

constexpr std::size_t kPayloadBytes = 64;
constexpr std::uint32_t kBlockRounds = 50;

struct Case {
    Mode mode;
    Place place;
};
constexpr std::array kCases{Case{Mode::stream, Place::device}, Case{Mode::stream, Place::host},
                            Case{Mode::copy, Place::device}, Case{Mode::copy, Place::host},
                            Case{Mode::cpu, Place::host}};

/// Both sides' memory, made and met in one way.
class LibraryMemory {
public:
    LibraryMemory(const std::shared_ptr<Driver>& driver, const Options& options, Place place, Control& control)
        : own_(driver, pingpong::buffer_bytes(kPayloadBytes), wanted(options, place)), peer_(meet(driver, control)) {}

    [[nodiscard]] pingpong::Memory memory() const { return pingpong::memory_of(own_, peer_); }
    [[nodiscard]] const fabricmem::FabricBuffer& own() const noexcept { return own_; }

private:
    static fabricmem::FabricBufferOptions wanted(const Options& options, Place place) {
        fabricmem::FabricBufferOptions result;
        result.location = pingpong::location_of(place, options.device);
        result.zeroing = fabricmem::Zeroing::memset;
        return result;
    }

    fabricmem::ImportedFabricBuffer meet(const std::shared_ptr<Driver>& driver, Control& control) const {
        control.send(Message::blob, own_.blob().to_bytes());
        const std::vector<std::byte> bytes = control.receive(Message::blob, "the blob of the other side's memory");
        return {driver, fabricmem::HandleBlob::from_bytes(bytes)};
    }

    fabricmem::FabricBuffer own_;
    fabricmem::ImportedFabricBuffer peer_;
};

class BareMemory {
public:
    BareMemory(Driver& driver, const LibraryMemory& like, Control& control)
        : like_(like.memory()), own_(driver, plan_like(like.own())) {
        examples::check_call(driver, driver.memset_d8(own_.address(), 0, like.own().mapped_bytes()), "cuMemsetD8");
        control.send(Message::blob, own_.handle());
        const std::vector<std::byte> bytes = control.receive(Message::blob, "the handle of the other side's memory");
        RawHandle handle{};
        if (bytes.size() != handle.size()) throw examples::PeerError("the other side sent no handle");
        std::memcpy(handle.data(), bytes.data(), handle.size());
        peer_.emplace(driver, plan_like(like.own()), handle);
    }

    [[nodiscard]] RawSide side() const {
        return {.own = own_.address(),
                .peer = peer_->address(),
                .cpu_reaches = like_.own_access == pingpong::CpuAccess::yes};
    }

private:
    pingpong::Memory like_;
    RawMemory own_;
    std::optional<RawMemory> peer_;
};

/// One that plays. Its rounds on both sides: what they took where `took` is not null, the second side's where it is.
struct Contestant {
    std::string name;
    std::function<void(std::uint32_t rounds, std::vector<double>* took)> play;
};

/// The example, as fabricmem-pingpong plays it.
class Example {
public:
    Example(Mode mode, const std::shared_ptr<Driver>& driver, const pingpong::Memory& memory, Control& control)
        : payload_(mode, driver, memory, kPayloadBytes, control),
          transport_(pingpong::make_transport(mode, driver, memory, control)) {}

    void play(std::uint32_t rounds, std::vector<double>* took) {
        const pingpong::Rounds block{.bytes = kPayloadBytes, .first = next_round_, .warmup = 0, .measured = rounds};
        next_round_ += rounds;
        if (took == nullptr) {
            play_second(*transport_, payload_, block);
            return;
        }
        const std::vector<double> these = play_first(*transport_, payload_, block);
        took->insert(took->end(), these.begin(), these.end());
    }

private:
    pingpong::Payload payload_;
    std::unique_ptr<pingpong::Transport> transport_;
    std::uint32_t next_round_ = 1;
};

void play_raw(RawLoop& loop, Carries carries, std::uint32_t rounds, std::vector<double>* took) {
    for (std::uint32_t round = 0; round < rounds; ++round) {
        if (took != nullptr) {
            took->push_back(loop.ping(carries));
        } else {
            loop.pong(carries);
        }
    }
}

/// The library first, raw second.
std::vector<Contestant> contestants(Mode mode, Example& example, RawLoop& loop) {
    const auto raw = [&loop](std::string name, Carries carries) {
        return Contestant{.name = std::move(name), .play = [&loop, carries](std::uint32_t rounds, auto* took) {
                              play_raw(loop, carries, rounds, took);
                          }};
    };
    std::vector<Contestant> all{
        {.name = "library", .play = [&example](std::uint32_t rounds, auto* took) { example.play(rounds, took); }},
        raw("raw", Carries::payload),
        raw("raw, the flag alone", Carries::flag)};
    if (mode == Mode::stream) all.push_back(raw("raw, payload by cuMemcpyAsync", Carries::copied));
    return all;
}

/// All contestants in turns, block by block, each as the first of a block as often as the others; both sides come to
/// the same order. Returns each one's medians on the first side, and nothing on the second.
std::vector<Series> play_in_turns(const Options& options, const std::vector<Contestant>& all, bool first_side) {
    std::vector<Series> series(all.size());
    for (std::uint32_t run = 0; run < options.runs; ++run) {
        std::vector<std::vector<double>> took(all.size());
        std::size_t turn = 0;
        for (std::uint32_t left = options.rounds; left > 0; ++turn) {
            const std::uint32_t rounds = std::min(left, kBlockRounds);
            for (std::size_t i = 0; i < all.size(); ++i) {
                const std::size_t who = (turn + i) % all.size();
                all[who].play(rounds, first_side ? &took[who] : nullptr);
            }
            left -= rounds;
        }
        for (std::size_t who = 0; first_side && who < all.size(); ++who) {
            series[who].run_medians_us.push_back(median_of(std::move(took[who])));
        }
    }
    return series;
}

/// Sets a case up, plays it, and takes it down once both sides are through.
Comparison play_case(const std::shared_ptr<Driver>& driver, const Options& options, const Case& played,
                     Control& control, bool first_side) {
    Comparison comparison{
        .name =
            std::string("pingpong ") + std::string(to_string(played.mode)) + "/" + std::string(to_string(played.place)),
        .what =
            "round trip of 64 bytes and a flag between two processes, every byte looked at; library: the loop of "
            "fabricmem-pingpong on memory of the library's; raw: another loop, of the bare calls alone, on memory "
            "made by bare calls"};
    const pingpong::CurrentContext context(driver, options.device);
    const LibraryMemory library_memory(driver, options, played.place, control);
    const BareMemory raw_memory(*driver, library_memory, control);
    {
        Example example(played.mode, driver, library_memory.memory(), control);
        RawLoop loop(driver, played.mode, raw_memory.side(), kPayloadBytes, control);
        const std::vector<Contestant> all = contestants(played.mode, example, loop);
        std::vector<Series> series = play_in_turns(options, all, first_side);
        comparison.library = std::move(series[0]);
        comparison.raw = std::move(series[1]);
        for (std::size_t i = 2; i < all.size(); ++i) comparison.beside.emplace_back(all[i].name, std::move(series[i]));
    }
    control.send(Message::done, "");
    (void)control.receive(Message::done, "the end of the other side's rounds");
    return comparison;
}

}  // namespace

void bench_pingpong(const std::shared_ptr<Driver>& driver, const Options& options, Control& control, const Take& take) {
    for (const Case& played : kCases) take(play_case(driver, options, played, control, true));
}

void serve_pingpong(const std::shared_ptr<Driver>& driver, const Options& options, Control& control) {
    for (const Case& played : kCases) (void)play_case(driver, options, played, control, false);
}

}  // namespace bench
