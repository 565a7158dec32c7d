// SPDX-License-Identifier: Apache-2.0
// Times two ways to do a thing, in turns, so that whatever else the machine does meets both alike.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pingpong_deadline.hpp"

namespace bench {

/// The medians of some runs, in microseconds.
struct Series {
    std::vector<double> run_medians_us{};

    [[nodiscard]] double median() const;
    [[nodiscard]] double least() const;
    [[nodiscard]] double most() const;
};

[[nodiscard]] double median_of(std::vector<double> values);

/// One line of the result.
struct Comparison {
    std::string name;
    std::string what;
    Series library{};
    std::optional<Series> raw{};
    /// Library less raw, round by round: what drifts meets both of a round alike, so this tells microseconds apart
    /// where the calls themselves vary by hundreds.
    std::optional<Series> difference{};
};

/// How much of what is measured: `runs` runs of `rounds` rounds.
struct Amount {
    std::uint32_t rounds = 1000;
    std::uint32_t runs = 5;
};

template <class Call>
double time_us(Call& call) {
    const pingpong::Clock::time_point start = pingpong::Clock::now();
    call();
    return std::chrono::duration<double, std::micro>(pingpong::Clock::now() - start).count();
}

/// Each round calls both, and who comes first changes from round to round.
template <class Library, class Raw>
void measure_in_turns(const Amount& amount, Comparison& comparison, Library&& library, Raw&& raw) {
    constexpr std::uint32_t kWarmup = 20;
    comparison.raw.emplace();
    comparison.difference.emplace();
    for (std::uint32_t run = 0; run < amount.runs; ++run) {
        std::vector<double> library_us;
        std::vector<double> raw_us;
        std::vector<double> difference_us;
        for (std::uint32_t round = 0; round < kWarmup + amount.rounds; ++round) {
            const bool library_first = round % 2 == 0;
            const double first = library_first ? time_us(library) : time_us(raw);
            const double second = library_first ? time_us(raw) : time_us(library);
            if (round < kWarmup) continue;
            library_us.push_back(library_first ? first : second);
            raw_us.push_back(library_first ? second : first);
            difference_us.push_back(library_us.back() - raw_us.back());
        }
        comparison.library.run_medians_us.push_back(median_of(std::move(library_us)));
        comparison.raw->run_medians_us.push_back(median_of(std::move(raw_us)));
        comparison.difference->run_medians_us.push_back(median_of(std::move(difference_us)));
    }
}

}  // namespace bench
