// SPDX-License-Identifier: Apache-2.0
// What the program says: the first line, a table or a JSON document, progress. Measures nothing itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/deadline.hpp"
#include "pingpong_options.hpp"

namespace pingpong {

/// What the first line tells.
struct Introduction {
    std::string driver;        ///< "cuda"
    std::string place;         ///< of an emulated fabric: "scenario two-racks, node rack0-node1"; else empty
    std::string device_name;   ///< "NVIDIA H100 80GB HBM3"
    int device = 0;            ///< its ordinal
    std::string memory;        ///< where the memory is: "device 0", "host NUMA node 0"
    std::string handle_kinds;  ///< "fabric"
    std::string refused;       ///< what the real driver answered where `auto` did not take it; else empty
};

/// What the round trips of one size came to.
struct Result {
    std::size_t bytes = 0;
    std::uint32_t rounds = 0;
    double min_us = 0;
    double median_us = 0;
    double p99_us = 0;

    /// Both ways' bytes by the median round trip.
    [[nodiscard]] double bytes_per_second() const noexcept {
        return 2.0 * static_cast<double>(bytes) / (median_us * 1e-6);
    }
};

/// `round_trips_us` is not empty.
[[nodiscard]] Result summarize(std::size_t bytes, std::vector<double> round_trips_us);

/// Where lines go: a table on stdout as results come, or all of it in one JSON document at the end.
class Report {
public:
    explicit Report(const Options& options) : options_(options) {}

    void introduce(Introduction introduction);
    /// "listening at 127.0.0.1:4711".
    void say_listening(std::string_view host, std::uint16_t port) const;
    void say_processes(long own, long peer) const;
    void add(const Result& result);
    /// The last word: every byte of `rounds` rounds, `bytes` in all, was checked by both sides.
    void end_well(std::uint64_t rounds, std::uint64_t bytes) const;
    /// One line on stderr, and a document for --json.
    void end_badly(std::string_view error) const;

private:
    [[nodiscard]] bool silent() const noexcept { return options_.spawned; }

    const Options& options_;
    Introduction introduction_;
    std::vector<Result> results_;
};

/// Shows how far things are once they take more than two seconds: on a terminal in one line that is written over, else
/// a line every two seconds. On stderr.
class Progress {
public:
    Progress(const Options& options, std::uint64_t rounds);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    void begin_size(std::size_t bytes) noexcept { bytes_ = bytes; }
    void count_round();
    /// Shows where the rounds are, if it is time to; for long waits within one.
    void tick();
    /// Takes the line off the terminal, so that others can write.
    void clear();

private:
    void show();

    const bool wanted_;
    const bool terminal_;
    const std::uint64_t rounds_;
    Clock::time_point next_;
    std::uint64_t done_ = 0;
    std::size_t bytes_ = 0;
    bool shown_ = false;
};

}  // namespace pingpong
