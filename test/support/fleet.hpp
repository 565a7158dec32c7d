// SPDX-License-Identifier: Apache-2.0
// Many ranks on the emulated driver, as processes or in this one: everyone writes a word to everyone, and what it took
// is counted. Knows no test framework: the benchmark uses it too.
#pragma once

#include <cstddef>
#include <string>

namespace fabricmem::test {

/// What a fleet of processes did. The figures of ranks are the worst rank's, unless they are called otherwise.
struct FleetReport {
    unsigned int ranks = 0;
    unsigned int words_missing = 0;       ///< of all ranks and both buffers
    long mappings_by_device_imports = 0;  ///< kernel mappings more after importing everyone's device memory
    std::size_t descriptors = 0;          ///< open in a rank that holds all its imports
    std::size_t mappings = 0;             ///< of the kernel's, likewise
    std::size_t left_over = 0;            ///< allocations, handles and so on after the end, of all ranks
    unsigned int ended_badly = 0;         ///< ranks with another exit code than 0
    double seconds = 0;                   ///< from the first start to the last word seen
    double pss_kib_mean = 0;              ///< of a rank that holds all its imports and waits; 0: not known
    double pss_kib_most = 0;
};

/// Starts `ranks` processes, lets each import both buffers of all others, write and look. Throws std::runtime_error
/// where one does not answer within `seconds`.
[[nodiscard]] FleetReport run_fleet(const std::string& rank_program, unsigned int ranks, int seconds);

/// What many drivers in this process did.
struct CrowdReport {
    unsigned int ranks = 0;
    unsigned int words_missing = 0;
    unsigned int failures = 0;    ///< driver calls and buffers that failed
    std::size_t descriptors = 0;  ///< of emulated memory, with everything held
    std::size_t mappings = 0;     ///< kernel mappings of emulated memory, with everything held and written
    std::size_t left_over = 0;    ///< descriptors and mappings after the end
    double seconds = 0;
    double rss_kib_per_rank = 0;  ///< growth of this process's resident set, with everything held
};

/// Makes `ranks` drivers, each with one buffer on a device, each importing the next `peers` ones' and writing a word to
/// each; `threads` share the work.
[[nodiscard]] CrowdReport run_crowd(unsigned int ranks, unsigned int peers, unsigned int threads);

}  // namespace fabricmem::test
