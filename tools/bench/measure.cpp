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

}  // namespace bench
