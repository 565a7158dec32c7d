// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <optional>
#include <system_error>
#include <utility>

#include "common/deadline.hpp"
#include "common/peer_error.hpp"
#include "common/text.hpp"
#include "doctor/exchange.hpp"
#include "doctor/meeting.hpp"
#include "doctor/wire.hpp"
#include "pingpong_wire.hpp"

namespace doctor {
namespace {

using examples::Deadline;
using examples::formatted;

// Three times the time of a step.
std::chrono::milliseconds time_for_meeting(const Options& options) {
    return 3 * options.time_limit.value_or(std::chrono::seconds(10));
}

std::unique_ptr<pingpong::Listener> listen_at(const pingpong::Endpoint& endpoint) {
    try {
        return std::make_unique<pingpong::Listener>(endpoint);
    } catch (const std::exception&) {
        if (endpoint.host != "::") throw;
    }
    return std::make_unique<pingpong::Listener>(pingpong::Endpoint{.host = "0.0.0.0", .port = endpoint.port});
}

std::string name_of(const pingpong::Endpoint& endpoint) {
    const bool v6 = endpoint.host.find(':') != endpoint.host.npos;
    return formatted("{}{}{}:{}", v6 ? "[" : "", endpoint.host, v6 ? "]" : "", endpoint.port);
}

void add_cells(Meeting& meeting, std::vector<Cell> cells, const char* exporter, const char* importer) {
    for (Cell& cell : cells) {
        cell.exporter = exporter;
        cell.importer = importer;
        meeting.cells.push_back(std::move(cell));
    }
}

/// What nobody told.
void add_unknown(Meeting& meeting, const char* exporter, const char* importer) {
    const bool known = std::any_of(meeting.cells.begin(), meeting.cells.end(),
                                   [&](const Cell& cell) { return cell.importer == importer; });
    if (!known) add_cells(meeting, {{.place = "device 0", .side = "unknown"}}, exporter, importer);
}

template <class Value>
Value understood(std::optional<Value> value, const char* what) {
    if (!value.has_value()) throw PeerTrouble("FM-PEER-005", formatted("the peer's {} makes no sense", what));
    return std::move(*value);
}

}  // namespace

PairMeeting::PairMeeting(const Options& options) : options_(options) {
    if (options.pair->role != Pair::Role::listen) return;
    try {
        listener_ = listen_at(options.pair->endpoint);
    } catch (const std::exception& error) {
        throw DoctorFailed(error.what());
    }
    examples::print(stderr, "listening on {}\n", name_of(listener_->endpoint()));
}

PairMeeting::~PairMeeting() = default;

Meeting PairMeeting::run(const Tell& tell) {
    Meeting meeting{.kind = Meeting::Kind::pair, .members = {"here", "there"}};
    const Deadline all(time_for_meeting(options_));
    try {
        const Exporter exporter(options_, tell, all);
        tell(listener_ != nullptr ? "wait for the peer" : "connection to the peer");
        Wire wire(
            listener_ != nullptr ? listener_->accept(all, -1) : pingpong::connect_to(options_.pair->endpoint, all),
            all);
        wire.send(Wire::Kind::offer, to_text(exporter.offer()));
        const Offer offer = understood(offer_from(wire.receive(Wire::Kind::offer, "its offer")), "offer");
        const std::vector<Cell> own = Importer(options_, tell, all).try_all(offer);
        add_cells(meeting, own, "there", "here");
        wire.send(Wire::Kind::results, to_text(Results{.cells = own}));
        // Until this comes, the peer may be using what is exported here.
        add_cells(meeting, understood(results_from(wire.receive(Wire::Kind::results, "its results")), "results").cells,
                  "here", "there");
    } catch (const PeerTrouble& trouble) {
        meeting.trouble = trouble.trouble();
    } catch (const examples::PeerError& error) {
        meeting.trouble = {"FM-PEER-007", error.what()};
    } catch (const std::system_error& error) {
        throw DoctorFailed(error.what());
    }
    add_unknown(meeting, "there", "here");
    add_unknown(meeting, "here", "there");
    if (!meeting.trouble.check.empty()) meeting.missing = {"there"};
    return meeting;
}

}  // namespace doctor
