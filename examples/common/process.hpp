// SPDX-License-Identifier: Apache-2.0
// Another process of this same program. Started by exec: CUDA does not survive a bare fork.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/deadline.hpp"
#include "common/peer_error.hpp"
#include "common/unique_fd.hpp"

namespace examples {

/// What the process's stdin and stdout are: /dev/null, or pipes to this one.
enum class StandardPipes : std::uint8_t { none, both };

/// The command line of this same program with these arguments. What the environment variable FABRICMEM_TEST_LAUNCHER
/// holds is put before the command, for programs of another architecture.
[[nodiscard]] std::vector<std::string> command_of_this_program(const std::vector<std::string>& arguments);

/// What a process is started with.
struct Start {
    std::vector<std::string> command{};                ///< a path, or a name in PATH, and its arguments
    std::map<std::string, std::string> environment{};  ///< replaces variables of this process's
    int in = -1;                                       ///< its stdin; -1: /dev/null
    int out = -1;                                      ///< its stdout
    int err = -1;                                      ///< its stderr
};
/// In a process group of its own, where no signal is blocked. Throws std::system_error.
[[nodiscard]] pid_t spawn_group(Start start);

class PeerProcess {
public:
    /// Starts command_of_this_program(arguments) with this process's environment, in which `environment` replaces
    /// variables. No signal is blocked there. Throws std::system_error.
    explicit PeerProcess(const std::vector<std::string>& arguments, StandardPipes pipes = StandardPipes::none,
                         const std::map<std::string, std::string>& environment = {});
    PeerProcess(const PeerProcess&) = delete;
    PeerProcess& operator=(const PeerProcess&) = delete;
    /// Waits a little for its end, then kills it: nothing is left behind.
    ~PeerProcess();

    /// -1 once it was waited for.
    [[nodiscard]] pid_t id() const noexcept { return id_; }
    /// Comes to its end (end of file) when the process does, however it ends. With pipes it is its stdout: what it says
    /// can be read before that.
    [[nodiscard]] int ended_fd() const noexcept { return ended_.get(); }
    /// Its stdin comes to its end.
    void close_input() noexcept { input_.reset(); }
    /// Asks for nothing and waits for nothing. For a process that is itself about to end. Any thread, while no other
    /// member runs.
    void kill() const noexcept;
    /// Waits for its end and forgets what it still says; false when the time is up.
    [[nodiscard]] bool wait(const Deadline& deadline) noexcept;
    /// "was ended by signal 9", "ended with exit code 1"; empty for exit code 0. After wait() returned true.
    [[nodiscard]] std::string how_it_failed() const;
    /// Waits for its end; throws PeerError where it fails or takes too long.
    void expect_success(const Deadline& deadline);

private:
    UniqueFd ended_;
    UniqueFd input_;
    pid_t id_ = -1;  // -1: it was waited for
    int status_ = 0;
};

}  // namespace examples
