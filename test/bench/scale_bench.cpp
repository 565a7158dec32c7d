// SPDX-License-Identifier: Apache-2.0
// What ranks on the emulated driver take in time and memory, as processes and in one process: a table on stdout, no
// assertions. Always the emulated driver. A benchmark, not a test; build it optimised.
#include <cstdio>

#include "support/fleet.hpp"

namespace {

using namespace fabricmem::test;

constexpr int kPatienceSeconds = 300;

void processes(unsigned int ranks) {
    const FleetReport report = run_fleet(FABRICMEM_TEST_RANK, ranks, kPatienceSeconds);
    std::printf("| %u processes, all to all | %.2f | %.1f | %.0f (most %.0f) KiB PSS | %zu | %zu |\n", ranks,
                report.seconds, 1e3 * report.seconds / ranks, report.pss_kib_mean, report.pss_kib_most,
                report.descriptors, report.mappings);
}

void one_process(unsigned int ranks, unsigned int peers, unsigned int threads) {
    const CrowdReport report = run_crowd(ranks, peers, threads);
    std::printf("| %u ranks in one process, %u peers each, %u threads | %.2f | %.2f | %.0f KiB RSS | %zu | %zu |\n",
                ranks, peers, threads, report.seconds, 1e3 * report.seconds / ranks, report.rss_kib_per_rank,
                report.descriptors, report.mappings);
}

}  // namespace

int main() {
    std::printf("the emulated driver\n");
    std::printf("| what | s | ms a rank | memory a rank | descriptors a process | kernel mappings a process |\n");
    std::printf("| --- | --- | --- | --- | --- | --- |\n");
    for (const unsigned int ranks : {1U, 8U, 72U}) processes(ranks);
    one_process(576, 8, 1);
    one_process(576, 8, 2);
}
