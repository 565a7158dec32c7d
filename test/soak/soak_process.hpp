// SPDX-License-Identifier: Apache-2.0
// A process of a soak as its supervisor sees it: every wait has a deadline, and what does not answer is described.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/child_process.hpp"

namespace fabricmem::soak {

/// What ends a soak: something hung, broke, or stayed behind.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Process {
public:
    Process(std::string name, std::vector<std::string> arguments, int patience_seconds);

    [[nodiscard]] pid_t id() const noexcept { return child_.pid(); }
    /// The next line; nullopt where there will be none, since the process has ended. Throws Failure at the deadline
    /// and for a line that begins with "broken".
    std::optional<std::string> hear(const std::string& awaited);
    /// False where the process takes no more.
    bool tell(const std::string& line) { return child_.send_line(line); }
    /// tell() and hear(), of a process that must not end.
    std::string ask(const std::string& line);
    /// ask(), where only one answer will do.
    void demand(const std::string& line, const std::string& answer);

    void signal(int number) { child_.signal(number); }
    void close_input() { child_.close_input(); }
    /// Throws Failure at the deadline.
    test::Ended wait();

private:
    [[nodiscard]] test::Deadline deadline() const { return test::in_seconds(patience_seconds_); }
    [[noreturn]] void hung(const std::string& awaited) const;

    std::string name_;
    int patience_seconds_;
    test::ChildProcess child_;
};

/// Kills a process at a moment, from a thread of its own.
class Killer {
public:
    using Clock = std::chrono::steady_clock;
    /// `stage` is read at the kill. The process must not be waited for before the killer has ended.
    Killer(Process& victim, Clock::time_point moment, const std::atomic<int>& stage);
    Killer(const Killer&) = delete;
    Killer& operator=(const Killer&) = delete;
    ~Killer();

    /// Waits for the moment. The stage that the victim was killed in.
    int wait();

private:
    void run(Clock::time_point moment);

    Process& victim_;
    const std::atomic<int>& stage_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool cancelled_ = false;
    int killed_in_ = -1;
    std::thread thread_;
};

}  // namespace fabricmem::soak
