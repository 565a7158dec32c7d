// SPDX-License-Identifier: Apache-2.0
// posix_spawn, poll and waitpid.
#include "support/child_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <stdexcept>

extern char** environ;

namespace fabricmem::test {

namespace {

std::vector<std::string> with_launcher(std::vector<std::string> arguments) {
    const char* const launcher = std::getenv("FABRICMEM_TEST_LAUNCHER");
    if (launcher == nullptr) return arguments;
    std::istringstream words(launcher);
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(word);
    all.insert(all.end(), arguments.begin(), arguments.end());
    return all;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& changes) {
    std::vector<std::string> all;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        const std::string text = *entry;
        if (changes.count(text.substr(0, text.find('='))) == 0) all.push_back(text);
    }
    for (const auto& [name, value] : changes) all.push_back(name + "=" + value);
    return all;
}

std::vector<char*> as_pointers(std::vector<std::string>& strings) {
    std::vector<char*> pointers;
    for (std::string& string : strings) pointers.push_back(string.data());
    pointers.push_back(nullptr);
    return pointers;
}

void require(bool good, const char* what) {
    if (!good) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

void close_if_open(int& descriptor) {
    if (descriptor >= 0) ::close(descriptor);
    descriptor = -1;
}

// False at the deadline.
bool wait_readable(int descriptor, Deadline deadline) {
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        pollfd entry{descriptor, POLLIN, 0};
        const int ready = ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
        if (ready > 0) return true;
        if (ready == 0 || errno != EINTR) return false;
    }
}

}  // namespace

Deadline in_seconds(int seconds) { return std::chrono::steady_clock::now() + std::chrono::seconds(seconds); }

ChildProcess::ChildProcess(std::vector<std::string> arguments, const std::map<std::string, std::string>& environment) {
    int in[2];
    int out[2];
    int life[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) == 0, "socketpair");
    require(::pipe2(out, O_CLOEXEC) == 0 && ::pipe2(life, O_CLOEXEC) == 0, "pipe2");

    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, in[1], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    // dup2 onto another number drops close-on-exec: this one stays open until the process ends.
    constexpr int kLifeNumber = 63;
    ::posix_spawn_file_actions_adddup2(&actions, life[1], kLifeNumber);

    std::vector<std::string> words = with_launcher(std::move(arguments));
    std::vector<std::string> variables = merged_environment(environment);
    const int error = ::posix_spawnp(&pid_, words.front().c_str(), &actions, nullptr, as_pointers(words).data(),
                                     as_pointers(variables).data());
    ::posix_spawn_file_actions_destroy(&actions);
    for (const int descriptor : {in[1], out[1], life[1]}) ::close(descriptor);
    input_ = in[0];
    output_ = out[0];
    life_ = life[0];
    if (error != 0) {
        for (int* const descriptor : {&input_, &output_, &life_}) close_if_open(*descriptor);
        errno = error;
        require(false, words.front().c_str());
    }
}

ChildProcess::~ChildProcess() {
    if (!ended_) {
        ::kill(pid_, SIGKILL);
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
    }
    for (int* const descriptor : {&input_, &output_, &life_}) close_if_open(*descriptor);
}

bool ChildProcess::send_line(const std::string& line) {
    const std::string text = line + "\n";
    std::size_t done = 0;
    while (done < text.size()) {
        const ssize_t sent = ::send(input_, text.data() + done, text.size() - done, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        done += static_cast<std::size_t>(sent);
    }
    return true;
}

std::optional<std::string> ChildProcess::read_line(Deadline deadline) {
    for (;;) {
        if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
            std::string line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            return line;
        }
        if (!wait_readable(output_, deadline)) return std::nullopt;
        char bytes[4096];
        const ssize_t got = ::read(output_, bytes, sizeof bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return std::nullopt;
        buffer_.append(bytes, static_cast<std::size_t>(got));
    }
}

void ChildProcess::close_input() { close_if_open(input_); }

void ChildProcess::signal(int number) {
    if (!ended_) ::kill(pid_, number);
}

std::optional<Ended> ChildProcess::wait(Deadline deadline) {
    if (ended_) return ended_;
    if (!wait_readable(life_, deadline)) return std::nullopt;
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0) {
        if (errno != EINTR) return std::nullopt;
    }
    ended_ = WIFSIGNALED(status) ? Ended{-1, WTERMSIG(status)} : Ended{WEXITSTATUS(status), 0};
    return ended_;
}

}  // namespace fabricmem::test
