// SPDX-License-Identifier: Apache-2.0
// Medians of runs.
#include "measure.hpp"

#include <algorithm>
#include <stdexcept>

namespace bench {
namespace {

std::vector<double> less(const std::vector<double>& library, const std::vector<double>& raw) {
    std::vector<double> difference(library.size());
    std::transform(library.begin(), library.end(), raw.begin(), difference.begin(),
                   [](double one, double other) { return one - other; });
    return difference;
}

void add_median(Series& series, std::vector<double> values) {
    series.run_medians_us.push_back(median_of(std::move(values)));
}

template <class Part>
Part& made(std::optional<Part>& part) {
    return part ? *part : part.emplace();
}

}  // namespace

double median_of(std::vector<double> values) {
    if (values.empty()) throw std::logic_error("the median of nothing");
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

double Series::median() const { return median_of(run_medians_us); }
double Series::least() const { return *std::min_element(run_medians_us.begin(), run_medians_us.end()); }
double Series::most() const { return *std::max_element(run_medians_us.begin(), run_medians_us.end()); }

void add_run(Comparison& comparison, const RunOf& library, const RunOf& raw) {
    add_median(comparison.library, library.total_us);
    add_median(made(comparison.raw), raw.total_us);
    add_median(made(comparison.difference), less(library.total_us, raw.total_us));
    OwnTime& own = made(comparison.own);
    add_median(own.library, library.own_us);
    add_median(own.raw, raw.own_us);
    add_median(own.difference, less(library.own_us, raw.own_us));
}

void measure_ways(const Amount& amount, Comparison& comparison, std::span<const Way> ways, Second second) {
    constexpr std::uint32_t kMostWarmup = 20;
    const std::uint32_t warmup = std::min(kMostWarmup, 1 + amount.rounds / 10);
    const std::size_t first_beside = second == Second::raw ? 2 : 1;
    for (std::size_t i = first_beside; i < ways.size(); ++i) comparison.beside.emplace_back(ways[i].name, Series{});
    for (std::uint32_t run = 0; run < amount.runs; ++run) {
        std::vector<std::vector<double>> took(ways.size());
        for (std::uint32_t round = 0; round < warmup + amount.rounds; ++round) {
            for (std::size_t i = 0; i < ways.size(); ++i) {
                const std::size_t who = (round + i) % ways.size();
                const double us = ways[who].time_us();
                if (round >= warmup) took[who].push_back(us);
            }
        }
        if (second == Second::raw) {
            add_median(made(comparison.difference), less(took[0], took[1]));
            add_median(made(comparison.raw), took[1]);
        }
        add_median(comparison.library, took[0]);
        for (std::size_t i = first_beside; i < ways.size(); ++i) {
            add_median(comparison.beside[i - first_beside].second, std::move(took[i]));
        }
    }
}

}  // namespace bench
