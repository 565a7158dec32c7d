// SPDX-License-Identifier: Apache-2.0
// posix_spawn into a new process group, pipes, waitpid that never blocks.
#include "doctor/command.hpp"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "common/process.hpp"

namespace doctor {
namespace {

using examples::Deadline;
using examples::UniqueFd;

constexpr std::chrono::milliseconds kForDying{1000};

void refuse_errno(int error, const char* call) {
    if (error != 0) throw std::system_error(error, std::generic_category(), call);
}

std::pair<UniqueFd, UniqueFd> make_output_pipe() {
    std::array<int, 2> fds{-1, -1};
    refuse_errno(::pipe2(fds.data(), O_CLOEXEC) == 0 ? 0 : errno, "pipe2");
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

}  // namespace

Command::Command(std::vector<std::string> arguments, const std::map<std::string, std::string>& environment,
                 Input input) {
    UniqueFd in_read;
    if (input == Input::lines) {
        std::array<int, 2> ends{-1, -1};
        refuse_errno(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0 ? 0 : errno, "socketpair");
        in_read = UniqueFd(ends[0]);
        input_ = UniqueFd(ends[1]);
    }
    auto [out_read, out_write] = make_output_pipe();
    auto [err_read, err_write] = make_output_pipe();
    id_ = examples::spawn_group({.command = std::move(arguments),
                                 .environment = environment,
                                 .in = in_read.get(),
                                 .out = out_write.get(),
                                 .err = err_write.get()});
    fds_[0] = std::move(out_read);
    fds_[1] = std::move(err_read);
}

Command::~Command() {
    if (ended_.has_value() || id_ < 0) return;
    kill();
    (void)wait(Deadline(kForDying));
}

bool Command::read_more(const Deadline& deadline) {
    std::array<pollfd, 2> events{};
    for (std::size_t i = 0; i < events.size(); ++i) events[i] = {.fd = fds_[i].get(), .events = POLLIN, .revents = 0};
    if (fds_[0].get() < 0 && fds_[1].get() < 0) return false;
    const int ready = ::poll(events.data(), events.size(), deadline.left_ms());
    if (ready < 0 && errno == EINTR) return true;
    if (ready <= 0) return false;
    for (std::size_t i = 0; i < events.size(); ++i) {
        if (events[i].revents == 0) continue;
        std::array<char, 16384> buffer{};
        const ssize_t got = ::read(fds_[i].get(), buffer.data(), buffer.size());
        if (got == 0 || (got < 0 && errno != EINTR)) fds_[i].reset();
        if (got <= 0) continue;
        const std::size_t room = kBytesKept - std::min(texts_[i].size(), kBytesKept);
        texts_[i].append(buffer.data(), std::min(static_cast<std::size_t>(got), room));
    }
    return true;
}

Command::Read Command::read_line(std::string& line, const Deadline& deadline) {
    for (;;) {
        std::string& text = texts_[0];
        if (const std::size_t end = text.find('\n'); end != text.npos) {
            line = text.substr(0, end);
            text.erase(0, end + 1);
            return Read::line;
        }
        if (fds_[0].get() < 0) return Read::end;
        if (!read_more(deadline) && deadline.passed()) return Read::late;
    }
}

bool Command::write_line(const std::string& line) {
    const std::string whole = line + '\n';
    const ssize_t sent = ::send(input_.get(), whole.data(), whole.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent == static_cast<ssize_t>(whole.size());
}

bool Command::read_all(const Deadline& deadline) {
    while (read_more(deadline)) {
        if (deadline.passed()) break;
    }
    return fds_[0].get() < 0 && fds_[1].get() < 0;
}

std::optional<Command::Ended> Command::wait(const Deadline& deadline) {
    constexpr int kPauseMs = 5;
    while (!ended_.has_value()) {
        int status = 0;
        const pid_t waited = ::waitpid(id_, &status, WNOHANG);
        if (waited == id_) {
            ended_ = WIFEXITED(status) ? Ended{WEXITSTATUS(status), 0} : Ended{-1, WTERMSIG(status)};
        } else if (waited < 0 && errno != EINTR) {
            ended_ = Ended{};
        } else {
            if (deadline.passed()) return std::nullopt;
            ::poll(nullptr, 0, std::min(kPauseMs, deadline.left_ms()));
        }
    }
    return ended_;
}

// Not after it was waited for: the number may be another group's by then.
void Command::kill() noexcept {
    if (id_ > 0 && !ended_.has_value()) ::kill(-id_, SIGKILL);
}

}  // namespace doctor
