// SPDX-License-Identifier: Apache-2.0
// Lines with deadlines, /proc of what hangs, and the thread that kills.
#include "soak/soak_process.hpp"

#include <signal.h>

#include <fstream>
#include <sstream>

namespace fabricmem::soak {

namespace {

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return file ? text.str() : "(not to be read)\n";
}

}  // namespace

Process::Process(std::string name, std::vector<std::string> arguments, int patience_seconds)
    : name_(std::move(name)), patience_seconds_(patience_seconds), child_(std::move(arguments)) {}

void Process::hung(const std::string& awaited) const {
    const std::string proc = "/proc/" + std::to_string(id()) + "/";
    throw Failure("the " + name_ + " (process " + std::to_string(id()) + ") has not answered '" + awaited +
                  "' within " + std::to_string(patience_seconds_) + " s; wchan " + text_of(proc + "wchan") +
                  "\nsyscall " + text_of(proc + "syscall") + text_of(proc + "stack"));
}

std::optional<std::string> Process::hear(const std::string& awaited) {
    const test::Deadline until = deadline();
    std::optional<std::string> line = child_.read_line(until);
    if (!line && std::chrono::steady_clock::now() >= until) hung(awaited);
    if (line && line->rfind("broken", 0) == 0)
        throw Failure("the " + name_ + " says, asked for '" + awaited + "': " + *line);
    return line;
}

std::string Process::ask(const std::string& line) {
    const std::string command = line.substr(0, line.find(' '));
    const bool told = tell(line);
    std::optional<std::string> answer = told ? hear(command) : std::nullopt;
    if (answer) return *answer;
    const test::Ended ended = wait();
    throw Failure("the " + name_ + " ended at '" + command + "': exit code " + std::to_string(ended.exit_code) +
                  ", signal " + std::to_string(ended.signal));
}

void Process::demand(const std::string& line, const std::string& answer) {
    const std::string given = ask(line);
    if (given == answer) return;
    throw Failure("the " + name_ + " answers '" + line.substr(0, line.find(' ')) + "' with '" + given + "', not '" +
                  answer + "'");
}

test::Ended Process::wait() {
    const std::optional<test::Ended> ended = child_.wait(deadline());
    if (!ended) hung("its end");
    return *ended;
}

Killer::Killer(Process& victim, Clock::time_point moment, const std::atomic<int>& stage)
    : victim_(victim), stage_(stage), thread_([this, moment] { run(moment); }) {}

Killer::~Killer() {
    {
        const std::lock_guard lock(mutex_);
        cancelled_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void Killer::run(Clock::time_point moment) {
    std::unique_lock lock(mutex_);
    if (changed_.wait_until(lock, moment, [this] { return cancelled_; })) return;
    killed_in_ = stage_;
    victim_.signal(SIGKILL);
}

int Killer::wait() {
    thread_.join();
    return killed_in_;
}

}  // namespace fabricmem::soak
