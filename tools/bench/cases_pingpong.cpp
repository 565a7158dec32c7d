// SPDX-License-Identifier: Apache-2.0
// The ping-pong's own loop on memory that the library made and on memory that the bare calls made, block by block.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
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
        pingpong::check_call(driver, driver.memset_d8(own_.address(), 0, like.own().mapped_bytes()), "cuMemsetD8");
        control.send(Message::blob, own_.handle());
        const std::vector<std::byte> bytes = control.receive(Message::blob, "the handle of the other side's memory");
        RawHandle handle{};
        if (bytes.size() != handle.size()) throw pingpong::PeerError("the other side sent no handle");
        std::memcpy(handle.data(), bytes.data(), handle.size());
        peer_.emplace(driver, plan_like(like.own()), handle);
    }

    [[nodiscard]] pingpong::Memory memory() const {
        pingpong::Memory memory = like_;
        memory.own = own_.address();
        memory.peer = peer_->address();
        return memory;
    }

private:
    pingpong::Memory like_;
    RawMemory own_;
    std::optional<RawMemory> peer_;
};

/// What plays on one of them.
struct Player {
    Player(Mode mode, const std::shared_ptr<Driver>& driver, const pingpong::Memory& memory, Control& control)
        : payload(mode, driver, memory, kPayloadBytes, control),
          transport(pingpong::make_transport(mode, driver, memory, control)) {}

    pingpong::Rounds next_block(std::uint32_t measured) {
        const pingpong::Rounds block{.bytes = kPayloadBytes, .first = next_round, .warmup = 0, .measured = measured};
        next_round += measured;
        return block;
    }

    pingpong::Payload payload;
    std::unique_ptr<pingpong::Transport> transport;
    std::uint32_t next_round = 1;
};

/// Calls `play(player, block, run)` for both players in turns; both sides come to the same order.
template <class Play>
void play_in_turns(const Options& options, Player& library, Player& raw, Play&& play) {
    for (std::uint32_t run = 0; run < options.runs; ++run) {
        std::uint32_t block = 0;
        for (std::uint32_t left = options.rounds; left > 0; ++block) {
            const std::uint32_t rounds = std::min(left, kBlockRounds);
            Player& first = block % 2 == 0 ? library : raw;
            Player& second = block % 2 == 0 ? raw : library;
            play(first, first.next_block(rounds), run);
            play(second, second.next_block(rounds), run);
            left -= rounds;
        }
    }
}

/// Sets a case up, calls `play(library player, raw player)`, and takes it down once both sides are through.
template <class Play>
void with_players(const std::shared_ptr<Driver>& driver, const Options& options, const Case& played, Control& control,
                  Play&& play) {
    const pingpong::CurrentContext context(driver, options.device);
    const LibraryMemory library_memory(driver, options, played.place, control);
    const BareMemory raw_memory(*driver, library_memory, control);
    {
        Player library(played.mode, driver, library_memory.memory(), control);
        Player raw(played.mode, driver, raw_memory.memory(), control);
        play(library, raw);
    }
    control.send(Message::done, "");
    (void)control.receive(Message::done, "the end of the other side's rounds");
}

}  // namespace

void bench_pingpong(const std::shared_ptr<Driver>& driver, const Options& options, Control& control, const Take& take) {
    for (const Case& played : kCases) {
        Comparison comparison{
            .name = std::string("pingpong ") + std::string(to_string(played.mode)) + "/" +
                    std::string(to_string(played.place)),
            .what = "round trip of 64 bytes between two processes; raw: the same loop on memory of the bare calls"};
        std::vector<std::vector<double>> library_us(options.runs);
        std::vector<std::vector<double>> raw_us(options.runs);
        with_players(driver, options, played, control, [&](Player& library, Player& raw) {
            play_in_turns(options, library, raw, [&](Player& player, const pingpong::Rounds& block, std::uint32_t run) {
                const std::vector<double> took = play_first(*player.transport, player.payload, block);
                std::vector<double>& all = (&player == &library ? library_us : raw_us)[run];
                all.insert(all.end(), took.begin(), took.end());
            });
        });
        comparison.raw.emplace();
        for (std::uint32_t run = 0; run < options.runs; ++run) {
            comparison.library.run_medians_us.push_back(median_of(std::move(library_us[run])));
            comparison.raw->run_medians_us.push_back(median_of(std::move(raw_us[run])));
        }
        take(comparison);
    }
}

void serve_pingpong(const std::shared_ptr<Driver>& driver, const Options& options, Control& control) {
    for (const Case& played : kCases) {
        with_players(driver, options, played, control, [&](Player& library, Player& raw) {
            play_in_turns(options, library, raw, [](Player& player, const pingpong::Rounds& block, std::uint32_t) {
                play_second(*player.transport, player.payload, block);
            });
        });
    }
}

}  // namespace bench
