// SPDX-License-Identifier: Apache-2.0
// Asks the driver what the emulator had to invent (test/measure/). `driver_measure_test "[.measure]"` on a machine with
// a GPU prints the real driver's answers beside the emulated one's.
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support/channel_peer.hpp"
#include "support/child_process.hpp"
#include "support/test.hpp"

using namespace fabricmem::test;

namespace {

constexpr const char* kNoDriver = "no driver";
constexpr int kSeconds = 60;
constexpr int kSecondsForAHang = 20;

struct Answered {
    std::vector<std::string> keys;  // in their order
    std::map<std::string, std::string> answers;
    bool ended_well = false;
};

std::vector<std::string> all_questions() {
    ChildProcess process({FABRICMEM_TEST_MEASURE, "--list"});
    std::vector<std::string> names;
    while (const auto line = process.read_line(in_seconds(kSeconds))) names.push_back(*line);
    return names;
}

// A line whose answer never came ("KEY = " and no end) is what the process died of, or hangs in.
Answered ask(const std::string& question, const char* driver, int seconds) {
    ChildProcess process({FABRICMEM_TEST_MEASURE, question}, {{"FABRICMEM_TEST_DRIVER", driver}});
    Answered answered;
    const auto add = [&](const std::string& line) {
        const std::size_t end = line.rfind(" = ");
        const std::string key = line.substr(0, end);
        answered.keys.push_back(key);
        answered.answers[key] = end == std::string::npos ? "" : line.substr(end + 3);
    };
    while (const auto line = process.read_line(in_seconds(seconds))) add(*line);
    const std::optional<Ended> ended = process.wait(in_seconds(1));
    answered.ended_well = ended == Ended{0, 0};
    if (answered.ended_well) return answered;
    const std::string end = !ended               ? "hangs"
                            : ended->signal != 0 ? "signal " + std::to_string(ended->signal)
                                                 : "exit " + std::to_string(ended->exit_code);
    add((process.rest().empty() ? "the end = " : process.rest()) + end);
    return answered;
}

std::string of(const Answered& answered, const std::string& key) {
    const auto found = answered.answers.find(key);
    return found == answered.answers.end() ? "-" : found->second;
}

void print_beside(const std::string& question, const Answered& emulated, const Answered& real) {
    std::vector<std::string> keys = emulated.keys;
    for (const std::string& key : real.keys) {
        if (emulated.answers.count(key) == 0) keys.push_back(key);
    }
    std::printf("== %s\n", question.c_str());
    for (const std::string& key : keys) {
        const std::string left = of(emulated, key);
        const std::string right = of(real, key);
        std::printf("%s %s: emulated %s, real %s\n", left == right ? " " : "!", key.c_str(), left.c_str(),
                    right.c_str());
    }
    std::fflush(stdout);
}

}  // namespace

TEST_CASE("The emulated driver answers every question that is measured, each time the same", "[measure]") {
    const std::vector<std::string> questions = all_questions();
    CHECK(questions.size() > 80);
    for (const std::string& question : questions) {
        CAPTURE(question);
        if (question.rfind("cuMemFree", 0) == 0) continue;  // hangs on both: emulated_stream_test.cpp
        const Answered first = ask(question, "emulated", kSeconds);
        CHECK(!first.keys.empty());
        CHECK(first.answers == ask(question, "emulated", kSeconds).answers);
        if (question != "read access alone, by the CPU") CHECK(first.ended_well);
    }
}

TEST_CASE("What the real driver answers beside the emulated one", "[.measure]") {
    const std::vector<std::string> questions = all_questions();
    const Answered tried = ask(questions.front(), "cuda", kSeconds);
    if (tried.answers.count(kNoDriver) != 0) FABRICMEM_SKIP(tried.answers.at(kNoDriver));
    for (const std::string& question : questions) {
        print_beside(question, ask(question, "emulated", kSeconds), ask(question, "cuda", kSecondsForAHang));
    }
}

// A process gets one channel for life, by reports the first that it can open. Set FABRICMEM_TEST_DRIVER=cuda.
TEST_CASE("Which of two channels is a process's", "[.measure]") {
    for (const char* const channels : {"0,1", "1,0"}) {
        for (const char* const importers : {"0", "1"}) {
            FABRICMEM_CHANNEL_PEER_OR_SKIP(exporter, channels);
            FABRICMEM_CHANNEL_PEER_OR_SKIP(importer, importers);
            std::printf("exporter with %s, importer with %s: %d\n", channels, importers,
                        importer->code("import 0 " + to_hex(exporter->export_memory())));
        }
    }
}
