// SPDX-License-Identifier: Apache-2.0
// A child of this program that says which step it begins, and is ended where one takes too long.
#pragma once

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

#include "common/deadline.hpp"
#include "doctor/command.hpp"
#include "doctor/facts.hpp"
#include "doctor/options.hpp"

namespace doctor {

/// The doctor itself failed: `what()` is one line.
class DoctorFailed : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Told of each step that begins, as "probe of device 0".
using Tell = std::function<void(const std::string& step)>;

/// "probe of device 0" of the step "device 0".
[[nodiscard]] std::string describe_step(const std::string& step);

class WatchedChild {
public:
    /// Its steps end by `all` in any case. Both are looked at until it is gone. Throws std::system_error.
    WatchedChild(const Options& options, const ChildTask& task, const Tell& tell, const examples::Deadline& all);

    /// The next line that it says, but for those that begin a step; nullopt: the step did not come to its end.
    [[nodiscard]] std::optional<std::string> next();
    /// As next(), for an answer to `line`.
    [[nodiscard]] std::optional<std::string> ask(const std::string& line);
    /// Of next() without an answer: ends the child. Throws DoctorFailed for one that had not begun anything.
    [[nodiscard]] Stuck give_up();
    /// Waits a little for its end.
    void finish();

    /// All that were begun, the last one last.
    [[nodiscard]] const std::vector<std::string>& steps() const noexcept { return steps_; }
    [[nodiscard]] Command& command() noexcept { return command_; }

private:
    [[nodiscard]] examples::Deadline limit() const;

    const Options& options_;
    const Tell& tell_;
    const examples::Deadline& all_;
    Command command_;
    std::vector<std::string> steps_{};
    examples::Clock::time_point begun_ = examples::Clock::now();
    examples::Deadline deadline_;
    Command::Read last_ = Command::Read::line;
};

}  // namespace doctor
