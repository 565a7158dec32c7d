// SPDX-License-Identifier: Apache-2.0
#include "blob/crc32c.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "support/reference_crc32c.hpp"
#include "support/test.hpp"

using namespace fabricmem;

namespace {

void check_all_ways(std::span<const std::byte> bytes, std::uint32_t expected) {
    CHECK(detail::crc32c(bytes) == expected);
    CHECK(detail::crc32c_by_table(bytes) == expected);
    CHECK(fabricmem::test::reference_crc32c(bytes) == expected);
}

std::vector<std::byte> repeated(std::size_t count, int value) { return {count, static_cast<std::byte>(value)}; }

}  // namespace

TEST_CASE("CRC-32C gives the published values in each way", "[blob]") {
    const std::string_view digits = "123456789";
    check_all_ways(std::as_bytes(std::span(digits)), 0xe3069283);
    check_all_ways({}, 0);
    // RFC 3720, B.4
    check_all_ways(repeated(32, 0), 0x8a9136aa);
    check_all_ways(repeated(32, 0xff), 0x62a8ab43);
    std::vector<std::byte> rising;
    for (int i = 0; i < 32; ++i) rising.push_back(static_cast<std::byte>(i));
    check_all_ways(rising, 0x46dd794e);
    check_all_ways(std::vector<std::byte>(rising.rbegin(), rising.rend()), 0x113fdb5c);
}

TEST_CASE("CRC-32C is the same in each way at every length and alignment", "[blob]") {
    std::mt19937 random(1);
    std::vector<std::byte> bytes(1024);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xff);
    for (std::size_t length = 0; length <= 330; ++length) {
        for (std::size_t start = 0; start < 8; ++start) {
            const auto part = std::span<const std::byte>(bytes).subspan(start, length);
            const std::uint32_t expected = fabricmem::test::reference_crc32c(part);
            if (detail::crc32c_by_table(part) == expected && detail::crc32c(part) == expected) continue;
            CAPTURE(length, start);
            check_all_ways(part, expected);
        }
    }
}

TEST_CASE("CRC-32C by the CPU's instruction is among the ways tested", "[blob]") {
#if defined(__x86_64__) || defined(__aarch64__)
    if (!detail::has_crc32c_instruction())
        FABRICMEM_SKIP("this CPU has no CRC-32C instruction; the tables were tested");
    SUCCEED("crc32c() used the instruction");
#else
    CHECK_FALSE(detail::has_crc32c_instruction());
#endif
}
