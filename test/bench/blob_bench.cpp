// SPDX-License-Identifier: Apache-2.0
// How long a blob's encoding and decoding take, and its CRC in both ways: medians in ns, no assertions. A benchmark,
// not a test; build it optimised.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <span>
#include <vector>

#include <fabricmem/handle_blob.hpp>

#include "blob/crc32c.hpp"
#include "support/blobs.hpp"

namespace {

/// The compiler has to make `value` and may assume nothing of it afterwards.
template <typename T>
void keep(T& value) {
    asm volatile("" : : "r"(&value) : "memory");
}

template <typename Work>
void measure(const char* name, Work work) {
    constexpr int kRounds = 1001;
    constexpr int kCalls = 1000;  // a round is long beside the clock's own cost
    std::vector<double> ns;
    for (int round = 0; round < kRounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        for (int call = 0; call < kCalls; ++call) work();
        const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
        ns.push_back(took.count() / kCalls);
    }
    std::sort(ns.begin(), ns.end());
    std::printf("%-24s median %7.1f ns   min %7.1f   p99 %7.1f\n", name, ns[kRounds / 2], ns.front(),
                ns[kRounds * 99 / 100]);
}

}  // namespace

int main() {
    using namespace fabricmem;
    HandleBlob blob = fabricmem::test::full_blob();
    auto bytes = blob.to_bytes();
    const std::span<const std::byte> covered(bytes.data(), HandleBlob::kBytes - 4);

    measure("to_bytes", [&] {
        keep(blob);
        auto out = blob.to_bytes();
        keep(out);
    });
    measure("from_bytes", [&] {
        keep(bytes);
        auto out = HandleBlob::from_bytes(bytes);
        keep(out);
    });
    measure("crc32c, 316 bytes", [&] {
        keep(bytes);
        auto crc = detail::crc32c(covered);
        keep(crc);
    });
    measure("crc32c_by_table", [&] {
        keep(bytes);
        auto crc = detail::crc32c_by_table(covered);
        keep(crc);
    });
    std::printf("crc32c is by %s here\n", detail::has_crc32c_instruction() ? "the CPU's instruction" : "tables");
}
