// SPDX-License-Identifier: Apache-2.0
// A program in a process group of its own, whose words are read and whose time is limited.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/deadline.hpp"
#include "common/unique_fd.hpp"

namespace doctor {

class Command {
public:
    /// How much of each output is kept: what comes beyond is read and forgotten.
    static constexpr std::size_t kBytesKept = std::size_t{1} << 20;

    struct Ended {
        int exit_code = -1;  ///< -1: a signal ended it
        int signal = 0;
    };
    enum class Read : std::uint8_t { line, end, late };
    enum class Input : std::uint8_t { none, lines };

    /// `arguments` begin with the program's path, or its name in PATH. Its stdin is /dev/null unless it is to be given
    /// `lines`. `environment` replaces variables of this process's. Throws std::system_error where it can't be started.
    explicit Command(std::vector<std::string> arguments, const std::map<std::string, std::string>& environment = {},
                     Input input = Input::none);
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;
    /// Kills it and what it started, and waits a second for its end: what can't be killed is left.
    ~Command();

    /// The next line of its stdout, without its end. `end`: there will be no more.
    [[nodiscard]] Read read_line(std::string& line, const examples::Deadline& deadline);
    /// To its stdin. False where it takes none, or no more for now: it is to be given one line at a time.
    bool write_line(const std::string& line);
    /// Its stdin comes to its end.
    void close_input() noexcept { input_.reset(); }
    /// Reads on until both outputs are closed, or the time is up: then false.
    bool read_all(const examples::Deadline& deadline);
    /// nullopt: it had not ended when the time was up.
    std::optional<Ended> wait(const examples::Deadline& deadline);
    /// It and what it started, as far as that stayed in its group.
    void kill() noexcept;

    [[nodiscard]] const std::string& out() const noexcept { return texts_[0]; }
    [[nodiscard]] const std::string& err() const noexcept { return texts_[1]; }

private:
    /// False when the time is up or both outputs are closed.
    bool read_more(const examples::Deadline& deadline);

    pid_t id_ = -1;
    std::optional<Ended> ended_{};
    examples::UniqueFd input_{};  // a socket: who writes to a dead reader gets an error and no SIGPIPE
    examples::UniqueFd fds_[2]{};
    std::string texts_[2]{};
};

}  // namespace doctor
