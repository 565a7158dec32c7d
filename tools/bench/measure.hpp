// SPDX-License-Identifier: Apache-2.0
// Times two ways to do a thing, in turns, so that whatever else the machine does meets both alike.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
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

/// What is asked of a figure. Said, never asserted.
struct Goal {
    enum class Sense : std::uint8_t { at_most, at_least };

    std::string what;  ///< "allocate + free of 2 MiB by ncclMemAlloc's"
    double measured = 0;
    Sense sense = Sense::at_most;
    double limit = 0;

    [[nodiscard]] bool met() const noexcept { return sense == Sense::at_most ? measured <= limit : measured >= limit; }
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
    /// Why there is nothing of the library's; else empty.
    std::string skipped{};
    /// What could not be measured beside it, and why.
    std::vector<std::pair<std::string, std::string>> skipped_beside{};
    /// Numbers that are no times, by what they are with their unit.
    std::vector<std::pair<std::string, double>> figures{};
    std::vector<Goal> goals{};
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

/// One way to do a thing. `time_us` does it once and says how long that took, without what it does around it.
struct Way {
    std::string name;
    std::function<double()> time_us;
};

/// A way of which all is timed.
template <class Call>
[[nodiscard]] Way timed_way(std::string name, Call call) {
    return {std::move(name), [call = std::move(call)]() mutable { return time_us(call); }};
}

/// What the second of some ways is.
enum class Second : std::uint8_t { raw, beside };

/// For any number of ways: each round does all of them, and each is as often the first as the others. The first one is
/// the library's; a second one that is raw is compared with it round by round. The rest is beside them.
void measure_ways(const Amount& amount, Comparison& comparison, std::span<const Way> ways, Second second);

}  // namespace bench
