// SPDX-License-Identifier: Apache-2.0
// All ranks of a run, as processes: starts them, hears what they say, ends them. Every wait has a deadline.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/process.hpp"
#include "common/unique_fd.hpp"
#include "warmup/options.hpp"
#include "warmup/site.hpp"

namespace warmup {

/// SIGINT, SIGTERM or SIGHUP came.
class Interrupted : public std::runtime_error {
public:
    explicit Interrupted(int signal);
    [[nodiscard]] int signal() const noexcept { return signal_; }

private:
    int signal_;
};

/// Those signals are not delivered while this lives, but read from a descriptor.
class Signals {
public:
    Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    ~Signals();

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// Throws Interrupted where one has come.
    void check() const;

private:
    examples::UniqueFd fd_;
};

/// What is known of a rank.
struct RankStory {
    Place place{};
    pid_t process = -1;
    nlohmann::ordered_json hello{};  ///< what it said, by "is"; null: it has not
    nlohmann::ordered_json report{};
    nlohmann::ordered_json closed{};
    std::vector<std::string>
        troubles{};       ///< what went wrong with the process itself, each a sentence without its subject
    bool killed = false;  ///< by --kill
};

class Fleet {
public:
    using Clock = std::chrono::steady_clock;

    Fleet(const Options& options, const Site& site, const Signals& signals, const std::string& store,
          const fabricmem::Id128& job);
    Fleet(const Fleet&) = delete;
    Fleet& operator=(const Fleet&) = delete;
    /// As kill_all().
    ~Fleet();

    /// Starts all, waits until every rank has reported or can't any more, tells them to end, and waits for that. Throws
    /// Interrupted, and std::system_error where no process can be started.
    void run();
    /// Returns when they are gone.
    void kill_all() noexcept;

    [[nodiscard]] const std::vector<RankStory>& stories() const noexcept { return stories_; }
    [[nodiscard]] Clock::time_point started_at() const noexcept { return started_at_; }

private:
    struct Member {
        std::unique_ptr<examples::PeerProcess> process{};  // null: not started
        std::string unread{};                              // the beginning of a line
        bool ended = false;
        bool condemned = false;  // killed by this process
    };

    void start(std::uint32_t rank, Clock::time_point until);
    /// Hears what there is until `done` or the time is up.
    void hear(Clock::time_point until, const std::function<bool()>& done);
    void hear_one(std::uint32_t rank);
    void take_line(std::uint32_t rank, const std::string& line);
    void take_end(std::uint32_t rank);
    void kill_if_due();
    /// Kills who has not ended, and says of it that it `did not` do something.
    void condemn(std::uint32_t rank, std::string trouble);

    const Options& options_;
    const Site& site_;
    const Signals& signals_;
    const std::string store_;
    const fabricmem::Id128 job_;
    Clock::time_point started_at_{};
    std::optional<Clock::time_point> kill_at_{};  // empty: not due, or done
    std::vector<RankStory> stories_;
    std::vector<Member> members_;  // as stories_
};

}  // namespace warmup
