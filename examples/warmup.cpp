// SPDX-License-Identifier: Apache-2.0
// fabricmem-warmup: processes meet, prove that they reach each other, and tell who is connected to whom. This file is
// the story of the process that starts the others; theirs is in warmup/rank.cpp.
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/version.hpp>

#include "common/arguments.hpp"
#include "common/deadline.hpp"
#include "common/text.hpp"
#include "warmup/fleet.hpp"
#include "warmup/keys.hpp"
#include "warmup/matrix.hpp"
#include "warmup/options.hpp"
#include "warmup/rank.hpp"
#include "warmup/report.hpp"
#include "warmup/site.hpp"

namespace warmup {
namespace {

constexpr auto kSetUpStep = "finding a driver and the store";
constexpr std::chrono::milliseconds kPatienceWithStore{10'000};

/// Runs the ranks, and leaves none of them and none of their keys behind, however that ends. Returns what else was.
std::vector<std::string> run_fleet(Fleet& fleet, const std::string& store, const fabricmem::Id128& job) {
    std::vector<bool> expected_to_clean(fleet.stories().size(), false);
    try {
        fleet.run();
    } catch (...) {
        fleet.kill_all();
        (void)clean(store, job, expected_to_clean, kPatienceWithStore);
        throw;
    }
    for (std::size_t rank = 0; rank < expected_to_clean.size(); ++rank)
        expected_to_clean[rank] = !fleet.stories()[rank].closed.is_null();
    return clean(store, job, expected_to_clean, kPatienceWithStore);
}

int start(const Options& options) {
    const Signals signals;  // before there are threads of the driver's, which would take them
    std::optional<examples::Watchdog> watchdog(std::in_place, kSetUpStep, options.deadline);
    const Site site(options);
    if (!options.store.empty()) (void)fabricmem::make_store(options.store);  // one error, not one of each rank
    watchdog.reset();
    std::optional<TemporaryDirectory> directory;
    if (options.store.empty()) directory.emplace();
    const std::string store = directory ? "dir:" + directory->path() : options.store;
    print_first_line(options, site, store);
    const fabricmem::Id128 job = new_job();
    Fleet fleet(options, site, signals, store, job);
    const std::vector<std::string> left = run_fleet(fleet, store, job);
    directory.reset();
    const Matrix matrix(fleet.stories());
    const Report report(options, site, fleet, matrix, left);
    report.print();
    return report.is_good() ? 0 : 1;
}

int start_or_fail(const Options& options) {
    ::signal(SIGPIPE, SIG_IGN);  // a reader that goes away is a failed write, and all is cleaned up
    int interrupted = 0;
    try {
        return start(options);
    } catch (const Interrupted& interruption) {
        examples::print(stderr, "fabricmem-warmup: {}\n", interruption.what());
        interrupted = interruption.signal();
    } catch (const std::exception& error) {
        print_failure(options, error.what());
    }
    if (interrupted != 0) ::raise(interrupted);
    return 1;
}

}  // namespace
}  // namespace warmup

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        const warmup::Options options = warmup::parse_options(arguments);
        if (options.help) {
            examples::print(stdout, "{}", warmup::help_text());
            return 0;
        }
        if (options.version) {
            const fabricmem::Version version = fabricmem::library_version();
            examples::print(stdout, "fabricmem-warmup {}.{}.{}\n", version.major, version.minor, version.patch);
            return 0;
        }
        return options.task ? warmup::run_rank(options) : warmup::start_or_fail(options);
    } catch (const examples::WrongOption& wrong) {
        examples::print(stderr, "fabricmem-warmup: {} (see --help)\n", wrong.what());
        return 2;
    } catch (const std::exception& error) {  // stdout is closed, say
        examples::print(stderr, "fabricmem-warmup: error: {}\n", error.what());
        return 1;
    }
}
