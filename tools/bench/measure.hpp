// SPDX-License-Identifier: Apache-2.0
// Times two ways to do a thing, in turns, so that whatever else the machine does meets both alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/deadline.hpp"
#include "timing_driver.hpp"

namespace bench {

/// The medians of some runs, in microseconds.
struct Series {
    std::vector<double> run_medians_us{};

    [[nodiscard]] double median() const;
    [[nodiscard]] double least() const;
    [[nodiscard]] double most() const;
};

[[nodiscard]] double median_of(std::vector<double> values);

/// What the two do outside the driver's calls.
struct OwnTime {
    Series library{};
    Series raw{};
    Series difference{};  ///< library less raw, round by round
};

/// One line of the result.
struct Comparison {
    std::string name;
    std::string what;
    Series library{};
    std::optional<Series> raw{};
    /// Library less raw, round by round: what drifts meets both of a round alike, so this tells microseconds apart
    /// where the calls themselves vary by hundreds.
    std::optional<Series> difference{};
    std::optional<OwnTime> own{};
    /// Others that were measured in turns with these two, by what they are.
    std::vector<std::pair<std::string, Series>> beside{};
};

/// How much of what is measured: `runs` runs of `rounds` rounds.
struct Amount {
    std::uint32_t rounds = 1000;
    std::uint32_t runs = 5;
};

/// How long a thing took, in all and outside the driver's calls. In microseconds, as are sums and means of them.
struct Took {
    double total_us = 0;
    double own_us = 0;
};

template <class Call>
double time_us(Call& call) {
    const examples::Clock::time_point start = examples::Clock::now();
    call();
    return std::chrono::duration<double, std::micro>(examples::Clock::now() - start).count();
}

template <class Call>
Took take_time(const TimingDriver& driver, Call& call) {
    const double inside_before = driver.inside_us();
    const double total = time_us(call);
    return {total, total - (driver.inside_us() - inside_before)};
}

/// One of the two in a run: what each of its rounds took.
struct RunOf {
    std::vector<double> total_us{};
    std::vector<double> own_us{};

    void add(const Took& one, const Took& other) {
        total_us.push_back((one.total_us + other.total_us) / 2);
        own_us.push_back((one.own_us + other.own_us) / 2);
    }
};

/// Adds the medians of a run, and of its differences round by round.
void add_run(Comparison& comparison, const RunOf& library, const RunOf& raw);

/// Each round calls both twice, in the order A B B A: what drifts, and what the first leaves to the second, cancels out
/// in a round's difference. Who is A changes from round to round. Both make their calls through `driver`.
template <class Library, class Raw>
void measure_in_turns(const Amount& amount, const TimingDriver& driver, Comparison& comparison, Library&& library,
                      Raw&& raw) {
    constexpr std::uint32_t kWarmup = 20;
    for (std::uint32_t run = 0; run < amount.runs; ++run) {
        RunOf by_library;
        RunOf by_raw;
        for (std::uint32_t round = 0; round < kWarmup + amount.rounds; ++round) {
            const auto a_b_b_a = [&](auto& a, auto& b, RunOf& by_a, RunOf& by_b) {
                const Took first = take_time(driver, a);
                const Took second = take_time(driver, b);
                const Took third = take_time(driver, b);
                const Took fourth = take_time(driver, a);
                if (round < kWarmup) return;
                by_a.add(first, fourth);
                by_b.add(second, third);
            };
            if (round % 2 == 0) {
                a_b_b_a(library, raw, by_library, by_raw);
            } else {
                a_b_b_a(raw, library, by_raw, by_library);
            }
        }
        add_run(comparison, by_library, by_raw);
    }
}

}  // namespace bench
