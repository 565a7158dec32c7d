// SPDX-License-Identifier: Apache-2.0
// Many ranks on the emulated driver, within the limits that a process has by default.
#include <sys/resource.h>

#include <string>

#include "support/build.hpp"
#include "support/fleet.hpp"
#include "support/test.hpp"

using namespace fabricmem::test;

namespace {

constexpr int kPatienceSeconds = 110;
constexpr rlim_t kDefaultDescriptors = 1024;
constexpr std::size_t kDefaultMappings = 65'530;

// This process's limit of descriptors, which those that it starts inherit. The test runner gives each case its own.
void keep_to_default_descriptors() {
    rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < kDefaultDescriptors ? limit.rlim_max : kDefaultDescriptors;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

// `full`, or `few` where the build or what runs it is slow, and says so.
unsigned int ranks_here(unsigned int full, unsigned int few) {
    if (!kSlowBuild) return full;
    WARN(few << " ranks in place of " << full << ": this build is slow");
    return few;
}

}  // namespace

TEST_CASE("72 processes that all import from all see every word, within a process's default limits", "[scale]") {
    keep_to_default_descriptors();
    const unsigned int ranks = ranks_here(72, kEmulatedCpu ? 3 : 8);
    const FleetReport report = run_fleet(FABRICMEM_TEST_RANK, ranks, kPatienceSeconds);
    INFO("took " << report.seconds << " s, PSS " << report.pss_kib_mean << " KiB (most " << report.pss_kib_most << ")");
    CHECK(report.words_missing == 0);
    // Its heap may grow by a mapping or two meanwhile; a mapping for each import would be one for each rank.
    if (!kSlowBuild) CHECK(report.mappings_by_device_imports <= 8);
    // Own and imported memory, one descriptor each; some for the process itself.
    CHECK(report.descriptors <= 2 * ranks + 16);
    CHECK(report.mappings < kDefaultMappings);
    CHECK(report.left_over == 0);
    CHECK(report.ended_badly == 0);
}

TEST_CASE("576 ranks of one process each import 8 peers within 1,024 descriptors", "[scale]") {
    keep_to_default_descriptors();
    const unsigned int ranks = ranks_here(576, kEmulatedCpu ? 24 : 72);
    const CrowdReport report = run_crowd(ranks, 8, 2);
    INFO("took " << report.seconds << " s");
    CHECK(report.failures == 0);
    CHECK(report.words_missing == 0);
    CHECK(report.descriptors == ranks);
    CHECK(report.mappings == ranks);  // an alias of each, and none of the imports' own
    CHECK(report.left_over == 0);
}
