// SPDX-License-Identifier: Apache-2.0
// posix_spawn, a pipe that ends with the process, waitpid.
#include "common/process.hpp"

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
#include <string_view>
#include <system_error>
#include <utility>

#include "common/text.hpp"

namespace examples {
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

class Attributes {
public:
    explicit Attributes(short more_flags = 0) {
        ::posix_spawnattr_init(&attributes_);
        sigset_t none{};
        ::sigemptyset(&none);
        ::posix_spawnattr_setsigmask(&attributes_, &none);
        ::posix_spawnattr_setflags(&attributes_, static_cast<short>(POSIX_SPAWN_SETSIGMASK | more_flags));
    }
    Attributes(const Attributes&) = delete;
    Attributes& operator=(const Attributes&) = delete;
    ~Attributes() { ::posix_spawnattr_destroy(&attributes_); }

    [[nodiscard]] const posix_spawnattr_t* get() const noexcept { return &attributes_; }

private:
    posix_spawnattr_t attributes_{};
};

/// "NAME=value" of all variables.
std::vector<std::string> environment_with(const std::map<std::string, std::string>& replaced) {
    std::vector<std::string> all;
    for (char** variable = environ; *variable != nullptr; ++variable) {
        const std::string_view text(*variable);
        if (replaced.count(std::string(text.substr(0, text.find('=')))) == 0) all.emplace_back(text);
    }
    for (const auto& [name, value] : replaced) all.push_back(name + "=" + value);
    return all;
}

std::vector<char*> pointers_to(std::vector<std::string>& words) {
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    return pointers;
}

struct Pipe {
    UniqueFd read;
    UniqueFd write;
};

void throw_if(int error, const char* call) {
    if (error != 0) throw std::system_error(error, std::generic_category(), call);
}

Pipe make_pipe() {
    std::array<int, 2> fds{-1, -1};
    throw_if(::pipe2(fds.data(), O_CLOEXEC) == 0 ? 0 : errno, "pipe2");
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// `fd` of this process is `as` in the one that is started. Where they are one and the same, that takes close-on-exec
/// off.
void hand_down(FileActions& actions, int fd, int as) {
    throw_if(::posix_spawn_file_actions_adddup2(actions.get(), fd, as), "adddup2");
}

void open_null(FileActions& actions, int as, int flags) {
    throw_if(::posix_spawn_file_actions_addopen(actions.get(), as, "/dev/null", flags, 0), "addopen");
}

}  // namespace

std::vector<std::string> command_of_this_program(const std::vector<std::string>& arguments) {
    std::vector<std::string> command;
    if (const char* const launcher = ::getenv("FABRICMEM_TEST_LAUNCHER")) {
        std::istringstream words(launcher);
        for (std::string word; words >> word;) command.push_back(word);
    }
    command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
}

pid_t spawn_group(Start start) {
    FileActions actions;
    if (start.in < 0) {
        open_null(actions, STDIN_FILENO, O_RDONLY);
    } else {
        hand_down(actions, start.in, STDIN_FILENO);
    }
    hand_down(actions, start.out, STDOUT_FILENO);
    hand_down(actions, start.err, STDERR_FILENO);
    const Attributes attributes(POSIX_SPAWN_SETPGROUP);
    std::vector<std::string> variables = environment_with(start.environment);
    pid_t id = -1;
    throw_if(::posix_spawnp(&id, start.command.front().c_str(), actions.get(), attributes.get(),
                            pointers_to(start.command).data(), pointers_to(variables).data()),
             "posix_spawn");
    return id;
}

PeerProcess::PeerProcess(const std::vector<std::string>& arguments, StandardPipes pipes,
                         const std::map<std::string, std::string>& environment) {
    Pipe output = make_pipe();
    Pipe input;
    FileActions actions;
    if (pipes == StandardPipes::both) {
        input = make_pipe();
        hand_down(actions, input.read.get(), STDIN_FILENO);
        hand_down(actions, output.write.get(), STDOUT_FILENO);
    } else {
        open_null(actions, STDIN_FILENO, O_RDONLY);
        open_null(actions, STDOUT_FILENO, O_WRONLY);
        hand_down(actions, output.write.get(), output.write.get());
    }
    const Attributes attributes;
    std::vector<std::string> command = command_of_this_program(arguments);
    std::vector<std::string> variables = environment_with(environment);
    throw_if(::posix_spawnp(&id_, command.front().c_str(), actions.get(), attributes.get(), pointers_to(command).data(),
                            pointers_to(variables).data()),
             "posix_spawn");
    ended_ = std::move(output.read);
    input_ = std::move(input.write);
}

PeerProcess::~PeerProcess() {
    input_.reset();
    if (id_ < 0 || wait(Deadline(std::chrono::seconds(2)))) return;
    ::kill(id_, SIGKILL);
    (void)wait(Deadline(std::chrono::seconds(10)));
}

void PeerProcess::kill() const noexcept {
    if (id_ >= 0) ::kill(id_, SIGKILL);
}

std::string PeerProcess::how_it_failed() const {
    if (WIFSIGNALED(status_)) return formatted("was ended by signal {}", WTERMSIG(status_));
    if (WEXITSTATUS(status_) != 0) return formatted("ended with exit code {}", WEXITSTATUS(status_));
    return {};
}

void PeerProcess::expect_success(const Deadline& deadline) {
    if (!wait(deadline)) throw PeerError(formatted("the peer (process {}) does not end", id_));
    if (const std::string failed = how_it_failed(); !failed.empty()) throw PeerError("the peer " + failed);
}

bool PeerProcess::wait(const Deadline& deadline) noexcept {
    if (id_ < 0) return true;
    for (;;) {
        pollfd ended{.fd = ended_.get(), .events = POLLIN, .revents = 0};
        const int ready = ::poll(&ended, 1, deadline.left_ms());
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        std::array<char, 4096> said{};
        if (::read(ended_.get(), said.data(), said.size()) <= 0) break;
    }
    // It has closed its files, so it is as good as ended, and this does not wait for long.
    while (::waitpid(id_, &status_, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
    return true;
}

}  // namespace examples
