// SPDX-License-Identifier: Apache-2.0
// The measured table (docs/emulator.md) and the wait.
#include "emulated/latency.hpp"

#include <algorithm>
#include <ctime>

namespace fabricmem::detail::emulated {

namespace {

constexpr double kSmallBytes = 2.0 * 1024 * 1024;
constexpr double kLargeBytes = 4.0 * 1024 * 1024 * 1024;
// The kernel may wake a sleeper that late: the rest is waited for on the CPU.
constexpr std::int64_t kSlackNs = 100'000;
constexpr std::int64_t kSecondNs = 1'000'000'000;

struct Cost {
    double small_ns;  // of 2 MiB
    double large_ns;  // of 4 GiB
};

Cost cost_of(CallCost cost) noexcept {
    switch (cost) {
        case CallCost::reserve:
        case CallCost::map:
        case CallCost::free: return {1'000, 1'000};
        case CallCost::create: return {31'000, 239'000};
        case CallCost::set_access: return {31'000, 229'000};
        case CallCost::export_fabric: return {100, 100};
        case CallCost::export_descriptor: return {35'000, 35'000};
        case CallCost::import_fabric: return {28'000, 28'000};
        case CallCost::import_descriptor: return {29'000, 29'000};
        case CallCost::unmap: return {21'000, 21'000};
        case CallCost::release: return {25'000, 2'231'000};
    }
    return {0, 0};
}

std::int64_t now_ns() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * kSecondNs + now.tv_nsec;
}

}  // namespace

double measured_ns(CallCost cost, std::size_t bytes) noexcept {
    const Cost known = cost_of(cost);
    const double share = (static_cast<double>(bytes) - kSmallBytes) / (kLargeBytes - kSmallBytes);
    return known.small_ns + std::max(0.0, share) * (known.large_ns - known.small_ns);
}

Slowed::Slowed(double factor, CallCost cost, std::size_t bytes) noexcept {
    if (factor <= 0) return;
    constexpr double kLongestNs = 1e15;  // eleven days: whoever asks for more has time
    until_ns_ = now_ns() + static_cast<std::int64_t>(std::min(kLongestNs, factor * measured_ns(cost, bytes)));
}

Slowed::~Slowed() {
    if (until_ns_ == 0) return;
    for (std::int64_t left = until_ns_ - now_ns(); left > 0; left = until_ns_ - now_ns()) {
        if (left <= kSlackNs) continue;
        const std::int64_t wake = until_ns_ - kSlackNs;
        const timespec at{wake / kSecondNs, wake % kSecondNs};
        ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
    }
}

}  // namespace fabricmem::detail::emulated
