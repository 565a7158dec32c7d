// SPDX-License-Identifier: Apache-2.0
// fabricmem-pingpong: two processes send bytes to and fro through each other's fabric memory. This file is the story;
// the rounds are in pingpong_loop.hpp.
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "common/deadline.hpp"
#include "common/process.hpp"
#include "common/text.hpp"
#include "pingpong_loop.hpp"
#include "pingpong_options.hpp"
#include "pingpong_report.hpp"
#include "pingpong_setup.hpp"
#include "pingpong_wire.hpp"

namespace pingpong {
namespace {

// Calls that may block for as long as the driver or, with a peer on another node, its IMEX daemon likes.
constexpr auto kSetUpStep = "finding a driver and making memory with it";
constexpr auto kConnectStep = "connecting to the listener";
constexpr auto kImportStep = "importing the peer's memory";
constexpr auto kRestStep = "giving the GPU's streams back";
constexpr auto kCloseStep = "giving the peer's memory back";
constexpr auto kTakeDownStep = "giving this side's memory back";
constexpr auto kUnwindStep = "giving all memory back after a failure";

/// What outlives a side's failure, so that the peer can be told of it. The connection goes first: the peer then sees
/// that it is over, and ends.
struct Peer {
    std::optional<PeerProcess> process{};  // where this process started it
    std::optional<Control> control{};
};

/// How a side ends. Giving memory back can hang as making it can, so a failure is told before anything is taken down,
/// and from then on the process has --timeout to end. Outlives all that is taken down but the peer's process, which
/// gets its own time to end.
class Ending {
public:
    Ending(const Options& options, const Report& report, Peer& peer)
        : options_(options), report_(report), peer_(peer) {}

    /// Runs `body`. Made around it: whatever has to be taken down if it fails.
    template <class Body>
    void guard(Body&& body) {
        try {
            body();
        } catch (const std::exception& error) {
            fail(error.what());
            throw;
        }
    }

    /// Tells the peer and the user, the first time.
    void fail(const char* error) {
        if (std::exchange(failed_, true)) return;
        const bool peer_knows = peer_.control && peer_.control->say_failure(error);
        // A peer that was started by this program leaves the talking to who started it.
        if (!(options_.spawned && peer_knows)) report_.end_badly(error);
        watchdog_.emplace(kUnwindStep, options_.timeout, [this] {
            if (peer_.process) peer_.process->kill();
        });
    }

    /// All went well, and what is left is to take everything down.
    void take_down() { watchdog_.emplace(kTakeDownStep, options_.timeout); }

private:
    const Options& options_;
    const Report& report_;
    Peer& peer_;
    bool failed_ = false;
    std::optional<Watchdog> watchdog_{};
};

/// This side's blob to the peer, the peer's memory to here.
fabricmem::ImportedFabricBuffer exchange(Control& control, const Side& side, std::chrono::seconds timeout) {
    control.send(Message::blob, side.memory().blob().to_bytes());
    const std::vector<std::byte> bytes = control.receive(Message::blob, "the blob of its memory");
    const Watchdog watchdog(kImportStep, timeout);
    return {side.driver(), fabricmem::HandleBlob::from_bytes(bytes)};
}

Agreement agreement(const Options& options, const Side& side) {
    const auto number = [](const std::optional<std::uint32_t>& value) {
        return value ? std::to_string(*value) : std::string("the default");
    };
    return {{"--driver", std::string(side.driver()->name())},
            {"--mode", std::string(to_string(options.mode))},
            {"--location", std::string(to_string(options.location))},
            {"--sizes", sizes_text(options.sizes)},
            {"--iterations", number(options.iterations)},
            {"--warmup", number(options.warmup)}};
}

/// The rounds of all sizes, numbered through.
std::vector<Rounds> plan(const Options& options) {
    std::vector<Rounds> all;
    std::uint32_t next = 1;
    for (const std::size_t bytes : options.sizes) {
        all.push_back({.bytes = bytes,
                       .first = next,
                       .warmup = options.warmup_for(bytes),
                       .measured = options.iterations_for(bytes)});
        next += all.back().count();
    }
    return all;
}

struct Total {
    std::uint64_t rounds = 0;
    std::uint64_t bytes = 0;
};

Total total_of(const std::vector<Rounds>& all) {
    Total total;
    for (const Rounds& rounds : all) {
        total.rounds += rounds.count();
        total.bytes += std::uint64_t{rounds.count()} * rounds.bytes;
    }
    return total;
}

/// What a side does while it waits for the peer, for the scope.
class OnWait {
public:
    OnWait(Control& control, std::function<void()> call) : control_(control) { control_.on_wait(std::move(call)); }
    OnWait(const OnWait&) = delete;
    OnWait& operator=(const OnWait&) = delete;
    ~OnWait() { control_.on_wait({}); }

private:
    Control& control_;
};

void play_all(const Options& options, const std::vector<Rounds>& all, Transport& transport, Payload& payload,
              Control& control, Report& report) {
    Progress progress(options, total_of(all).rounds);
    const OnWait ticking(control, [&] { progress.tick(); });
    const AfterRound count_round = [&] { progress.count_round(); };
    for (const Rounds& rounds : all) {
        progress.begin_size(rounds.bytes);
        if (options.role == Role::connect) {
            play_second(transport, payload, rounds, count_round);
        } else {
            std::vector<double> round_trips_us = play_first(transport, payload, rounds, count_round);
            progress.clear();
            report.add(summarize(rounds.bytes, std::move(round_trips_us)));
        }
    }
}

void play_rounds(const Options& options, const std::vector<Rounds>& all, const Memory& memory, Control& control,
                 const Side& side, Report& report, Ending& ending) {
    std::optional<Watchdog> watchdog;
    Payload payload(options.mode, side.driver(), memory, options.largest_bytes(), control);
    const std::unique_ptr<Transport> transport = make_transport(options.mode, side.driver(), memory, control);
    // The peer is told before the transport goes: what that lets go of may reach the peer.
    ending.guard([&] { play_all(options, all, *transport, payload, control, report); });
    watchdog.emplace(kRestStep, options.timeout);
}

/// All that happens between two sides that are connected.
void play(const Options& options, Control& control, const Side& side, Report& report, Ending& ending) {
    const long peer_process = agree(control, agreement(options, side));
    report.say_processes(::getpid(), peer_process);
    fabricmem::ImportedFabricBuffer peer_memory = exchange(control, side, options.timeout);

    const std::vector<Rounds> all = plan(options);
    ending.guard([&] {
        play_rounds(options, all, memory_of(side.memory(), peer_memory), control, side, report, ending);
        // Nothing is under way any more on this side. Both have looked at every byte once both have said so.
        control.send(Message::done, "");
        (void)control.receive(Message::done, "the end of its rounds");
    });
    {
        const Watchdog watchdog(kCloseStep, options.timeout);
        peer_memory.close();
    }
    const Total total = total_of(all);
    report.end_well(total.rounds, total.bytes);
}

/// The side that connects does so first of all: then whatever fails later, the other side is told.
void run_second(const Options& options, Peer& peer, Report& report, Ending& ending) {
    // connect_to() keeps to its deadline, but a name server may not.
    std::optional<Watchdog> watchdog(std::in_place, kConnectStep, options.timeout + std::chrono::seconds(5));
    peer.control.emplace(connect_to(options.endpoint, Deadline(options.timeout)), options.timeout);
    watchdog.emplace(kSetUpStep, options.timeout);
    const Side side(options);
    watchdog.reset();
    ending.guard([&] {
        report.introduce(side.introduction());
        play(options, *peer.control, side, report, ending);
    });
    ending.take_down();
}

/// The side that has the clock.
void run_first(const Options& options, Peer& peer, Report& report, Ending& ending) {
    std::optional<Watchdog> watchdog(std::in_place, kSetUpStep, options.timeout);
    const Side side(options);
    watchdog.reset();
    ending.guard([&] {
        report.introduce(side.introduction());
        const Listener listener(options.endpoint);
        if (options.role == Role::listen) {
            report.say_listening(listener.endpoint().host, listener.endpoint().port);
        } else {
            peer.process.emplace(peer_arguments(options, side.driver()->name(), listener.endpoint()));
        }
        const Deadline deadline(options.timeout);
        peer.control.emplace(listener.accept(deadline, peer.process ? peer.process->ended_fd() : -1), options.timeout);
        play(options, *peer.control, side, report, ending);
        if (peer.process) peer.process->expect_success(Deadline(options.timeout));
    });
    ending.take_down();
}

int run(const Options& options) {
    Report report(options);
    Peer peer;
    Ending ending(options, report, peer);
    try {
        if (options.role == Role::connect) {
            run_second(options, peer, report, ending);
        } else {
            run_first(options, peer, report, ending);
        }
        return 0;
    } catch (const std::exception& error) {
        ending.fail(error.what());
        return 1;
    }
}

}  // namespace
}  // namespace pingpong

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        const pingpong::Options options = pingpong::parse_options(arguments);
        if (options.help) {
            examples::print(stdout, "{}", pingpong::help_text());
            return 0;
        }
        if (options.version) {
            const fabricmem::Version version = fabricmem::library_version();
            examples::print(stdout, "fabricmem-pingpong {}.{}.{}\n", version.major, version.minor, version.patch);
            return 0;
        }
        return pingpong::run(options);
    } catch (const examples::WrongOption& wrong) {
        examples::print(stderr, "fabricmem-pingpong: {} (see --help)\n", wrong.what());
        return 2;
    } catch (const std::exception& error) {  // stdout is closed, say
        examples::print(stderr, "fabricmem-pingpong: error: {}\n", error.what());
        return 1;
    }
}
