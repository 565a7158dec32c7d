// SPDX-License-Identifier: Apache-2.0
// fabricmem-bench: what the library costs beside the driver calls that it makes.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/cases.hpp"
#include "bench/options.hpp"
#include "bench/pin.hpp"
#include "bench/report.hpp"
#include "common/process.hpp"
#include "common/text.hpp"
#include "pingpong_gpu.hpp"
#include "pingpong_setup.hpp"
#include "pingpong_wire.hpp"

namespace bench {
namespace {

constexpr std::chrono::seconds kTimeout{300};  // of each wait for the other process: a case of many rounds takes long

/// Cases of two processes, in the order in which both come to them.
struct SharedCase {
    const char* name;
    void (*bench)(const std::shared_ptr<fabricmem::Driver>&, const Options&, pingpong::Control&, const Take&);
    void (*serve)(const std::shared_ptr<fabricmem::Driver>&, const Options&, pingpong::Control&);
};
constexpr std::array kSharedCases{
    SharedCase{"import", bench_import, serve_import}, SharedCase{"peers", bench_peers, serve_peers},
    SharedCase{"flags", bench_flags, serve_flags}, SharedCase{"bandwidth", bench_bandwidth, serve_bandwidth},
    SharedCase{"pingpong", bench_pingpong, serve_pingpong}};

bool wants_peer(const Options& options) {
    return std::any_of(kSharedCases.begin(), kSharedCases.end(),
                       [&](const SharedCase& one) { return options.wants(one.name); });
}

/// Null where no context is wanted.
std::unique_ptr<const pingpong::CurrentContext> hold_context(const std::shared_ptr<fabricmem::Driver>& driver,
                                                             const Options& options) {
    if (options.context == Context::none) return nullptr;
    return std::make_unique<const pingpong::CurrentContext>(driver, options.device);
}

/// The second process: does its part of the same cases, in the same order. Returns the exit code.
int serve(const Options& options) {
    const examples::Deadline deadline(kTimeout);
    pingpong::Control control(pingpong::connect_to({.port = options.connect_port}, deadline), kTimeout);
    try {
        const auto driver = examples::choose_driver(options.driver, fabricmem::Location::device(options.device)).driver;
        const auto context = hold_context(driver, options);
        if (!options.cpus.empty()) pin_to(cpus_of(options.cpus));
        for (const SharedCase& one : kSharedCases) {
            if (options.wants(one.name)) one.serve(driver, options, control);
        }
        return 0;
    } catch (const std::exception& error) {
        if (!control.say_failure(error.what())) throw;
        return 1;  // the first process does the talking
    }
}

std::vector<std::string> serving_arguments(const Options& options, const Setting& setting, std::uint16_t port) {
    std::vector<std::string> arguments{"--connect-port", std::to_string(port),
                                       "--driver",       setting.driver,
                                       "--device",       std::to_string(options.device),
                                       "--rounds",       std::to_string(options.rounds),
                                       "--runs",         std::to_string(options.runs),
                                       "--context",      options.context == Context::held ? "held" : "none"};
    if (!options.only.empty()) arguments.insert(arguments.end(), {"--only", options.only});
    if (setting.cpus) arguments.insert(arguments.end(), {"--cpus", to_text(setting.cpus->second)});
    return arguments;
}

void run_with_peer(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Setting& setting,
                   const Take& take) {
    const pingpong::Listener listener({});
    examples::PeerProcess peer(serving_arguments(options, setting, listener.endpoint().port));
    pingpong::Control control(listener.accept(examples::Deadline(kTimeout), peer.ended_fd()), kTimeout);
    try {
        for (const SharedCase& one : kSharedCases) {
            if (options.wants(one.name)) one.bench(driver, options, control, take);
        }
    } catch (const std::exception& error) {
        control.say_failure(error.what());
        throw;
    }
    peer.expect_success(examples::Deadline(kTimeout));
}

void run(const Options& options) {
    const examples::ChosenDriver chosen =
        examples::choose_driver(options.driver, fabricmem::Location::device(options.device));
    const auto context = hold_context(chosen.driver, options);
    const CpuList all_cpus = allowed_cpus();
    std::optional<Cpus> cpus;
    if (options.pin == Pin::yes) cpus = cpus_near(*chosen.driver, options.device);
    if (cpus) pin_to(cpus->first);  // not before: the driver's own threads stay free
    const Setting setting = setting_of(*chosen.driver, options.device, cpus, chosen.refused);
    const bool table = !options.json || !options.json_file.empty();
    if (table) print_setting(setting, options);

    std::vector<Comparison> comparisons;
    const Take take = [&](const Comparison& comparison) {
        if (table) print_row(comparison);
        comparisons.push_back(comparison);
    };
    if (options.wants("blob")) bench_blob(chosen.driver, options, take);
    if (options.wants("lifecycle")) bench_lifecycle(chosen.driver, options, take);
    if (options.wants("allocate")) bench_allocate(chosen.driver, options, take);
    if (options.wants("arena")) bench_arena(chosen.driver, options, take);
    if (options.wants("cache")) bench_cache(chosen.driver, options, all_cpus, take);
    if (options.wants("import")) bench_own_import(chosen.driver, options, take);
    if (wants_peer(options)) run_with_peer(chosen.driver, options, setting, take);
    if (options.json) print_json(setting, options, comparisons);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        const bench::Options options = bench::parse_options(arguments);
        if (options.help) {
            examples::print(stdout, "{}", bench::help_text());
        } else if (options.connect_port != 0) {
            return bench::serve(options);
        } else {
            bench::run(options);
        }
        return 0;
    } catch (const examples::WrongOption& wrong) {
        examples::print(stderr, "fabricmem-bench: {} (see --help)\n", wrong.what());
        return 2;
    } catch (const std::exception& error) {
        examples::print(stderr, "fabricmem-bench: error: {}\n", error.what());
        return 1;
    }
}
