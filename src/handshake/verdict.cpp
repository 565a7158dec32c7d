// SPDX-License-Identifier: Apache-2.0
// What is known of a peer, made into its stage, its error and its report.
#include <algorithm>
#include <string>
#include <utility>

#include "driver/check.hpp"
#include "error/refuse.hpp"
#include "flags/wait_pause.hpp"
#include "handshake/core.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

bool carries(PathState state) noexcept { return state == PathState::proved || state == PathState::trusted; }

std::string_view name(LocationKind memory) { return memory == LocationKind::device ? "device" : "host"; }

std::chrono::microseconds whole_microseconds(std::chrono::steady_clock::duration time) {
    return std::chrono::duration_cast<std::chrono::microseconds>(time);
}

}  // namespace

void HandshakeCore::enter(PeerState& peer, PeerStage stage, Clock::time_point now) {
    const auto old = static_cast<std::size_t>(peer.stage);
    if (old < peer.spent.size()) peer.spent[old] += now - peer.since;
    peer.stage = stage;
    peer.since = now;
}

// A failure of device memory is told to the peer through its host memory, before it is final: where that is imported,
// or its first import has not ended yet.
bool HandshakeCore::can_still_tell(const PeerState& peer) const {
    const Path& path = peer.host;
    if (peer.device.state != PathState::failed || options_.policy != ProofPolicy::verify || port_error_.has_value())
        return false;
    if (path.state != PathState::pending && path.state != PathState::proved) return false;
    if (path.written.has_value() && path.written->trouble != 0) return false;
    return path.imported != nullptr || !path.error.has_value();
}

void HandshakeCore::update(PeerState& peer, Clock::time_point now) {
    if (!peer.hello.has_value() || peer.is_settled()) return;
    for (Path* path : {&peer.device, &peer.host}) {
        const bool told = path->written.has_value() && path->seen != 0 && path->written->echo == path->seen;
        if (path->state == PathState::pending && path->echoed && told) path->state = PathState::proved;
    }
    if (carries(peer.device.state) && !peer.device_proved.has_value()) peer.device_proved = now;
    PeerStage stage = PeerStage::proving;
    if (peer.device.state == PathState::absent) {
        peer.error =
            Error({.kind = ErrorKind::unsupported, .subject = peer.device.reason, .check = peer.device.absent_check});
        stage = PeerStage::failed;
    } else if (peer.device.state == PathState::failed) {
        peer.error = peer.device.error;
        stage = PeerStage::failed;
    } else if (carries(peer.device.state) && peer.host.state != PathState::pending) {
        stage = PeerStage::connected;
    } else {
        for (const Path* path : {&peer.device, &peer.host}) {
            if (path->state == PathState::pending && path->imported == nullptr && options_.writer == nullptr)
                stage = PeerStage::importing;
        }
    }
    if (stage == PeerStage::failed && can_still_tell(peer)) stage = PeerStage::proving;
    if (stage == peer.stage) return;
    enter(peer, stage, now);
    if (stage == PeerStage::connected)
        log(LogLevel::debug, "rank {} is connected to rank {}", options_.rank, peer.rank);
    if (stage == PeerStage::failed)
        log(LogLevel::info, "rank {} can't be connected to rank {}: {}", options_.rank, peer.rank, peer.error->what());
}

HandshakeReport HandshakeCore::wait(Clock::time_point deadline) {
    WaitPause pause;
    for (;;) {
        const DeferredLog deferred;
        bool moved = false;
        bool due = false;
        {
            const Lock held = lock();
            moved_ = false;
            if (step() == 0 && due_.empty()) return report_all(Deadline::ahead);
            if (Clock::now() >= deadline) {
                const auto now = Clock::now();
                for (auto& [rank, peer] : peers_) settle_at_deadline(peer, now);
                static_cast<void>(step());  // so that the others are told
                return report_all(Deadline::passed);
            }
            moved = moved_;
            due = !due_.empty();
        }
        if (due) write_by_caller();
        if (moved) pause.start_again();
        pause.wait(deadline);
    }
}

// Data goes to devices: with that proved, host memory that was not reached in time is done without.
void HandshakeCore::settle_at_deadline(PeerState& peer, Clock::time_point now) {
    if (peer.is_settled() || !carries(peer.device.state) || peer.host.state != PathState::pending) return;
    if (!peer.host.error.has_value()) peer.host.error = why_late(peer);
    peer.host.state = PathState::failed;
    enter(peer, PeerStage::connected, now);
}

Error HandshakeCore::why_late(const PeerState& peer) const {
    std::string identity;
    if (peer.hello.has_value() && peer.hello->device.blob.has_value()) {
        identity = formatted("Exporter: {}. Importer: {}", describe_exporter(*peer.hello->device.blob),
                             describe_known_importer(*driver_));
    }
    const auto late = [&](std::string what, std::string cause, std::string cure, const char* check = "FM-PEER-007") {
        return Error({.kind = ErrorKind::timed_out,
                      .subject = formatted("rank {}: {}", peer.rank, what),
                      .cause = std::move(cause),
                      .cure = std::move(cure),
                      .identity = identity,
                      .check = check});
    };
    if (!peer.hello.has_value()) {
        if (peer.error.has_value()) return *peer.error;
        return late("nothing was heard of it by the deadline",
                    "it did not start, died before it said who it is, or the channel does not carry its hello",
                    "look at that rank's log");
    }
    const bool device_first = peer.device.state == PathState::pending;
    const Path& path = device_first ? peer.device : peer.host;
    const LocationKind memory = device_first ? LocationKind::device : LocationKind::host_numa;
    if (path.error.has_value()) return *path.error;
    if (path.imported == nullptr && options_.writer == nullptr)
        return late(formatted("its {} memory was not imported by the deadline", name(memory)),
                    "imports of other ranks took the time", "give it more time", "");
    if (path.seen == 0 && path.other_writer.has_value()) {
        return Error(
            {.kind = ErrorKind::conflict,
             .subject =
                 formatted("rank {}: another process uses its slot in this rank's {} memory", peer.rank, name(memory)),
             .cause = formatted("tokens come from the incarnation {:x}, and the hello was {:x}'s: two processes "
                                "are rank {}, or it was started again and its new hello is not here",
                                *path.other_writer, peer.hello->incarnation, peer.rank),
             .cure = "give each process a number of its own"});
    }
    if (!path.seen) {
        return late(formatted("its token has not come into this rank's {} memory by the deadline", name(memory)),
                    "it has not imported this rank's memory (its own report says why), has not heard this rank's "
                    "hello, or died",
                    "look at that rank's report and log");
    }
    return late(formatted("it has not seen, by the deadline, what this rank wrote into its {} memory", name(memory)),
                "it has stopped polling, or the write does not arrive", "look at that rank's report and log");
}

PeerReport HandshakeCore::report_of(const PeerState& peer, Deadline deadline) const {
    PeerReport report{.rank = peer.rank, .stage = peer.stage};
    report.incarnation = peer.hello.has_value() ? peer.hello->incarnation : 0;
    const auto path_report = [&](const Path& path) {
        PathReport told{.state = path.state, .from_device = -1, .reason = path.reason, .error = path.error};
        if (path.written.has_value() && options_.writer == nullptr) told.from_device = options_.device;
        if (carries(path.state)) told.error.reset();
        return told;
    };
    report.device = path_report(peer.device);
    report.host = path_report(peer.host);
    if (carries(peer.host.state)) {
        report.slots = LocationKind::host_numa;
        report.slots_reason = "both ranks reach each other's host memory, which plain loads read";
    } else {
        report.slots = LocationKind::device;
        report.slots_reason = peer.host.state == PathState::pending ? "host memory is not proved"
                              : peer.host.error.has_value()         ? peer.host.error->what()
                              : peer.host.reason.empty()            ? "nothing was heard of the rank"
                                                                    : peer.host.reason;
    }
    auto spent = peer.spent;
    const auto stage = static_cast<std::size_t>(peer.stage);
    if (stage < spent.size()) spent[stage] += Clock::now() - peer.since;
    report.in_no_hello = whole_microseconds(spent[0]);
    report.in_importing = whole_microseconds(spent[1]);
    report.in_proving = whole_microseconds(spent[2]);
    report.imports_tried = peer.imports_tried;
    if (peer.stage == PeerStage::failed || !peer.hello.has_value()) report.error = peer.error;
    if (deadline == Deadline::passed && !peer.is_settled()) report.error = why_late(peer);
    if (report.error.has_value()) report.side = side_of(*report.error);
    return report;
}

PeerReport HandshakeCore::own_report() const {
    PeerReport report{.rank = options_.rank, .stage = PeerStage::self};
    report.incarnation = options_.incarnation;
    report.device.reason = device_.why_not;
    report.host.reason = host_.why_not;
    report.slots = host_.block.is_open() ? LocationKind::host_numa : LocationKind::device;
    report.slots_reason = host_.block.is_open() ? "plain loads read them" : host_.why_not;
    if (!device_.block.is_open()) {
        report.error = Error(
            {.kind = ErrorKind::unsupported,
             .subject = formatted("rank {} has no fabric memory to be reached by: {}", options_.rank, device_.why_not),
             .check = device_.check});
        report.side = side_of(*report.error);
    }
    return report;
}

HandshakeReport HandshakeCore::report_all(Deadline deadline) const {
    HandshakeReport report;
    report.peers.reserve(peers_.size() + 1);
    for (const auto& [rank, peer] : peers_) {
        report.peers.push_back(report_of(peer, deadline));
        ++(peer.stage == PeerStage::connected ? report.connected
           : peer.stage == PeerStage::failed  ? report.failed
                                              : report.pending);
    }
    const auto place = std::find_if(report.peers.begin(), report.peers.end(),
                                    [&](const PeerReport& peer) { return peer.rank > options_.rank; });
    report.peers.insert(place, own_report());
    return report;
}

HandshakeReport HandshakeCore::report() const {
    const Lock held = lock();
    return report_all(Deadline::ahead);
}

PeerReport HandshakeCore::peer(std::uint32_t rank) const {
    const Lock held = lock();
    if (rank == options_.rank) return own_report();
    const auto found = peers_.find(rank);
    if (found == peers_.end()) refuse(formatted("rank {} was neither expected nor added", rank));
    return report_of(found->second, Deadline::ahead);
}

}  // namespace fabricmem::detail
