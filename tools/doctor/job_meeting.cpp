// SPDX-License-Identifier: Apache-2.0
// All ranks of a job. Each leaves an offer, takes the others', leaves its results, takes the others', and says that it
// has read them. Rank 0 says that it is over when all have: then each removes what it left.
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

#include "common/deadline.hpp"
#include "common/text.hpp"
#include "doctor/exchange.hpp"
#include "doctor/meeting.hpp"
#include "doctor/verdict.hpp"

namespace doctor {
namespace {

using examples::Deadline;
using examples::formatted;

constexpr const char* kOver = "doctor/over";

std::string name_of_rank(std::uint32_t rank) { return formatted("rank {}", rank); }

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

/// Whether this is the nonce that they have of the member's offer.
bool says(const Results& told, const std::string& member, const std::string& nonce) {
    const auto found = told.offers.find(member);
    return found != told.offers.end() && found->second == nonce;
}

class RankMeeting {
public:
    RankMeeting(const Options& options, const Tell& tell)
        : options_(options),
          tell_(tell),
          rank_(*options.job->rank),
          size_(*options.job->size),
          store_(fabricmem::make_store(options.job->store)) {}

    Meeting run();
    /// For all of it.
    [[nodiscard]] static std::chrono::milliseconds time_for(const Options& options) {
        return 3 * options.time_limit.value_or(std::chrono::seconds(10)) + *options.job->size * kForEachRank;
    }

private:
    static constexpr std::chrono::milliseconds kForEachRank{250};

    [[nodiscard]] std::string name() const { return name_of_rank(rank_); }
    [[nodiscard]] static std::string key(std::uint32_t rank, const char* what) {
        return formatted("doctor/{}/{}", rank, what);
    }
    /// From the next one on: not all import from one rank at once.
    [[nodiscard]] std::vector<std::uint32_t> others() const;
    void leave(const std::string& key, const std::string& text) { store_->set(key, std::as_bytes(std::span(text))); }
    /// Empty: it is not there.
    [[nodiscard]] std::string look(const std::string& key);
    /// Calls `done` of every other rank, again and again, until it is true of all or the time is up.
    template <class Done>
    void for_others(const Deadline& deadline, Done&& done);
    [[nodiscard]] bool see(std::uint32_t rank, std::map<std::uint32_t, Offer>& offers);
    void try_rank(std::uint32_t rank, const Offer& offer, Importer& importer);
    [[nodiscard]] bool take_results(std::uint32_t rank, Meeting& meeting);
    void add_unknown(Meeting& meeting) const;
    void end_together(const std::string& own_nonce);

    const Options& options_;
    const Tell& tell_;
    const std::uint32_t rank_;
    const std::uint32_t size_;
    // Each phase has its share, so that a rank that does not come leaves time to say so.
    const Deadline offers_{time_for(options_) / 2};
    const Deadline results_{time_for(options_) * 4 / 5};
    const Deadline all_{time_for(options_)};
    const std::shared_ptr<fabricmem::Store> store_;
    Results own_{};
};

std::vector<std::uint32_t> RankMeeting::others() const {
    std::vector<std::uint32_t> ranks;
    for (std::uint32_t i = 1; i < size_; ++i) ranks.push_back((rank_ + i) % size_);
    return ranks;
}

std::string RankMeeting::look(const std::string& key) {
    const auto value = store_->try_get(key);
    return value.has_value() ? std::string(reinterpret_cast<const char*>(value->data()), value->size()) : std::string();
}

template <class Done>
void RankMeeting::for_others(const Deadline& deadline, Done&& done) {
    const int pause_ms = 20 + static_cast<int>(size_);  // the store serves them all
    std::vector<std::uint32_t> left = others();
    for (;;) {
        left.erase(std::remove_if(left.begin(), left.end(), done), left.end());
        if (left.empty() || deadline.passed()) return;
        ::poll(nullptr, 0, std::min(pause_ms, deadline.left_ms()));
    }
}

// False: there is no offer of this run yet, or its rank does not see ours.
bool RankMeeting::see(std::uint32_t rank, std::map<std::uint32_t, Offer>& offers) {
    std::optional<Offer> offer = offer_from(look(key(rank, "offer")));
    if (!offer.has_value()) return false;
    const std::string nonce = offer->nonce;
    if (std::string& seen = own_.offers[name_of_rank(rank)]; seen != nonce) {
        seen = nonce;
        offers.insert_or_assign(rank, std::move(*offer));
        leave(key(rank_, "seen"), to_text(own_));
    }
    const std::optional<Results> theirs = results_from(look(key(rank, "seen")));
    return theirs.has_value() && says(*theirs, name(), own_.offers.at(name())) &&
           says(*theirs, name_of_rank(rank), nonce);
}

void RankMeeting::try_rank(std::uint32_t rank, const Offer& offer, Importer& importer) {
    for (Cell cell : importer.try_all(offer)) {
        cell.exporter = name_of_rank(rank);
        cell.importer = name();
        own_.cells.push_back(std::move(cell));
    }
}

// False: this rank has told nothing of this run yet.
bool RankMeeting::take_results(std::uint32_t rank, Meeting& meeting) {
    const std::optional<Results> results = results_from(look(key(rank, "results")));
    if (!results.has_value()) return false;
    if (!says(*results, name(), own_.offers.at(name()))) return false;
    for (Cell cell : results->cells) {
        const auto tried = own_.offers.find(cell.exporter);
        if (tried == own_.offers.end() || !says(*results, cell.exporter, tried->second)) continue;
        cell.importer = name_of_rank(rank);
        meeting.cells.push_back(std::move(cell));
    }
    std::erase(meeting.missing, name_of_rank(rank));
    return true;
}

void RankMeeting::add_unknown(Meeting& meeting) const {
    std::set<std::pair<std::string, std::string>> known;
    for (const Cell& cell : meeting.cells) known.emplace(cell.exporter, cell.importer);
    for (const std::string& exporter : meeting.members) {
        for (const std::string& importer : meeting.members) {
            if (exporter == importer || known.count({exporter, importer}) != 0) continue;
            meeting.cells.push_back(
                {.exporter = exporter, .importer = importer, .place = "device 0", .side = "unknown"});
        }
    }
}

// Nobody takes away what another still reads, or imports. Values are nonces: an earlier run's mean nothing.
void RankMeeting::end_together(const std::string& own_nonce) {
    leave(key(rank_, "read"), own_nonce);
    const auto nonce_of = [&](std::uint32_t rank) {
        const auto known = own_.offers.find(name_of_rank(rank));
        return known == own_.offers.end() ? std::string() : known->second;
    };
    const auto has_read = [&](std::uint32_t rank) {
        const std::string nonce = nonce_of(rank);
        return nonce.empty() || look(key(rank, "read")) == nonce;
    };
    if (rank_ == 0) {
        for_others(all_, has_read);
        leave(kOver, own_nonce);
        for_others(all_, [&](std::uint32_t rank) {
            return nonce_of(rank).empty() || look(key(rank, "read")) != nonce_of(rank);
        });
        store_->remove(kOver);
    } else {
        const std::string nonce = nonce_of(0);
        for_others(all_, [&](std::uint32_t) { return nonce.empty() || look(kOver) == nonce; });
    }
    for (const char* const what : {"offer", "seen", "results", "read"}) store_->remove(key(rank_, what));
}

Meeting RankMeeting::run() {
    Meeting meeting{.kind = Meeting::Kind::job};
    for (std::uint32_t rank = 0; rank < size_; ++rank) meeting.members.push_back(name_of_rank(rank));
    meeting.missing = meeting.members;
    std::erase(meeting.missing, name());

    const Exporter exporter(options_, tell_, all_);
    const std::string nonce = exporter.offer().nonce;
    own_.offers[name()] = nonce;
    for (const char* const what : {"seen", "results", "read"}) store_->remove(key(rank_, what));
    leave(key(rank_, "offer"), to_text(exporter.offer()));

    std::map<std::uint32_t, Offer> offers;
    std::set<std::uint32_t> alive;
    for_others(offers_, [&](std::uint32_t rank) { return see(rank, offers) && alive.insert(rank).second; });
    Importer importer(options_, tell_, all_);
    for (const std::uint32_t rank : others()) {
        if (alive.count(rank) != 0)
            try_rank(rank, offers.at(rank), importer);
        else
            own_.offers.erase(name_of_rank(rank));
    }

    leave(key(rank_, "results"), to_text(own_));
    meeting.cells = own_.cells;
    for_others(results_, [&](std::uint32_t rank) { return take_results(rank, meeting); });
    add_unknown(meeting);
    if (!meeting.missing.empty())
        meeting.trouble = {"FM-PEER-007", formatted("nothing came from {}", joined(meeting.missing))};
    end_together(nonce);
    return meeting;
}

}  // namespace

Meeting run_job(const Options& options, const Tell& tell) {
    // An engine whose server or file system hangs has no time limit of its own.
    const auto time = RankMeeting::time_for(options) + std::chrono::seconds(20);
    const examples::Watchdog watchdog("the exchange through the store", time, [] {
        examples::print(stderr, "fabricmem-doctor: error: the store does not answer\n");
        std::_Exit(static_cast<int>(Outcome::doctor_failed));
    });
    try {
        return RankMeeting(options, tell).run();
    } catch (const fabricmem::Error& error) {
        throw DoctorFailed(error.what());
    } catch (const std::system_error& error) {
        throw DoctorFailed(error.what());
    }
}

}  // namespace doctor
