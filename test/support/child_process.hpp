// SPDX-License-Identifier: Apache-2.0
// A second process for tests: made by exec (CUDA does not survive fork), spoken to in lines, waited for by deadlines.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace fabricmem::test {

using Deadline = std::chrono::steady_clock::time_point;

/// Generous: it says when to give up, not how long things take.
[[nodiscard]] Deadline in_seconds(int seconds);

struct Ended {
    int exit_code = -1;  ///< -1 where a signal ended it
    int signal = 0;

    friend bool operator==(const Ended&, const Ended&) = default;
};

class ChildProcess {
public:
    /// Runs `arguments`, with the words of FABRICMEM_TEST_LAUNCHER (an emulator, say) put before. Throws
    /// std::runtime_error where that fails. stderr is shared.
    explicit ChildProcess(std::vector<std::string> arguments,
                          const std::map<std::string, std::string>& environment = {});
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;
    /// Kills it if it still runs.
    ~ChildProcess();

    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

    /// False where the process takes no more.
    bool send_line(const std::string& line);
    /// One line without its end; nullopt at the deadline or when there will be no more.
    std::optional<std::string> read_line(Deadline deadline);
    /// What came behind the last whole line.
    [[nodiscard]] const std::string& rest() const noexcept { return buffer_; }
    void close_input();
    void signal(int number);
    /// nullopt where it still runs at the deadline.
    std::optional<Ended> wait(Deadline deadline);

private:
    pid_t pid_ = -1;
    int input_ = -1;  // a socket, so that a dead reader is an error and no SIGPIPE
    int output_ = -1;
    int life_ = -1;  // its other end is closed when the process ends
    std::string buffer_;
    std::optional<Ended> ended_;
};

}  // namespace fabricmem::test
