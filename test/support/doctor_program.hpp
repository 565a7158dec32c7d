// SPDX-License-Identifier: Apache-2.0
// What tests of fabricmem-doctor share: a run of it, a look into its JSON, a folder with a made-up machine.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/emulated_scenario.hpp>
#include <nlohmann/json.hpp>

#include "support/build.hpp"
#include "support/json_schema.hpp"
#include "support/pingpong_program.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

using Variables = std::map<std::string, std::string>;

/// --time-limit of runs in which something hangs: what does not hang has to be done by then, on a busy machine too.
inline const char* const kShortLimit = kSlowBuild ? "10" : "2";

/// Environment variables of the programs that are started while it lives.
class Environment {
public:
    explicit Environment(Variables variables) : variables_(std::move(variables)) {
        for (const auto& [name, value] : variables_) ::setenv(name.c_str(), value.c_str(), 1);
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;
    ~Environment() {
        for (const auto& [name, value] : variables_) ::unsetenv(name.c_str());
    }

private:
    Variables variables_;
};

/// A folder that goes with the test.
class DoctorFolder {
public:
    DoctorFolder() { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
    DoctorFolder(const DoctorFolder&) = delete;
    DoctorFolder& operator=(const DoctorFolder&) = delete;
    ~DoctorFolder() {
        std::error_code error;
        std::filesystem::remove_all(path_, error);
    }

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// A file and the folders that it is in; returns its path.
    std::string write(const std::string& name, const std::string& text) const {
        const std::filesystem::path file = path_ + "/" + name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
        return file.string();
    }
    [[nodiscard]] std::string write(const Scenario& scenario) const {
        return write("scenario.json", scenario.to_json());
    }

private:
    std::string path_ = "/tmp/fabricmem-doctor-test-XXXXXX";
};

/// What a run of the doctor came to.
struct DoctorRun {
    std::optional<int> code{};
    std::string out{};
    std::string err{};
};

inline DoctorRun run_doctor(const Arguments& arguments) {
    CapturedProcess program(Arguments{FABRICMEM_DOCTOR} + arguments);
    DoctorRun run;
    run.code = program.finish(kPatienceSeconds);
    run.out = program.out();
    run.err = program.err();
    return run;
}

/// The same with --json: document_of_run() holds the document against its schema.
struct DoctorDocument : DoctorRun {
    nlohmann::json document{};

    /// The ids of the checks in this state, in order.
    [[nodiscard]] std::vector<std::string> checks(const std::string& state) const {
        std::vector<std::string> ids;
        for (const auto& check : document.at("checks")) {
            if (check.at("state") == state) ids.push_back(check.at("id").get<std::string>());
        }
        return ids;
    }
    /// The finding about a check, the gravest one first.
    [[nodiscard]] nlohmann::json check(const std::string& id) const {
        for (const auto& check : document.at("checks")) {
            if (check.at("id") == id) return check;
        }
        return nullptr;
    }
    [[nodiscard]] std::string state(const std::string& id) const { return check(id).at("state").get<std::string>(); }
    [[nodiscard]] std::string reach(const std::string& place) const {
        for (const auto& found : document.at("places")) {
            if (found.at("place") == place) return found.at("reach").get<std::string>();
        }
        return "no such place";
    }
    [[nodiscard]] std::string verdict() const { return document.at("verdict").get<std::string>(); }
};

inline DoctorDocument document_of_run(DoctorRun done) {
    DoctorDocument run;
    static_cast<DoctorRun&>(run) = std::move(done);
    INFO(run.out << run.err);
    run.document = nlohmann::json::parse(run.out, nullptr, false);
    REQUIRE(run.document.is_object());
    static const JsonSchema schema = JsonSchema::from_file(FABRICMEM_SOURCE_DIR "/docs/doctor.schema.json");
    CHECK(schema.faults_of(run.document) == std::vector<std::string>());
    CHECK(run.document.at("exit_code").get<int>() == run.code);
    return run;
}

inline DoctorDocument ask_doctor(const Arguments& arguments) {
    return document_of_run(run_doctor(arguments + Arguments{"--json"}));
}

/// The doctor on the emulated driver, whatever the scenario.
inline DoctorDocument ask_doctor_on(const std::string& scenario, const Arguments& arguments = {}) {
    return ask_doctor(Arguments{"--driver", "emulated", "--scenario", scenario} + arguments);
}

}  // namespace fabricmem::test
