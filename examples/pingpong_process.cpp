// SPDX-License-Identifier: Apache-2.0
// A second process of this same program: posix_spawn, a pipe that ends with it, waitpid.
#include "pingpong_process.hpp"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "pingpong_text.hpp"

namespace pingpong {
namespace {

class FileActions {
public:
    FileActions() { ::posix_spawn_file_actions_init(&actions_); }
    FileActions(const FileActions&) = delete;
    FileActions& operator=(const FileActions&) = delete;
    ~FileActions() { ::posix_spawn_file_actions_destroy(&actions_); }

    [[nodiscard]] posix_spawn_file_actions_t* get() noexcept { return &actions_; }

private:
    posix_spawn_file_actions_t actions_{};
};

std::vector<std::string> command_line(const std::vector<std::string>& arguments) {
    std::vector<std::string> command;
    if (const char* const launcher = ::getenv("FABRICMEM_TEST_LAUNCHER")) {
        std::istringstream words(launcher);
        for (std::string word; words >> word;) command.push_back(word);
    }
    command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
}

void throw_if(int error, const char* call) {
    if (error != 0) throw std::system_error(error, std::generic_category(), call);
}

}  // namespace

PeerProcess::PeerProcess(const std::vector<std::string>& arguments) {
    std::array<int, 2> pipe_fds{-1, -1};
    throw_if(::pipe2(pipe_fds.data(), O_CLOEXEC) == 0 ? 0 : errno, "pipe2");
    ended_ = UniqueFd(pipe_fds[0]);
    const UniqueFd kept_by_peer(pipe_fds[1]);

    FileActions actions;
    throw_if(::posix_spawn_file_actions_addopen(actions.get(), STDIN_FILENO, "/dev/null", O_RDONLY, 0), "addopen");
    throw_if(::posix_spawn_file_actions_addopen(actions.get(), STDOUT_FILENO, "/dev/null", O_WRONLY, 0), "addopen");
    // Onto itself: that takes close-on-exec off, so the pipe ends when the peer does.
    throw_if(::posix_spawn_file_actions_adddup2(actions.get(), kept_by_peer.get(), kept_by_peer.get()), "adddup2");

    std::vector<std::string> command = command_line(arguments);
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    throw_if(::posix_spawnp(&id_, argv[0], actions.get(), nullptr, argv.data(), environ), "posix_spawn");
}

PeerProcess::~PeerProcess() {
    if (id_ < 0 || wait(Deadline(std::chrono::seconds(2)))) return;
    ::kill(id_, SIGKILL);
    (void)wait(Deadline(std::chrono::seconds(10)));
}

void PeerProcess::kill() const noexcept {
    if (id_ >= 0) ::kill(id_, SIGKILL);
}

void PeerProcess::expect_success(const Deadline& deadline) {
    if (!wait(deadline)) throw PeerError(formatted("the peer (process {}) does not end", id_));
    if (WIFSIGNALED(status_)) throw PeerError(formatted("the peer was ended by signal {}", WTERMSIG(status_)));
    if (WEXITSTATUS(status_) != 0) throw PeerError(formatted("the peer ended with exit code {}", WEXITSTATUS(status_)));
}

bool PeerProcess::wait(const Deadline& deadline) noexcept {
    pollfd ended{.fd = ended_.get(), .events = POLLIN, .revents = 0};
    int ready = 0;
    do {
        ready = ::poll(&ended, 1, deadline.left_ms());
    } while (ready < 0 && errno == EINTR);
    if (ready <= 0) return false;
    // It has closed its files, so it is as good as ended, and this does not wait for long.
    while (::waitpid(id_, &status_, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
    return true;
}

}  // namespace pingpong
