// SPDX-License-Identifier: Apache-2.0
// The table of what calls took. It is the emulator's own file, compiled in here under another namespace, since the
// library hides it.
#define emulated emulated_for_test
#include "emulated/latency.cpp"
#undef emulated

#include <chrono>

#include "support/test.hpp"

namespace {

using fabricmem::detail::emulated_for_test::CallCost;
using fabricmem::detail::emulated_for_test::measured_ns;
using fabricmem::detail::emulated_for_test::Slowed;

constexpr std::size_t kMiB = std::size_t{1} << 20;

}  // namespace

TEST_CASE("Calls cost what was measured at 2 MiB and 4 GiB, and a straight line in between and beyond", "[emulated]") {
    CHECK(measured_ns(CallCost::create, 2 * kMiB) == 31'000);
    CHECK(measured_ns(CallCost::create, 4096 * kMiB) == 239'000);
    CHECK(measured_ns(CallCost::create, 2049 * kMiB) == 135'000);
    CHECK(measured_ns(CallCost::create, 8190 * kMiB) == 447'000);
    CHECK(measured_ns(CallCost::create, 0) == 31'000);
    CHECK(measured_ns(CallCost::set_access, 4096 * kMiB) == 229'000);
    CHECK(measured_ns(CallCost::release, 2 * kMiB) == 25'000);
    CHECK(measured_ns(CallCost::release, 4096 * kMiB) == 2'231'000);
    for (const std::size_t bytes : {2 * kMiB, 4096 * kMiB}) {
        CHECK(measured_ns(CallCost::reserve, bytes) == 1'000);
        CHECK(measured_ns(CallCost::map, bytes) == 1'000);
        CHECK(measured_ns(CallCost::free, bytes) == 1'000);
        CHECK(measured_ns(CallCost::unmap, bytes) == 21'000);
        CHECK(measured_ns(CallCost::export_fabric, bytes) == 100);
        CHECK(measured_ns(CallCost::export_descriptor, bytes) == 35'000);
        CHECK(measured_ns(CallCost::import_fabric, bytes) == 28'000);
        CHECK(measured_ns(CallCost::import_descriptor, bytes) == 29'000);
    }
}

TEST_CASE("A slowed scope does not end before its time", "[emulated]") {
    for (const double factor : {0.0, 1.0, 300.0}) {
        const auto begin = std::chrono::steady_clock::now();
        { const Slowed slowed(factor, CallCost::unmap, 0); }
        const auto took = std::chrono::steady_clock::now() - begin;
        CHECK(std::chrono::duration<double, std::nano>(took).count() >= factor * 21'000);
    }
}
