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

}  // namespace

TEST_CASE("The bench measures every case, library beside raw", "[bench][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CapturedProcess program(bench({"--rounds", "3", "--runs", "2", "--json"}));
    CHECK(program.finish(kPatienceSeconds) == 0);
    CHECK(program.err() == "");
    const auto document = nlohmann::json::parse(program.out());
    CHECK(document["driver"].get<std::string>() == (testing_cuda() ? "cuda" : "emulated"));
    CHECK(document["caveat"].is_null() == testing_cuda());
    CHECK(document["context"].get<std::string>() == "held");
    std::set<std::string> names;
    for (const auto& result : document["results"]) {
        const auto name = result["name"].get<std::string>();
        CAPTURE(name);
        names.insert(name);
        CHECK(result["library"]["run_medians_us"].size() == 2);
        CHECK(result["library"]["least_us"].get<double>() <= result["library"]["most_us"].get<double>());
        if (name != "blob") CHECK(result["raw"]["median_us"].get<double>() > 0);
        const bool in_turns = name != "blob" && name.rfind("pingpong", 0) != 0;
        if (in_turns) {
            CHECK(result["difference"]["run_medians_us"].size() == 2);
            CHECK(result["own_us"]["difference"]["run_medians_us"].size() == 2);
        } else if (name != "blob") {
            CHECK(result["beside"]["raw, the flag alone"]["median_us"].get<double>() > 0);
        }
    }
    CHECK(names == std::set<std::string>{
                       "null lifecycle/device", "null lifecycle/host", "null import own/device", "null import own/host",
                       "null import/device", "null import/host", "blob", "lifecycle/device", "lifecycle/host",
                       "import own/device", "import own/host", "import/device", "import/host", "pingpong stream/device",
                       "pingpong stream/host", "pingpong copy/device", "pingpong copy/host", "pingpong cpu/host"});
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
