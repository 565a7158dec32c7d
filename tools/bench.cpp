// SPDX-License-Identifier: Apache-2.0
// fabricmem-bench: what the library costs beside the driver calls that it makes.
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
        if (options.wants("import")) serve_import(driver, options, control);
        if (options.wants("pingpong")) serve_pingpong(driver, options, control);
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
        if (options.wants("import")) bench_import(driver, options, control, take);
        if (options.wants("pingpong")) bench_pingpong(driver, options, control, take);
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
    const std::optional<Cpus> cpus = cpus_near(*chosen.driver, options.device);
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
    if (options.wants("import")) bench_own_import(chosen.driver, options, take);
    if (options.wants("import") || options.wants("pingpong")) run_with_peer(chosen.driver, options, setting, take);
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
