// SPDX-License-Identifier: Apache-2.0
// The public face of a meeting, and its words.
#include <fabricmem/handshake.hpp>

#include <utility>

#include "handshake/core.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"

namespace fabricmem {

std::string_view to_string(PeerStage stage) noexcept {
    switch (stage) {
        case PeerStage::no_hello: return "no_hello";
        case PeerStage::importing: return "importing";
        case PeerStage::proving: return "proving";
        case PeerStage::connected: return "connected";
        case PeerStage::failed: return "failed";
        case PeerStage::self: return "self";
    }
    return "unknown";
}

std::string_view to_string(PathState state) noexcept {
    switch (state) {
        case PathState::absent: return "absent";
        case PathState::pending: return "pending";
        case PathState::proved: return "proved";
        case PathState::trusted: return "trusted";
        case PathState::failed: return "failed";
    }
    return "unknown";
}

std::string HandshakeReport::describe() const {
    std::string text;
    for (const PeerReport& peer : peers) {
        const bool well = peer.stage == PeerStage::connected || peer.stage == PeerStage::self;
        if (well && !peer.error.has_value()) continue;
        if (!text.empty()) text += '\n';
        text += detail::formatted("rank {}, {}: {}", peer.rank, to_string(peer.stage),
                                  peer.error.has_value() ? peer.error->what() : "not done yet");
    }
    return text;
}

Handshake::Handshake(std::shared_ptr<Driver> driver, HandshakeOptions options)
    : core_(std::make_unique<detail::HandshakeCore>(std::move(driver), std::move(options))) {}
Handshake::~Handshake() {
    // A lock that another thread held at the fork can't be destroyed.
    if (core_->forked()) detail::leave_to_parent(core_.release());
}

std::vector<std::byte> Handshake::hello() { return core_->hello(); }
bool Handshake::add_peer(std::uint32_t rank, std::span<const std::byte> hello) { return core_->add_peer(rank, hello); }
void Handshake::expect_peer(std::uint32_t rank) { core_->expect_peer(rank); }
void Handshake::grow(std::uint32_t world_size) { core_->grow(world_size); }
void Handshake::remove_peer(std::uint32_t rank) { core_->remove_peer(rank); }
std::size_t Handshake::poll() { return core_->poll(); }
HandshakeReport Handshake::wait(std::chrono::steady_clock::time_point deadline) { return core_->wait(deadline); }
HandshakeReport Handshake::report() const { return core_->report(); }
PeerReport Handshake::peer(std::uint32_t rank) const { return core_->peer(rank); }
void Handshake::health_check(std::uint32_t rank, std::chrono::steady_clock::time_point deadline) {
    core_->health_check(rank, deadline);
}
std::shared_ptr<const ImportedFabricBuffer> Handshake::imported(std::uint32_t rank, LocationKind memory) const {
    return core_->imported(rank, memory);
}
void* Handshake::translate(std::uint32_t rank, LocationKind memory, std::uint64_t peer_address,
                           std::uint64_t bytes) const {
    return core_->translate(rank, memory, peer_address, bytes);
}
std::uint32_t Handshake::rank() const noexcept { return core_->options().rank; }
std::uint64_t Handshake::incarnation() const noexcept { return core_->options().incarnation; }
std::shared_ptr<Arena> Handshake::device_arena() const noexcept { return core_->arena(LocationKind::device); }
std::shared_ptr<Arena> Handshake::host_arena() const noexcept { return core_->arena(LocationKind::host_numa); }
void Handshake::close(std::chrono::steady_clock::time_point deadline) { core_->close(deadline); }

}  // namespace fabricmem
