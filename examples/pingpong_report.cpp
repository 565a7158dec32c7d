// SPDX-License-Identifier: Apache-2.0
// What the program says, for humans and as JSON.
#include "pingpong_report.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include <fabricmem/version.hpp>
#include <nlohmann/json.hpp>

#include "common/text.hpp"

namespace pingpong {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProgram = "fabricmem-pingpong";
constexpr std::chrono::seconds kProgressEvery{2};

/// Error texts may have been written by others.
std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

/// The least value that `share` of all are not above.
double percentile(const std::vector<double>& sorted, double share) {
    const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
    return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}

std::string size_text(std::size_t bytes) {
    constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB"};
    std::size_t unit = 0;
    while (unit + 1 < std::size(kUnits) && bytes >= 1024 && bytes % 1024 == 0) {
        bytes /= 1024;
        ++unit;
    }
    return formatted("{} {}", bytes, kUnits[unit]);
}

std::string first_line(const Introduction& introduction) {
    std::string line = formatted("{} driver, {}{}device {} ({}), memory on {}, handles: {}", introduction.driver,
                                 introduction.place, introduction.place.empty() ? "" : ", ", introduction.device,
                                 introduction.device_name, introduction.memory, introduction.handle_kinds);
    if (!introduction.refused.empty()) line += formatted("; the real driver was not taken: {}", introduction.refused);
    return one_line(std::move(line));
}

Json to_json(const Result& result) {
    return {{"bytes", result.bytes},
            {"rounds", result.rounds},
            {"round_trip_us", {{"min", result.min_us}, {"median", result.median_us}, {"p99", result.p99_us}}},
            {"bytes_per_second", result.bytes_per_second()}};
}

Json head(const Options& options) {
    return {{"program", kProgram},
            {"version", formatted("{}.{}.{}", fabricmem::library_version().major, fabricmem::library_version().minor,
                                  fabricmem::library_version().patch)},
            {"mode", to_string(options.mode)},
            {"location", to_string(options.location)}};
}

void print_document(const Json& document) {
    // What comes from outside may not be UTF-8.
    const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace);
    print(stdout, "{}\n", text);
    std::fflush(stdout);
}

}  // namespace

Result summarize(std::size_t bytes, std::vector<double> round_trips_us) {
    std::sort(round_trips_us.begin(), round_trips_us.end());
    return {.bytes = bytes,
            .rounds = static_cast<std::uint32_t>(round_trips_us.size()),
            .min_us = round_trips_us.front(),
            .median_us = percentile(round_trips_us, 0.5),
            .p99_us = percentile(round_trips_us, 0.99)};
}

void Report::introduce(Introduction introduction) {
    introduction_ = std::move(introduction);
    if (silent()) return;
    print(options_.json ? stderr : stdout, "{}\n", first_line(introduction_));
    std::fflush(stdout);
}

void Report::say_listening(std::string_view host, std::uint16_t port) const {
    print(options_.json ? stderr : stdout, "listening at {}:{}\n", host, port);
    std::fflush(stdout);
}

void Report::say_processes(long own, long peer) const {
    if (!silent() && options_.verbose) print(stderr, "this is process {}, the peer is process {}\n", own, peer);
}

void Report::add(const Result& result) {
    if (!options_.json) {
        if (results_.empty()) {
            print(stdout, "mode {}: round trip in microseconds; bandwidth: bytes both ways by the median round trip\n",
                  to_string(options_.mode));
            print(stdout, "{:>9} {:>8} {:>12} {:>12} {:>12} {:>12}\n", "size", "rounds", "min", "median", "p99",
                  "MB/s");
        }
        print(stdout, "{:>9} {:>8} {:>12.2f} {:>12.2f} {:>12.2f} {:>12.1f}\n", size_text(result.bytes), result.rounds,
              result.min_us, result.median_us, result.p99_us, result.bytes_per_second() / 1e6);
        std::fflush(stdout);
    }
    results_.push_back(result);
}

void Report::end_well(std::uint64_t rounds, std::uint64_t bytes) const {
    if (silent()) return;
    if (!options_.json) {
        print(stdout, "both sides checked every byte that arrived: {} rounds, {} bytes each way, none wrong\n", rounds,
              bytes);
        std::fflush(stdout);  // what is taken down next may hang, and the process then ends without it
        return;
    }
    Json document = head(options_);
    document["ok"] = true;
    document["role"] = options_.role == Role::connect ? "second" : "first";
    document["driver"] = introduction_.driver;
    if (!introduction_.place.empty()) document["emulated_place"] = introduction_.place;
    document["device"] = {{"ordinal", introduction_.device}, {"name", introduction_.device_name}};
    document["memory"] = introduction_.memory;
    document["handles"] = introduction_.handle_kinds;
    document["real_driver_answer"] = introduction_.refused.empty() ? Json() : Json(introduction_.refused);
    document["bandwidth"] = "bytes both ways by the median round trip";
    document["results"] = Json::array();
    for (const Result& result : results_) document["results"].push_back(to_json(result));
    document["checked"] = {{"rounds", rounds}, {"bytes_each_way", bytes}, {"wrong", 0}};
    print_document(document);
}

void Report::end_badly(std::string_view error) const {
    const std::string line = one_line(std::string(error));
    print(stderr, "{}: error: {}\n", kProgram, line);
    if (!options_.json || silent()) return;
    Json document = head(options_);
    document["ok"] = false;
    document["error"] = line;
    print_document(document);
}

Progress::Progress(const Options& options, std::uint64_t rounds)
    : wanted_(!options.spawned),
      terminal_(::isatty(STDERR_FILENO) != 0),
      rounds_(rounds),
      next_(Clock::now() + kProgressEvery) {}

Progress::~Progress() { clear(); }

void Progress::count_round() {
    ++done_;
    tick();
}

void Progress::tick() {
    if (wanted_ && Clock::now() >= next_) show();
}

void Progress::clear() {
    if (shown_ && terminal_) print(stderr, "\r\x1b[K");
    shown_ = false;
}

void Progress::show() {
    const double percent = 100.0 * static_cast<double>(done_) / static_cast<double>(rounds_);
    print(stderr, "{}{}: round {} of {} ({:.0f} %), at {}{}", terminal_ ? "\r\x1b[K" : "", kProgram, done_, rounds_,
          percent, size_text(bytes_), terminal_ ? "" : "\n");
    std::fflush(stderr);
    shown_ = true;
    next_ = Clock::now() + (terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(kProgressEvery));
}

}  // namespace pingpong
