// SPDX-License-Identifier: Apache-2.0
// fabricmem-bench runs through and says what it measured. Not how fast anything is: that is for a quiet machine.
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "support/pingpong_program.hpp"
#include "support/test.hpp"

using namespace fabricmem::test;

#if defined(FABRICMEM_BENCH)

namespace {

Arguments bench(const Arguments& arguments) {
    return Arguments{FABRICMEM_BENCH, "--driver", testing_cuda() ? "cuda" : "emulated"} + arguments;
}

/// What it says of few rounds.
nlohmann::json json_of(const Arguments& arguments) {
    CapturedProcess program(bench(arguments + Arguments{"--rounds", "3", "--runs", "2", "--json"}));
    CHECK(program.finish(kPatienceSeconds) == 0);
    CHECK(program.err() == "");
    return nlohmann::json::parse(program.out());
}

bool starts_with(const std::string& text, const std::string& part) { return text.rfind(part, 0) == 0; }

void check_series(const nlohmann::json& series) {
    CHECK(series["run_medians_us"].size() == 2);
    CHECK(series["least_us"].get<double>() > 0);
    CHECK(series["least_us"].get<double>() <= series["median_us"].get<double>());
    CHECK(series["median_us"].get<double>() <= series["most_us"].get<double>());
}

void check_goal(const nlohmann::json& goal) {
    CAPTURE(goal["what"].get<std::string>());
    const auto measured = goal["measured"].get<double>();
    const auto limit = goal["limit"].get<double>();
    const bool met = goal["sense"].get<std::string>() == "at most" ? measured <= limit : measured >= limit;
    CHECK(goal["met"].get<bool>() == met);
}

bool is_alone(const std::string& name) {
    return name == "blob" || starts_with(name, "arena") || starts_with(name, "cache") || starts_with(name, "flags");
}

/// What is measured on every driver; bandwidths are of smaller copies where the driver is emulated.
std::set<std::string> all_names() {
    std::set<std::string> names{"blob", "arena block", "cache hit", "cache translate", "cache hit, 1 thread"};
    for (const char* name : {"lifecycle", "import own", "import"}) {
        for (const char* place : {"/device", "/host"}) {
            names.insert(std::string(name) + place);
            names.insert(std::string("null ") + name + place);
        }
    }
    for (const char* mode : {"stream/device", "stream/host", "copy/device", "copy/host", "cpu/host"}) {
        names.insert(std::string("pingpong ") + mode);
    }
    for (const char* bytes : {"2 MiB", "32 MiB", "512 MiB", "4 GiB"}) names.insert(std::string("allocate ") + bytes);
    for (const char* count : {"2", "4", "8", "16"}) names.insert(std::string("cache hit, ") + count + " threads");
    for (const char* count : {"1", "8", "72", "512"}) names.insert(std::string("peers ") + count + " x 8 regions");
    for (const char* bytes : {"4", "64"}) {
        for (const char* way : {"copies/device", "copies/host", "cpu/host"}) {
            names.insert(std::string("flags ") + bytes + " B " + way);
        }
    }
    for (const int mib : {1, 16, 256, 1024}) {
        if (mib > 16 && !testing_cuda()) continue;
        for (const char* place : {"/device", "/host"}) {
            names.insert("bandwidth " + std::to_string(mib) + " MiB" + place);
        }
    }
    return names;
}

}  // namespace

TEST_CASE("The bench measures every case, library beside raw", "[bench][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const nlohmann::json document = json_of({});
    CHECK(document["driver"].get<std::string>() == (testing_cuda() ? "cuda" : "emulated"));
    CHECK(document["caveat"].is_null() == testing_cuda());
    CHECK(document["context"].get<std::string>() == "held");
    std::set<std::string> names;
    for (const auto& result : document["results"]) {
        const auto name = result["name"].get<std::string>();
        CAPTURE(name);
        names.insert(name);
        CHECK(result["what"].is_string());
        if (result.contains("skipped")) {
            CHECK(testing_cuda());  // a GPU may have no room; an emulated one has
            continue;
        }
        check_series(result["library"]);
        CHECK(result.contains("raw") == !is_alone(name));
        if (result.contains("raw")) check_series(result["raw"]);
        const bool in_turns = !is_alone(name) && !starts_with(name, "pingpong");
        CHECK(result.contains("difference") == in_turns);
        CHECK(result.contains("own_us") == (contains(name, "lifecycle") || contains(name, "import")));
        if (starts_with(name, "pingpong")) check_series(result["beside"]["raw, the flag alone"]);
        for (const auto& beside : result.value("beside", nlohmann::json::object())) check_series(beside);
        for (const auto& goal : result.value("goals", nlohmann::json::array())) check_goal(goal);
    }
    CHECK(names == all_names());
}

TEST_CASE("The bench counts one import for each peer, however many regions it has", "[bench][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const nlohmann::json document = json_of({"--only", "peers"});
    for (const auto& result : document["results"]) {
        const auto name = result["name"].get<std::string>();
        CAPTURE(name);
        if (result.contains("skipped")) continue;
        const double peers = std::stod(name.substr(name.find(' ')));
        CHECK(result["figures"]["imports"].get<double>() == peers);
        CHECK(result["figures"]["driver calls"].get<double>() == result["figures"]["driver calls, raw"].get<double>());
        for (const auto& goal : result["goals"]) {
            if (!contains(goal["what"].get<std::string>(), "time")) CHECK(goal["met"].get<bool>());
        }
    }
}

TEST_CASE("The bench says what it could not measure beside the library", "[bench]") {
    const nlohmann::json document = json_of({"--driver", "emulated", "--only", "allocate"});
    CHECK(document["results"].size() == 4);
    for (const auto& result : document["results"]) {
        CHECK(contains(result["skipped_beside"]["ncclMemAlloc"].get<std::string>(), "not a real driver"));
    }
}

TEST_CASE("The bench stays on no CPU where it is told so", "[bench]") {
    for (const Arguments& pin : {Arguments{"--no-pin"}, Arguments{"--pin", "no"}}) {
        const nlohmann::json document = json_of(Arguments{"--driver", "emulated", "--only", "flags"} + pin);
        CHECK(document["cpus"].is_null());
        CHECK(document["results"].size() == 6);
    }
}

TEST_CASE("The bench takes one case alone and answers a wrong option with one line", "[bench]") {
    CapturedProcess alone(
        {FABRICMEM_BENCH, "--driver", "emulated", "--only", "lifecycle", "--rounds", "2", "--context", "none"});
    CHECK(alone.finish(kPatienceSeconds) == 0);
    CHECK(contains(alone.out(), "no context is held"));
    CHECK(contains(alone.out(), "caveat: not a real driver"));
    CHECK(contains(alone.out(), "lifecycle/host"));
    CHECK_FALSE(contains(alone.out(), "import"));

    CapturedProcess wrong({FABRICMEM_BENCH, "--only", "everything"});
    CHECK(wrong.finish(kPatienceSeconds) == 2);
    CHECK(lines_of(wrong.err()).size() == 1);
    CHECK(contains(wrong.err(), "--only: 'everything'"));
}

#else

TEST_CASE("The bench runs through", "[bench]") { FABRICMEM_SKIP("built without the tools"); }

#endif
