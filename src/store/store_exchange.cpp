// SPDX-License-Identifier: Apache-2.0
// A Handshake as the exchange's Meeting, and the public class over both.
#include <fabricmem/store_exchange.hpp>

#include <utility>

#include <fabricmem/handshake.hpp>

#include "error/refuse.hpp"
#include "platform/fork_epoch.hpp"
#include "store/exchange_core.hpp"

namespace fabricmem {
namespace detail {
namespace {

PeerStanding standing_of(const PeerReport& peer) noexcept {
    if (peer.stage == PeerStage::connected) return PeerStanding::connected;
    if (peer.stage != PeerStage::failed) return PeerStanding::missing;
    const ErrorKind kind = peer.error.has_value() ? peer.error->kind() : ErrorKind::driver;
    const bool may_be_replaced =
        kind == ErrorKind::peer_gone || kind == ErrorKind::bad_blob || kind == ErrorKind::conflict;
    return may_be_replaced ? PeerStanding::replaced : PeerStanding::failed;
}

class HandshakeMeeting final : public Meeting {
public:
    explicit HandshakeMeeting(std::shared_ptr<Handshake> handshake) : handshake_(std::move(handshake)) {
        if (handshake_ == nullptr) refuse("a store exchange without a handshake");
    }
    std::uint32_t rank() const noexcept override { return handshake_->rank(); }
    std::vector<std::byte> hello() override { return handshake_->hello(); }
    bool add_peer(std::uint32_t rank, std::span<const std::byte> hello) override {
        return handshake_->add_peer(rank, hello);
    }
    std::size_t poll() override { return handshake_->poll(); }
    std::vector<MeetingPeer> others() const override {
        std::vector<MeetingPeer> others;
        for (const PeerReport& peer : handshake_->report().peers) {
            if (peer.stage != PeerStage::self) others.push_back({peer.rank, standing_of(peer)});
        }
        return others;
    }

private:
    std::shared_ptr<Handshake> handshake_;
};

}  // namespace
}  // namespace detail

StoreExchange::StoreExchange(std::shared_ptr<Store> store, std::shared_ptr<Handshake> handshake,
                             StoreExchangeOptions options)
    : core_(std::make_unique<detail::ExchangeCore>(
          std::move(store), std::make_unique<detail::HandshakeMeeting>(handshake), std::move(options))),
      handshake_(std::move(handshake)) {}

StoreExchange::~StoreExchange() {
    if (core_->in_forked_child()) detail::leave_to_parent(core_.release());
}

std::size_t StoreExchange::poll() { return core_->poll(); }

HandshakeReport StoreExchange::wait(std::chrono::steady_clock::time_point deadline) {
    core_->wait(deadline);
    // It polls once, and words what it knows of those that are not connected; the store knows more of those that it has
    // not heard of.
    HandshakeReport report = handshake_->wait(std::chrono::steady_clock::now());
    for (PeerReport& peer : report.peers) {
        if (peer.stage != PeerStage::no_hello && peer.stage != PeerStage::self) continue;
        if (auto error = core_->error_of(peer.rank)) peer.error = std::move(error);
    }
    return report;
}

void StoreExchange::close() { core_->close(); }

}  // namespace fabricmem
