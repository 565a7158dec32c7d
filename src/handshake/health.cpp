// SPDX-License-Identifier: Apache-2.0
// Writes into a connected peer's memory, and reads back what is there. On a port of its own, so that it neither waits
// for poll() nor keeps it waiting.
#include <cstring>
#include <utility>

#include "blob/wire.hpp"
#include "driver/driver_state.hpp"
#include "error/refuse.hpp"
#include "flags/sealed_slot.hpp"
#include "handshake/core.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

struct Target {
    std::shared_ptr<const ImportedFabricBuffer> buffer;
    CUdeviceptr slot = 0;
};

CUdeviceptr health_slot(const ImportedFabricBuffer& buffer, const HandleBlob& region, std::uint32_t rank) {
    const auto base = static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(buffer.address()));
    return base + region.offset + std::uint64_t{rank} * kSlotStride + kHealthOffset;
}

constexpr std::uint64_t kPathBytes = 2 * sizeof(SlotBytes);  // what is written, and what is read

}  // namespace

void HandshakeCore::health_check(std::uint32_t rank, Clock::time_point deadline) {
    const DeferredLog deferred;
    std::vector<Target> paths;
    {
        const Lock held = lock();
        const auto found = peers_.find(rank);
        if (found == peers_.end() || found->second.stage != PeerStage::connected)
            refuse(formatted("rank {} is not connected", rank));
        const PeerState& peer = found->second;
        for (const auto& [path, region] :
             {std::pair(&peer.device, &peer.hello->device), {&peer.host, &peer.hello->host}}) {
            const bool used = path->state == PathState::proved || path->state == PathState::trusted;
            if (used && path->imported != nullptr)
                paths.push_back({path->imported, health_slot(*path->imported, *region->blob, options_.rank)});
        }
    }
    if (paths.empty()) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = formatted("nothing of rank {} is imported here", rank),
                     .cause = "tokens go through the caller's writer",
                     .cure = "check the peer through that writer's own means"});
    }
    // Memory outlives its exporter while it is imported, so that it can be written says nothing of the process.
    const HandleBlob& blob = paths.front().buffer->blob();
    DriverState& state = DriverState::of(*driver_);
    if (state.is_this_node(blob) && blob.process_id.has_value() && blob.process_start.has_value() &&
        state.identity()->pid_namespace == blob.pid_namespace &&
        driver_->platform().process_state(*blob.process_id, *blob.process_start) == ProcessState::gone) {
        throw Error({.kind = ErrorKind::peer_gone,
                     .subject = formatted("rank {}: its process {} is gone", rank, *blob.process_id),
                     .cure = "remove the peer, or wait for its next incarnation's hello",
                     .identity = "exporter: " + describe_exporter(blob),
                     .check = "FM-PEER-001"});
    }
    const auto late = [&](const char* what) {
        return Error({.kind = ErrorKind::timed_out,
                      .call = "cuMemcpyAsync",
                      .bytes = sizeof(SlotBytes),
                      .subject = formatted("rank {}: {}", rank, what),
                      .cause = "the GPU, or the link, did not get to it by the deadline",
                      .cure = "look at the link's state (nvidia-smi nvlink -s) and at the peer's node",
                      .identity = "exporter: " + describe_exporter(blob),
                      .check = "FM-MEMORY-011"});
    };
    const Turn::Held health(health_turn_, deadline);
    if (!health) throw late("another check took the time");
    if (health_over_) throw Error({.kind = ErrorKind::closed, .subject = "the handshake is closed"});
    if (health_port_ == nullptr) health_port_ = std::make_unique<CopyPort>(driver_, options_.device, 2 * kPathBytes);
    if (health_port_->wait(deadline) == Finished::no) throw late("a check before this one is still under way");
    let_checked_go();
    for (const Target& path : paths) under_check_.push_back(path.buffer);  // a copy may outlive this call
    SlotMessage message{.sequence = ++health_sequence_, .payload = {}};    // of no other life, and of no other rank
    put_le(message.payload.data(), options_.incarnation);
    put_le(message.payload.data() + 8, options_.rank);
    const SlotBytes written = seal(message);
    std::uint64_t offset = 0;
    for (const Target& path : paths) {
        std::memcpy(health_port_->bounce() + offset, written.data(), written.size());
        std::memset(health_port_->bounce() + offset + written.size(), 0, written.size());
        health_port_->write(path.slot, offset, written.size());
        health_port_->read(offset + written.size(), path.slot, written.size());
        offset += kPathBytes;
    }
    if (health_port_->wait(deadline) == Finished::no) throw late("what was written and read back is not here");
    let_checked_go();
    for (std::size_t i = 0; i < paths.size(); ++i) {
        if (std::memcmp(health_port_->bounce() + i * kPathBytes + written.size(), written.data(), written.size()) == 0)
            continue;
        throw Error({.kind = ErrorKind::driver,
                     .subject = formatted("rank {}: what was written into its {} memory is not what is read there",
                                          rank, paths[i].buffer->location().is_host() ? "host" : "device"),
                     .identity = "exporter: " + describe_exporter(blob)});
    }
}

// In health_turn_. Where one is the last reference, its end is left to the imports' thread.
void HandshakeCore::let_checked_go() {
    const Lock held(mutex_);
    if (closed_) return;  // close() does it
    for (auto& buffer : under_check_) dropped_.push_back(std::move(buffer));
    under_check_.clear();
}

}  // namespace fabricmem::detail
