// SPDX-License-Identifier: Apache-2.0
// What tests of fabricmem-warmup share: a folder for all that it may leave behind, a run of it, a look into its report.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>
#include <nlohmann/json.hpp>

#include "support/pingpong_program.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

/// TMPDIR of the programs that are started while it lives, with a scenario and a store beside.
class WarmupFolder {
public:
    WarmupFolder() {
        REQUIRE(::mkdtemp(path_.data()) != nullptr);
        std::filesystem::create_directory(path_ + "/tmp");
        ::setenv("TMPDIR", (path_ + "/tmp").c_str(), 1);
    }
    WarmupFolder(const WarmupFolder&) = delete;
    WarmupFolder& operator=(const WarmupFolder&) = delete;
    ~WarmupFolder() {
        ::unsetenv("TMPDIR");
        std::error_code error;
        std::filesystem::remove_all(path_, error);
    }

    /// The path of the scenario as a file.
    [[nodiscard]] std::string write(const Scenario& scenario) const {
        std::ofstream(path_ + "/scenario.json") << scenario.to_json();
        return path_ + "/scenario.json";
    }
    [[nodiscard]] std::string store() const { return path_ + "/store"; }
    [[nodiscard]] std::string switches() const { return path_ + "/switches"; }
    [[nodiscard]] std::size_t keys() const { return entries(store()); }
    [[nodiscard]] std::size_t left() const { return entries(path_ + "/tmp"); }

private:
    static std::size_t entries(const std::string& path) {
        std::error_code error;
        const std::filesystem::directory_iterator files(path, error);
        return error ? 0 : static_cast<std::size_t>(std::distance(begin(files), end(files)));
    }

    std::string path_ = "/tmp/fabricmem-warmup-test-XXXXXX";
};

/// What a run with --json came to.
struct WarmupRun {
    std::optional<int> code;
    std::string err;
    nlohmann::json document;

    /// How a rank that reported sees another.
    [[nodiscard]] nlohmann::json peer(std::size_t from, std::size_t to) const {
        return document.at("reports").at(from).at("report").at("peers").at(to);
    }
    [[nodiscard]] std::string stage(std::size_t from, std::size_t to) const {
        return peer(from, to).at("stage").get<std::string>();
    }
    [[nodiscard]] std::string kind(std::size_t from, std::size_t to) const {
        const nlohmann::json seen = peer(from, to);
        return seen.contains("error") ? seen["error"]["kind"].get<std::string>() : std::string("no error");
    }
    /// Whether all but `others` are connected with each other.
    [[nodiscard]] bool rest_is_connected(std::size_t ranks, const std::set<std::size_t>& others) const {
        for (std::size_t from = 0; from < ranks; ++from) {
            for (std::size_t to = 0; to < ranks; ++to) {
                if (from == to || others.count(from) != 0 || others.count(to) != 0) continue;
                if (stage(from, to) != "connected") return false;
            }
        }
        return true;
    }
    /// What all ranks but `others` say of one that they can't reach; "connected" where they can.
    [[nodiscard]] std::set<std::string> said_of(std::size_t to, std::size_t ranks,
                                                const std::set<std::size_t>& others) const {
        std::set<std::string> kinds;
        for (std::size_t from = 0; from < ranks; ++from) {
            if (others.count(from) == 0) kinds.insert(stage(from, to) == "connected" ? "connected" : kind(from, to));
        }
        return kinds;
    }
};

inline Arguments warmup(const Arguments& arguments) {
    return Arguments{FABRICMEM_WARMUP, "--driver", testing_cuda() ? "cuda" : "emulated"} + arguments;
}

inline WarmupRun run_warmup(const Arguments& arguments) {
    CapturedProcess program(warmup(arguments + Arguments{"--json"}));
    WarmupRun run;
    run.code = program.finish(kPatienceSeconds);
    run.err = program.err();
    INFO(program.err());
    run.document = nlohmann::json::parse(program.out(), nullptr, false);
    REQUIRE(run.document.is_object());
    return run;
}

}  // namespace fabricmem::test
