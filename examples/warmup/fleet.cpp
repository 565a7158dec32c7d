// SPDX-License-Identifier: Apache-2.0
#include "warmup/fleet.hpp"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <random>
#include <system_error>
#include <utility>

#include "common/text.hpp"
#include "warmup/keys.hpp"

namespace warmup {
namespace {

using examples::formatted;
using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr milliseconds kGraceToReport{10'000};  // after the deadline, on a machine that is busy with all the others
constexpr milliseconds kGraceToEnd{20'000};     // a rank's own limits come to half of it
constexpr milliseconds kKilledWithin{1'000};

sigset_t ending_signals() {
    sigset_t set{};
    ::sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, signal);
    return set;
}

milliseconds random_moment() {
    std::random_device random;
    return milliseconds(std::uniform_int_distribution<milliseconds::rep>(0, kKilledWithin.count())(random));
}

int left_ms(Fleet::Clock::time_point until) {
    const auto left = std::chrono::ceil<milliseconds>(until - Fleet::Clock::now()).count();
    return static_cast<int>(std::clamp<milliseconds::rep>(left, 0, 86'400'000));
}

}  // namespace

Interrupted::Interrupted(int signal)
    : std::runtime_error(formatted("interrupted by signal {}", signal)), signal_(signal) {}

Signals::Signals() {
    const sigset_t set = ending_signals();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    fd_ = examples::UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (fd_.get() < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
}

Signals::~Signals() {
    const sigset_t set = ending_signals();
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Signals::check() const {
    signalfd_siginfo info{};
    if (::read(fd_.get(), &info, sizeof info) == sizeof info) throw Interrupted(static_cast<int>(info.ssi_signo));
}

Fleet::Fleet(const Options& options, const Site& site, const Signals& signals, const std::string& store,
             const fabricmem::Id128& job)
    : options_(options),
      site_(site),
      signals_(signals),
      store_(store),
      job_(job),
      stories_(options.ranks),
      members_(options.ranks) {}

Fleet::~Fleet() { kill_all(); }

void Fleet::kill_all() noexcept {
    for (const Member& member : members_) {
        if (member.process != nullptr) member.process->kill();
    }
    const examples::Deadline deadline(kGraceToEnd);
    for (Member& member : members_) {
        if (member.process != nullptr) (void)member.process->wait(deadline);
        member.ended = true;
    }
}

void Fleet::run() {
    started_at_ = Clock::now();
    const Clock::time_point until = started_at_ + options_.deadline;
    for (std::uint32_t rank = 0; rank < options_.ranks; ++rank) {
        start(rank, until);
        hear(Clock::now(), [] { return false; });
    }
    hear(until + kGraceToReport, [this] {
        for (std::size_t rank = 0; rank < members_.size(); ++rank) {
            if (stories_[rank].report.is_null() && !members_[rank].ended) return false;
        }
        return !kill_at_.has_value();
    });
    for (std::uint32_t rank = 0; rank < options_.ranks; ++rank) {
        if (stories_[rank].report.is_null())
            condemn(rank, formatted("gave no report within {} s of the deadline", kGraceToReport.count() / 1000));
        members_[rank].process->close_input();
    }
    const auto all_ended = [this] {
        return std::all_of(members_.begin(), members_.end(), [](const Member& member) { return member.ended; });
    };
    hear(Clock::now() + kGraceToEnd, all_ended);
    for (std::uint32_t rank = 0; rank < options_.ranks; ++rank)
        condemn(rank, formatted("did not end within {} s", kGraceToEnd.count() / 1000));
    hear(Clock::now() + kGraceToEnd, all_ended);
}

void Fleet::start(std::uint32_t rank, Clock::time_point until) {
    RankStory& story = stories_[rank];
    story.place = site_.place_of(rank);
    const RankTask task{.rank = rank, .device = story.place.device, .job = job_, .until = until};
    members_[rank].process =
        std::make_unique<examples::PeerProcess>(rank_arguments(options_, site_.driver(), store_, task),
                                                examples::StandardPipes::both, site_.environment_of(rank));
    story.process = members_[rank].process->id();
    if (options_.kill && options_.kill->rank == rank && options_.kill->moment == Kill::Moment::random)
        kill_at_ = Clock::now() + random_moment();
}

void Fleet::hear(Clock::time_point until, const std::function<bool()>& done) {
    std::vector<pollfd> events;
    std::vector<std::uint32_t> ranks;
    while (!done()) {
        signals_.check();
        kill_if_due();
        events.assign(1, {.fd = signals_.fd(), .events = POLLIN, .revents = 0});
        ranks.clear();
        for (std::uint32_t rank = 0; rank < members_.size(); ++rank) {
            if (members_[rank].process == nullptr || members_[rank].ended) continue;
            events.push_back({.fd = members_[rank].process->ended_fd(), .events = POLLIN, .revents = 0});
            ranks.push_back(rank);
        }
        const int ready = ::poll(events.data(), events.size(), left_ms(kill_at_ ? std::min(*kill_at_, until) : until));
        if (ready < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "poll");
        for (std::size_t i = 0; ready > 0 && i < ranks.size(); ++i) {
            if (events[i + 1].revents != 0) hear_one(ranks[i]);
        }
        if (Clock::now() >= until) return;
    }
}

void Fleet::hear_one(std::uint32_t rank) {
    Member& member = members_[rank];
    std::array<char, 65'536> said{};
    const ssize_t got = ::read(member.process->ended_fd(), said.data(), said.size());
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) {
        take_end(rank);
        return;
    }
    member.unread.append(said.data(), static_cast<std::size_t>(got));
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = member.unread.find('\n', begin)) != std::string::npos; begin = end + 1)
        take_line(rank, member.unread.substr(begin, end - begin));
    member.unread.erase(0, begin);
}

void Fleet::take_line(std::uint32_t rank, const std::string& line) {
    RankStory& story = stories_[rank];
    Json said = Json::parse(line, nullptr, false);
    std::string what;
    if (said.is_object() && said.contains("is") && said["is"].is_string()) what = said["is"];
    if (!what.empty()) said.erase("is");
    if (what == "hello") {
        story.hello = std::move(said);
        const bool awaited = options_.kill && options_.kill->rank == rank && !story.killed;
        if (awaited && options_.kill->moment == Kill::Moment::hello) kill_at_ = Clock::now();
    } else if (what == "report") {
        story.report = std::move(said);
    } else if (what == "closed") {
        story.closed = std::move(said);
    } else if (what == "failed") {
        story.troubles.push_back(said["error"]["text"].get<std::string>());
    } else {
        story.troubles.push_back("said what can't be understood: " + line.substr(0, 200));
    }
}

void Fleet::take_end(std::uint32_t rank) {
    Member& member = members_[rank];
    RankStory& story = stories_[rank];
    member.ended = true;
    (void)member.process->wait(examples::Deadline(kGraceToEnd));
    const std::string failed = member.process->how_it_failed();
    // What this process did to it, or what it said of itself, says more.
    if (!failed.empty() && story.troubles.empty() && !member.condemned) story.troubles.push_back(failed);
    if (failed.empty() && story.report.is_null()) story.troubles.emplace_back("ended without a report");
    if (options_.kill && options_.kill->rank == rank) kill_at_.reset();  // too late
}

void Fleet::kill_if_due() {
    if (!kill_at_ || Clock::now() < *kill_at_) return;
    kill_at_.reset();
    const std::uint32_t rank = options_.kill->rank;
    if (members_[rank].ended) return;
    const auto since = std::chrono::duration_cast<milliseconds>(Clock::now() - started_at_);
    stories_[rank].killed = true;
    condemn(rank, formatted("was killed (--kill), {} ms after the start{}", since.count(),
                            stories_[rank].hello.is_null() ? ", before its hello was out" : ""));
}

void Fleet::condemn(std::uint32_t rank, std::string trouble) {
    Member& member = members_[rank];
    if (member.ended || member.condemned) return;
    member.condemned = true;
    member.process->kill();
    stories_[rank].troubles.push_back(std::move(trouble));
}

}  // namespace warmup
