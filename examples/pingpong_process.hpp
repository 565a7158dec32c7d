// SPDX-License-Identifier: Apache-2.0
// A second process of this same program. Started by exec: CUDA does not survive a bare fork.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "pingpong_deadline.hpp"
#include "pingpong_wire.hpp"

namespace pingpong {

class PeerProcess {
public:
    /// Starts /proc/self/exe with these arguments; its stdin and stdout are /dev/null. What the environment variable
    /// FABRICMEM_TEST_LAUNCHER holds is put before the command, for programs of another architecture. Throws
    /// std::system_error.
    explicit PeerProcess(const std::vector<std::string>& arguments);
    PeerProcess(const PeerProcess&) = delete;
    PeerProcess& operator=(const PeerProcess&) = delete;
    /// Waits a little for its end, then kills it: nothing is left behind.
    ~PeerProcess();

    [[nodiscard]] pid_t id() const noexcept { return id_; }
    /// Becomes readable (end of file) when the process ends, however it ends.
    [[nodiscard]] int ended_fd() const noexcept { return ended_.get(); }
    /// Asks for nothing and waits for nothing. For a process that is itself about to end. Any thread, while no other
    /// member runs.
    void kill() const noexcept;
    /// Waits for its end; throws PeerError where it fails or takes too long.
    void expect_success(const Deadline& deadline);

private:
    [[nodiscard]] bool wait(const Deadline& deadline) noexcept;

    UniqueFd ended_;
    pid_t id_ = -1;  // -1: it was waited for
    int status_ = 0;
};

}  // namespace pingpong
