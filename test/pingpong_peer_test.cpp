// SPDX-License-Identifier: Apache-2.0
// fabricmem-pingpong with a peer that is strange, late, lying, stuck or dead: one clear line, in time.
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "support/pingpong_program.hpp"
#include "support/raw_peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::uint16_t kHello = 1;
constexpr std::uint16_t kBlob = 2;
constexpr std::uint16_t kFailure = 4;

/// The program waiting for a peer, and this test connected to it.
struct Listening {
    explicit Listening(const Arguments& more = {})
        : program(pingpong(Arguments{"--sizes", "64", "--iterations", "1", "--warmup", "0", "--listen", "0"} + more)),
          peer([this] {
              const auto port = program.wait_for("listening at 127.0.0.1:", kPatienceSeconds);
              if (!port) throw std::runtime_error("the program does not listen: " + program.err());
              return RawPeer::connected_to(static_cast<std::uint16_t>(std::stoul(*port)));
          }()) {}

    /// The one line that the program ends with.
    std::string error() {
        CHECK(program.finish(kPatienceSeconds) == 1);
        const std::vector<std::string> lines = said_in(program.err());
        CAPTURE(program.err());
        CHECK(lines.size() == 1);
        return lines.empty() ? std::string() : lines.front();
    }

    CapturedProcess program;
    RawPeer peer;
};

/// A pair that plays on until something happens to it: the program that was started and the peer that it started.
struct Endless {
    explicit Endless(const Arguments& more)
        : program(
              pingpong(Arguments{"--sizes", "64", "--iterations", "90000000", "--warmup", "0", "--verbose"} + more)) {
        const auto line = program.wait_for(", the peer is process ", kPatienceSeconds);
        if (!line) throw std::runtime_error("the program did not meet its peer: " + program.err());
        peer = static_cast<pid_t>(std::stol(*line));
        // Progress: the rounds are under way.
        if (!program.wait_for("fabricmem-pingpong: round ", kPatienceSeconds)) {
            throw std::runtime_error("the program does not play: " + program.err());
        }
    }

    CapturedProcess program;
    pid_t peer = 0;
};

const std::vector<Arguments> kModes{{"--mode", "copy", "--location", "device"},
                                    {"--mode", "stream", "--location", "device"},
                                    {"--mode", "stream", "--location", "host"},
                                    {"--mode", "cpu", "--location", "host"}};

const std::vector<Arguments> kGpuModes(kModes.begin(), kModes.begin() + 2);

std::uint32_t load(const MappedBuffer& memory, std::size_t offset) {
    return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(memory.address()) + offset))
        .load(std::memory_order_acquire);
}

void store(const MappedBuffer& memory, std::size_t offset, std::uint32_t value) {
    std::atomic_ref(*reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(memory.address()) + offset))
        .store(value, std::memory_order_release);
}

// What lies where in each side's memory (examples/pingpong_loop.hpp).
constexpr std::size_t kArrived = 0;
constexpr std::size_t kReady = 64;
constexpr std::size_t kPayload = 4096;

/// This test's memory and the program's, once both know each other.
struct Meeting {
    explicit Meeting(const RawPeer& peer)
        : own(driver, 8192, {.location = Location::host_nearest(0)}), theirs([&] {
              peer.send_message(kHello, peer.receive_message(kHello));
              const auto blob = own.blob().to_bytes();
              peer.send_message(kBlob, std::string_view(reinterpret_cast<const char*>(blob.data()), blob.size()));
              const std::string their_blob = peer.receive_message(kBlob);
              return ImportedFabricBuffer(driver, HandleBlob::from_bytes(std::as_bytes(std::span(their_blob))));
          }()) {}

    [[nodiscard]] bool sees(std::size_t flag, std::uint32_t value) const {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(kPatienceSeconds);
        while (load(own, flag) != value && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
        return load(own, flag) == value;
    }
    static std::byte* payload_of(const MappedBuffer& memory) {
        return static_cast<std::byte*>(memory.address()) + kPayload;
    }

    std::shared_ptr<Driver> driver = make_emulated_driver({.devices = 8});
    FabricBuffer own;
    ImportedFabricBuffer theirs;
};

}  // namespace

TEST_CASE("A peer that never comes ends the wait at the deadline", "[pingpong]") {
    CapturedProcess listening(pingpong({"--listen", "0", "--timeout", "1"}));
    CHECK(listening.finish(kPatienceSeconds) == 1);
    CHECK(said_in(listening.err()).size() == 1);
    CHECK(contains(listening.err(), "no peer connected to 127.0.0.1:"));

    const std::uint16_t nobody_there = RawPeer::listening().port();
    CapturedProcess connecting(pingpong({"--connect", "127.0.0.1:" + std::to_string(nobody_there), "--timeout", "1"}));
    CHECK(connecting.finish(kPatienceSeconds) == 1);
    CHECK(said_in(connecting.err()).size() == 1);
    CHECK(contains(connecting.err(), "no peer at 127.0.0.1:"));
}

TEST_CASE("What takes more than two seconds is told, with the time that it has", "[pingpong]") {
    const std::uint16_t nobody_there = RawPeer::listening().port();
    CapturedProcess connecting(pingpong({"--connect", "127.0.0.1:" + std::to_string(nobody_there), "--timeout", "4"}));
    CHECK(connecting.finish(kPatienceSeconds) == 1);
    CHECK(contains(connecting.err(), "fabricmem-pingpong: connecting to the listener, for 9 s at most\n"));
}

TEST_CASE("Progress goes on being told while a round does not end", "[pingpong]") {
    Endless pair({"--driver", "emulated", "--mode", "cpu", "--location", "host", "--timeout", "1000"});
    CHECK(::kill(pair.peer, SIGSTOP) == 0);
    bool twice = false;  // the same round, told twice
    for (int second = 0; second < kPatienceSeconds && !twice; ++second) {
        CHECK_FALSE(pair.program.wait_for("the end of this", 1));
        const std::vector<std::string> lines = lines_of(pair.program.err());
        twice = lines.size() >= 2 && lines.back() == lines[lines.size() - 2] && contains(lines.back(), ": round ");
    }
    CHECK(twice);
    CHECK(::kill(pair.peer, SIGKILL) == 0);
    CHECK(pair.program.finish(kPatienceSeconds) == 1);
}

TEST_CASE("A peer that connects and says nothing ends the wait at the deadline", "[pingpong]") {
    Listening silent({"--timeout", "1"});
    CHECK(contains(silent.error(), "no answer from the peer in 1 s: waited for its hello"));

    Listening half({"--timeout", "1"});
    half.peer.send("FMP");
    CHECK(contains(half.error(), "no answer from the peer in 1 s"));
}

TEST_CASE("A peer that speaks another protocol is told by its first bytes", "[pingpong]") {
    Listening browser;
    browser.peer.send("GET / HTTP/1.1\r\n");
    CHECK(contains(browser.error(), "another protocol: it sent 'GET"));

    Listening short_spoken;
    short_spoken.peer.send("\n");
    CHECK(contains(short_spoken.error(), "another protocol: it sent '.'"));

    const RawPeer server = RawPeer::listening();
    CapturedProcess program(pingpong({"--connect", "127.0.0.1:" + std::to_string(server.port())}));
    const RawPeer connection = server.accept();
    connection.send("220 mail ESMTP\r\n");
    CHECK(program.finish(kPatienceSeconds) == 1);
    CHECK(said_in(program.err()).size() == 1);
    CHECK(contains(program.err(), "another protocol: it sent '220 mail"));
}

TEST_CASE("Messages that make no sense are refused", "[pingpong]") {
    using namespace std::string_literals;
    const std::vector<std::pair<std::string, std::string>> strange{
        {"FMPP\2\0\1\0\0\0\0\0"s, "another version"},
        {"FMPP\1\0\1\0\xff\xff\xff\xff"s, "a message of 4294967295 bytes"},
        {"FMPP\1\0\7\0\0\0\0\0"s, "a message of kind 7 where its hello was awaited"},
        {"FMPP\1\0\1\0\4\0\0\0what"s, "hello makes no sense"},
        {"FMPP\1\0\1\0\0\0\0\0"s, "the two sides disagree: --driver is"},
        {"FMPP\1\0\4\0\7\0\0\0no\nluck"s, "the peer failed: no.luck"},
    };
    for (const auto& [bytes, expected] : strange) {
        CAPTURE(expected);
        Listening listening;
        listening.peer.send(bytes);
        CHECK(contains(listening.error(), expected));
    }

    Listening damaged;
    damaged.peer.send_message(kHello, damaged.peer.receive_message(kHello));
    std::string blob = damaged.peer.receive_message(kBlob);
    blob[100] = static_cast<char>(blob[100] ^ 1);
    damaged.peer.send_message(kBlob, blob);
    CHECK(contains(damaged.error(), "CRC"));
}

TEST_CASE("Two sides with other options both say in what they differ", "[pingpong]") {
    CapturedProcess first(pingpong({"--listen", "0", "--mode", "copy", "--sizes", "4"}));
    const auto port = first.wait_for("listening at 127.0.0.1:", kPatienceSeconds);
    REQUIRE(port);
    CapturedProcess second(pingpong({"--connect", "127.0.0.1:" + *port, "--mode", "stream", "--sizes", "4"}));
    CHECK(first.finish(kPatienceSeconds) == 1);
    CHECK(second.finish(kPatienceSeconds) == 1);
    REQUIRE(errors_of(first.err()).size() == 1);
    REQUIRE(errors_of(second.err()).size() == 1);
    CHECK(contains(first.err(), "the two sides disagree: --mode is copy here and stream at the peer"));
    CHECK(contains(second.err(), "--mode is "));
}

TEST_CASE("A peer that goes away before the rounds is missed at once", "[pingpong]") {
    Listening listening;
    listening.peer.close();
    CHECK(contains(listening.error(), "the peer went away"));
}

TEST_CASE("A wrong byte is told by its offset, whichever side it comes to", "[pingpong]") {
    const Arguments same{"--driver", "emulated",     "--mode", "cpu",      "--sizes",
                         "64",       "--iterations", "1",      "--warmup", "0"};
    const RawPeer listener = RawPeer::listening();
    std::optional<Listening> listening;
    std::optional<CapturedProcess> connecting;
    bool program_is_first = true;
    SECTION("first") {}
    SECTION("second") { program_is_first = false; }
    if (program_is_first) {
        listening.emplace(same);
    } else {
        connecting.emplace(pingpong(same + Arguments{"--connect", "127.0.0.1:" + std::to_string(listener.port())}));
    }
    CapturedProcess& program = program_is_first ? listening->program : *connecting;
    const RawPeer peer = program_is_first ? std::move(listening->peer) : listener.accept();

    // A round as the other side plays it, but for one byte.
    const Meeting memory(peer);
    if (program_is_first) {
        store(memory.theirs, kReady, 1);
        REQUIRE(memory.sees(kArrived, 1));
        std::memcpy(memory.payload_of(memory.theirs), memory.payload_of(memory.own), 64);
        memory.payload_of(memory.theirs)[17] ^= std::byte{0x10};
        store(memory.theirs, kArrived, 1);
    } else {
        REQUIRE(memory.sees(kReady, 1));
        std::memset(memory.payload_of(memory.theirs), 0, 64);
        store(memory.theirs, kArrived, 1);
        REQUIRE(memory.sees(kArrived, 1));
        store(memory.theirs, kReady, 1);
    }
    CHECK(program.finish(kPatienceSeconds) == 1);
    CHECK(said_in(program.err()).size() == 1);
    const std::string expected = "a wrong byte arrived: round 1, 64 bytes, offset ";
    CHECK(contains(program.err(), expected + (program_is_first ? "17: expected 0x" : "")));
    CHECK(contains(peer.receive_message(kFailure), expected));
}

TEST_CASE("A peer that is killed in the middle is missed at once, and a pending wait is released", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Arguments& mode : kModes) {
        CAPTURE(mode);
        Endless pair(mode + Arguments{"--timeout", "1000"});
        CHECK(::kill(pair.peer, SIGKILL) == 0);
        CHECK(pair.program.finish(kPatienceSeconds) == 1);
        const std::vector<std::string> errors = errors_of(pair.program.err());
        CAPTURE(pair.program.err());
        REQUIRE(errors.size() == 1);
        CHECK(contains(errors[0], "the peer went away"));
    }
}

TEST_CASE("A peer that is stuck is given up at the deadline, and not left behind", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Arguments& mode : kGpuModes) {
        CAPTURE(mode);
        Endless pair(mode + Arguments{"--timeout", "1"});
        CHECK(::kill(pair.peer, SIGSTOP) == 0);
        // finish() waits until both have closed their outputs.
        CHECK(pair.program.finish(kPatienceSeconds) == 1);
        const std::vector<std::string> errors = errors_of(pair.program.err());
        CAPTURE(pair.program.err());
        REQUIRE(errors.size() == 1);
        CHECK(contains(errors[0], "no sign of the peer in 1 s"));
    }
}

TEST_CASE("A peer ends when the side that started it is killed", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Arguments& mode : kGpuModes) {
        CAPTURE(mode);
        Endless pair(mode + Arguments{"--timeout", "1000"});
        CHECK(::kill(pair.program.id(), SIGKILL) == 0);
        CHECK(pair.program.finish(kPatienceSeconds) == 128 + SIGKILL);
    }
}

TEST_CASE("What ends the rounds is told, and ends the program in time, though memory can't be given back",
          "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Faults faults("cuMemRelease=hang");
    SECTION("the peer was killed") {
        Endless pair({"--timeout", "4"});
        CHECK(::kill(pair.peer, SIGKILL) == 0);
        CHECK(pair.program.finish(kPatienceSeconds) == 1);
        const std::vector<std::string> errors = errors_of(pair.program.err());
        CAPTURE(pair.program.err());
        REQUIRE(errors.size() == 1);
        CHECK(contains(errors[0], "the peer went away"));
        CHECK(contains(pair.program.err(), "giving all memory back after a failure, for "));
    }
    SECTION("the peer is stuck, and not left behind") {
        Endless pair({"--timeout", "1"});
        CHECK(::kill(pair.peer, SIGSTOP) == 0);
        CHECK(pair.program.finish(kPatienceSeconds) == 1);  // waits until both have closed their outputs
        const std::vector<std::string> errors = errors_of(pair.program.err());
        CAPTURE(pair.program.err());
        REQUIRE(errors.size() == 1);
        CHECK(contains(errors[0], "no sign of the peer in 1 s"));
    }
}

TEST_CASE("A good end is an error in time where memory can't be given back", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Arguments played{"--sizes", "64", "--iterations", "1", "--warmup", "0"};
    struct Step {
        const char* faults;
        const char* told;
    };
    for (const Step& step :
         {Step{"cuStreamDestroy#2=hang", "error: giving the GPU's streams back did not come to an end in time"},
          Step{"cuMemRelease=hang", "error: giving the peer's memory back did not come to an end in time"},
          Step{"cuMemRelease#2=hang", "error: giving this side's memory back did not come to an end in time"}}) {
        CAPTURE(step.faults);
        std::optional<CapturedProcess> first;
        {
            const Faults faults(step.faults);
            first.emplace(pingpong(played + Arguments{"--listen", "0", "--timeout", "3"}));
        }
        const auto port = first->wait_for("listening at 127.0.0.1:", kPatienceSeconds);
        REQUIRE(port);
        CapturedProcess second(pingpong(played + Arguments{"--connect", "127.0.0.1:" + *port}));
        CHECK(first->finish(kPatienceSeconds) == 1);
        const std::vector<std::string> errors = errors_of(first->err());
        CAPTURE(first->err());
        REQUIRE(errors.size() == 1);
        CHECK(contains(errors[0], step.told));
        CHECK(second.finish(kPatienceSeconds).has_value());
    }
}
