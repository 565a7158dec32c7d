// SPDX-License-Identifier: Apache-2.0
// A program that a test runs to look at what it says: both its outputs are kept, each wait has a deadline.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace fabricmem::test {

class CapturedProcess {
public:
    /// The words of FABRICMEM_TEST_LAUNCHER (an emulator, say) are put before. Throws std::system_error.
    explicit CapturedProcess(const std::vector<std::string>& arguments);
    CapturedProcess(const CapturedProcess&) = delete;
    CapturedProcess& operator=(const CapturedProcess&) = delete;
    /// Kills it if it was not waited for.
    ~CapturedProcess();

    [[nodiscard]] pid_t id() const noexcept { return id_; }
    [[nodiscard]] const std::string& out() const noexcept { return texts_[0]; }
    [[nodiscard]] const std::string& err() const noexcept { return texts_[1]; }

    /// What follows `before` on its line, once that line is whole; nullopt when the time is up or no more will come.
    std::optional<std::string> wait_for(const std::string& text_before, int seconds);
    /// Its exit code (128 + the signal's number) once it and all that it started have closed their outputs; nullopt
    /// when the time is up.
    std::optional<int> finish(int seconds);

private:
    using Clock = std::chrono::steady_clock;

    /// False when the time is up or both outputs are closed.
    bool read_more(Clock::time_point deadline);
    [[nodiscard]] std::optional<std::string> find(const std::string& text_before) const;

    pid_t id_ = -1;
    std::array<int, 2> fds_{-1, -1};
    std::array<std::string, 2> texts_{};
};

inline CapturedProcess::CapturedProcess(const std::vector<std::string>& arguments) {
    std::vector<std::string> command;
    if (const char* const launcher = std::getenv("FABRICMEM_TEST_LAUNCHER")) {
        std::istringstream words(launcher);
        for (std::string word; words >> word;) command.push_back(word);
    }
    command.insert(command.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);

    std::array<int, 2> out{-1, -1};
    std::array<int, 2> err{-1, -1};
    if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) {
        throw std::system_error(errno, std::generic_category(), "pipe2");
    }
    posix_spawn_file_actions_t actions{};
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
    const int error = ::posix_spawnp(&id_, argv[0], &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);
    ::close(err[1]);
    fds_ = {out[0], err[0]};
    if (error != 0) throw std::system_error(error, std::generic_category(), command.front());
}

inline CapturedProcess::~CapturedProcess() {
    if (id_ > 0) {
        ::kill(id_, SIGKILL);
        ::waitpid(id_, nullptr, 0);
    }
    for (const int fd : fds_) {
        if (fd >= 0) ::close(fd);
    }
}

inline bool CapturedProcess::read_more(Clock::time_point deadline) {
    std::array<pollfd, 2> events{};
    for (std::size_t i = 0; i < events.size(); ++i) events[i] = {.fd = fds_[i], .events = POLLIN, .revents = 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (fds_[0] < 0 && fds_[1] < 0) return false;
    if (left <= 0 || ::poll(events.data(), events.size(), static_cast<int>(left)) <= 0) return false;
    for (std::size_t i = 0; i < events.size(); ++i) {
        if (events[i].revents == 0) continue;
        std::array<char, 4096> buffer{};
        const ssize_t got = ::read(fds_[i], buffer.data(), buffer.size());
        if (got > 0) texts_[i].append(buffer.data(), static_cast<std::size_t>(got));
        if (got == 0) ::close(std::exchange(fds_[i], -1));
    }
    return true;
}

inline std::optional<std::string> CapturedProcess::find(const std::string& text_before) const {
    for (const std::string& text : texts_) {
        const std::size_t found = text.find(text_before);
        const std::size_t end = text.find('\n', found);
        if (found == text.npos || end == text.npos) continue;
        const std::size_t begin = found + text_before.size();
        return text.substr(begin, end - begin);
    }
    return std::nullopt;
}

inline std::optional<std::string> CapturedProcess::wait_for(const std::string& text_before, int seconds) {
    const Clock::time_point deadline = Clock::now() + std::chrono::seconds(seconds);
    for (;;) {
        if (std::optional<std::string> found = find(text_before)) return found;
        if (!read_more(deadline)) return find(text_before);
    }
}

inline std::optional<int> CapturedProcess::finish(int seconds) {
    const Clock::time_point deadline = Clock::now() + std::chrono::seconds(seconds);
    while (read_more(deadline)) {
    }
    if (fds_[0] >= 0 || fds_[1] >= 0) return std::nullopt;
    int status = 0;
    ::waitpid(std::exchange(id_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace fabricmem::test
