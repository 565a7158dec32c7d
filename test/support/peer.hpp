// SPDX-License-Identifier: Apache-2.0
// Talks to fabricmem_test_peer, whose path is FABRICMEM_TEST_PEER (environment, else the macro of that name).
#pragma once

#include <cstdlib>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/child_process.hpp"
#include "support/driver_kit.hpp"

namespace fabricmem::test {

inline constexpr int kPeerSeconds = 60;

[[nodiscard]] inline std::string peer_path() {
    if (const char* const path = std::getenv("FABRICMEM_TEST_PEER")) return path;
#if defined(FABRICMEM_TEST_PEER)
    return FABRICMEM_TEST_PEER;
#else
    return {};
#endif
}

struct PeerAnswer {
    int code = -1;  ///< the CUresult; -1 where no answer came
    std::vector<std::string> values;
};

/// The peer has no driver, or can't have what its options ask for.
class PeerRefused : public std::runtime_error {
public:
    PeerRefused(const std::string& reason, int code) : std::runtime_error(reason), code_(code) {}
    /// The driver's answer; 0 where it was never asked.
    [[nodiscard]] int code() const noexcept { return code_; }

private:
    int code_;
};

class Peer {
public:
    explicit Peer(const std::vector<std::string>& options = {},
                  const std::map<std::string, std::string>& environment = {})
        : process_(command_line(options), environment) {
        const std::string greeting = process_.read_line(in_seconds(kPeerSeconds)).value_or("nothing");
        if (greeting == "ready") return;
        std::istringstream words(greeting);
        std::string word;
        int code = 0;
        if (words >> word >> code && word == "refused") throw PeerRefused("the peer says: " + greeting, code);
        throw std::runtime_error("the peer did not start: " + greeting);
    }

    PeerAnswer ask(const std::string& line) {
        PeerAnswer answer;
        if (!process_.send_line(line)) return answer;
        const auto reply = process_.read_line(in_seconds(kPeerSeconds));
        if (!reply) return answer;
        std::istringstream words(*reply);
        if (!(words >> answer.code)) throw std::runtime_error("the peer says: " + *reply);
        for (std::string word; words >> word;) answer.values.push_back(word);
        return answer;
    }
    int code(const std::string& line) { return ask(line).code; }

    /// Memory that the peer makes and keeps in its slot 0.
    FabricBytes export_memory(const std::string& place = "device") {
        const PeerAnswer answer = ask("export 0 " + place + " 8");
        if (answer.code != 0) throw std::runtime_error("the peer's export failed");
        return from_hex(answer.values.at(0));
    }

    /// Ends it without tear-down and waits for that.
    Ended leave() {
        process_.send_line("exit");
        return process_.wait(in_seconds(kPeerSeconds)).value_or(Ended{});
    }

    [[nodiscard]] ChildProcess& process() { return process_; }

private:
    static std::vector<std::string> command_line(const std::vector<std::string>& options) {
        std::vector<std::string> all{peer_path()};
        all.insert(all.end(), options.begin(), options.end());
        return all;
    }

    ChildProcess process_;
};

}  // namespace fabricmem::test

/// Ends the test case as skipped where the helper program is not there.
#define FABRICMEM_PEER_OR_SKIP() \
    if (fabricmem::test::peer_path().empty()) FABRICMEM_SKIP("FABRICMEM_TEST_PEER is not set")
