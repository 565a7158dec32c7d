// SPDX-License-Identifier: Apache-2.0
// The blob's forms, JSON's own rules left out, and what each of them refuses. Offsets and bits are written here as
// docs/blob-format.md has them, not taken from the code.
#include <fabricmem/handle_blob.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <fabricmem/error.hpp>

#include "support/blobs.hpp"
#include "support/reference_crc32c.hpp"
#include "support/refused.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using Bytes = std::array<std::byte, HandleBlob::kBytes>;

constexpr std::string_view kExampleHex =
    "4641424d0100010040010000fd3f000003000000010100000000000003000000"
    "00000000070000006712000000000000fcffffef0000000015cd5b0700000000"
    "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
    "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf02000000000000000000400000000000"
    "00002000000000000000100000000000000020000000000015cd853dfe9c9717"
    "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef"
    "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff0102030405060708090a0b0c0d0e0f10"
    "1112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30"
    "3132333435363738393a3b3c3d3e3f4000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000930e9cd7";

void check_bytes_refused(std::string_view part_of_text, std::span<const std::byte> bytes) {
    check_refused(part_of_text, [&] { (void)HandleBlob::from_bytes(bytes); });
}

template <typename T>
void put(Bytes& bytes, std::size_t offset, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        bytes[offset + i] = static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xff);
    }
}

std::uint32_t flags_of(const Bytes& bytes) {
    std::uint32_t flags = 0;
    for (std::size_t i = 0; i < 4; ++i) flags |= std::to_integer<std::uint32_t>(bytes[12 + i]) << (8 * i);
    return flags;
}

void mend_crc(Bytes& bytes) { put(bytes, 316, reference_crc32c(std::span(bytes).first(316))); }

/// A blob's bytes with one field overwritten and the CRC right again.
template <typename T>
Bytes with(Bytes bytes, std::size_t offset, T value) {
    put(bytes, offset, value);
    mend_crc(bytes);
    return bytes;
}

void check_round_trips(const HandleBlob& blob) {
    CHECK((HandleBlob::from_bytes(blob.to_bytes()) == blob));
    CHECK((HandleBlob::from_hex(blob.to_hex()) == blob));
    CHECK((HandleBlob::from_words(blob.to_words()) == blob));
    CHECK((HandleBlob::from_json(blob.to_json()) == blob));
}

/// An optional field: its flag, its place, a way to set it to zero and one to forget it.
struct Optional {
    const char* name;
    std::uint32_t flag;
    std::size_t offset;
    std::size_t bytes;
    void (*set_zero)(HandleBlob&);
    void (*forget)(HandleBlob&);
    bool (*is_known)(const HandleBlob&);
};

template <auto kMember>
Optional optional(const char* name, std::uint32_t flag, std::size_t offset, std::size_t bytes) {
    return {name,
            flag,
            offset,
            bytes,
            [](HandleBlob& blob) { (blob.*kMember).emplace(); },
            [](HandleBlob& blob) { (blob.*kMember).reset(); },
            [](const HandleBlob& blob) { return (blob.*kMember).has_value(); }};
}

const Optional kOptionals[] = {
    optional<&HandleBlob::rdma>("rdma", 0x1, 21, 1),
    optional<&HandleBlob::numa_node>("numa_node", 0x2, 24, 4),
    optional<&HandleBlob::device_ordinal>("device_ordinal", 0x4, 28, 4),
    optional<&HandleBlob::imex_channel>("imex_channel", 0x8, 32, 4),
    optional<&HandleBlob::fabric>("fabric", 0x10, 36, 4),
    optional<&HandleBlob::fabric>("fabric", 0x10, 192, 16),
    optional<&HandleBlob::process_id>("process_id", 0x20, 40, 4),
    optional<&HandleBlob::pid_namespace>("pid_namespace", 0x40, 48, 8),
    optional<&HandleBlob::process_start>("process_start", 0x80, 56, 8),
    optional<&HandleBlob::device_uuid>("device_uuid", 0x100, 64, 16),
    optional<&HandleBlob::allocation_id>("allocation_id", 0x200, 80, 16),
    optional<&HandleBlob::granularity>("granularity", 0x400, 144, 8),
    optional<&HandleBlob::created_ns>("created_ns", 0x800, 152, 8),
    optional<&HandleBlob::host_id>("host_id", 0x1000, 160, 16),
    optional<&HandleBlob::boot_id>("boot_id", 0x2000, 176, 16),
    optional<&HandleBlob::descriptor_token>("descriptor_token", 0x4000, 272, 16),
};

bool may_be_zero(const Optional& field) { return std::string_view(field.name) != "granularity"; }

}  // namespace

TEST_CASE("The example blob's bytes are the golden ones", "[blob]") {
    CHECK(example_blob().to_hex() == kExampleHex);
    CHECK((HandleBlob::from_hex(kExampleHex) == example_blob()));
}

TEST_CASE("Each field stands where the format says", "[blob]") {
    const Bytes base = bare_blob().to_bytes();
    const auto check_place = [&](const HandleBlob& blob, std::size_t offset, std::size_t width) {
        const Bytes bytes = blob.to_bytes();
        for (std::size_t i = 0; i < 316; ++i) {
            const bool is_flag = i >= 12 && i < 16;
            const bool is_inside = i >= offset && i < offset + width;
            if (is_inside || is_flag || bytes[i] == base[i]) continue;
            CAPTURE(offset, i);
            FAIL_CHECK("another byte changed");
        }
        CAPTURE(offset);
        CHECK_FALSE(std::equal(bytes.begin() + static_cast<std::ptrdiff_t>(offset),
                               bytes.begin() + static_cast<std::ptrdiff_t>(offset + width),
                               base.begin() + static_cast<std::ptrdiff_t>(offset)));
    };
    HandleBlob blob = bare_blob();
    SECTION("peer") { blob.peer = id_from(1), check_place(blob, 96, 16); }
    SECTION("generation") { blob.generation = ~0ULL, check_place(blob, 112, 8); }
    SECTION("mapped bytes") { blob.mapped_bytes = 1ULL << 46, check_place(blob, 120, 8); }
    SECTION("length") { blob.bytes = 5, check_place(blob, 136, 8); }
    SECTION("handle") { blob.handle.fill(0xff), check_place(blob, 208, 64); }
    SECTION("kinds") { blob.kinds = HandleKinds::from_bits(~0U), check_place(blob, 16, 4); }
    SECTION("location kind") { blob.location_kind = LocationKind::device, check_place(blob, 20, 1); }
    SECTION("optional ones, all of them known in the example or here") {
        const HandleBlob full = full_blob();
        const Bytes full_bytes = full.to_bytes();
        for (const Optional& field : kOptionals) {
            CAPTURE(field.name);
            HandleBlob without = full;
            field.forget(without);
            const Bytes bytes = without.to_bytes();
            CHECK(flags_of(bytes) == (flags_of(full_bytes) & ~field.flag));
            for (std::size_t i = 0; i < field.bytes; ++i) CHECK(bytes[field.offset + i] == std::byte{0});
            if (std::string_view(field.name) == "imex_channel") continue;  // zero in the full blob too
            CHECK(std::memcmp(&bytes[field.offset], &full_bytes[field.offset], field.bytes) != 0);
        }
    }
}

TEST_CASE("A blob comes back the same from every form, with each optional field known or not", "[blob]") {
    check_round_trips(example_blob());
    check_round_trips(full_blob());
    check_round_trips(bare_blob());
    for (const Optional& field : kOptionals) {
        CAPTURE(field.name);
        HandleBlob without = full_blob();
        field.forget(without);
        check_round_trips(without);
        HandleBlob with_it = bare_blob();
        field.set_zero(with_it);
        if (may_be_zero(field)) check_round_trips(with_it);
    }
}

TEST_CASE("A blob of extreme values comes back the same from every form", "[blob]") {
    HandleBlob blob = full_blob();
    blob.kinds = HandleKinds::from_bits(0xffffffff);
    blob.location_kind = LocationKind::host_numa;
    blob.numa_node = blob.device_ordinal = blob.imex_channel = std::numeric_limits<std::int32_t>::max();
    blob.process_id = std::numeric_limits<std::uint32_t>::max();
    blob.pid_namespace = blob.process_start = blob.created_ns = std::numeric_limits<std::uint64_t>::max();
    blob.generation = std::numeric_limits<std::uint64_t>::max();
    blob.fabric->clique = std::numeric_limits<std::uint32_t>::max();
    blob.mapped_bytes = HandleBlob::kMaxMappedBytes;
    blob.offset = blob.mapped_bytes - 1;
    blob.bytes = 1;
    blob.granularity = blob.mapped_bytes;
    blob.rdma = false;
    blob.handle.fill(0xff);
    check_round_trips(blob);
    CHECK(nlohmann::json::parse(blob.to_json())["created_ns"].get<std::uint64_t>() == ~0ULL);
}

TEST_CASE("A known zero is not the same as not known", "[blob]") {
    for (const Optional& field : kOptionals) {
        if (!may_be_zero(field)) continue;
        CAPTURE(field.name);
        HandleBlob zero = bare_blob();
        field.set_zero(zero);
        CHECK_FALSE((zero == bare_blob()));
        CHECK(field.is_known(HandleBlob::from_bytes(zero.to_bytes())));
        CHECK(field.is_known(HandleBlob::from_json(zero.to_json())));
        CHECK(flags_of(zero.to_bytes()) == field.flag);
        CHECK_FALSE(field.is_known(HandleBlob::from_bytes(bare_blob().to_bytes())));
        CHECK_FALSE(field.is_known(HandleBlob::from_json(bare_blob().to_json())));
    }
}

TEST_CASE("A field whose flag is off is not known whatever stands in it", "[blob]") {
    for (const Optional& field : kOptionals) {
        CAPTURE(field.name);
        Bytes bytes = bare_blob().to_bytes();
        for (std::size_t i = 0; i < field.bytes; ++i) bytes[field.offset + i] = std::byte{0xff};
        mend_crc(bytes);
        CHECK((HandleBlob::from_bytes(bytes) == bare_blob()));
    }
}

TEST_CASE("Every flipped bit is refused", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    for (std::size_t bit = 0; bit < 8 * HandleBlob::kBytes; ++bit) {
        Bytes bytes = good;
        bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        CAPTURE(bit);
        check_bytes_refused(bit < 32 ? "it starts with" : "CRC-32C", bytes);
    }
}

TEST_CASE("Every other length is refused", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    std::vector<std::byte> bytes(good.begin(), good.end());
    bytes.resize(2 * HandleBlob::kBytes);
    for (std::size_t length = 0; length <= bytes.size(); ++length) {
        if (length == HandleBlob::kBytes) continue;
        // A copy of that length, so that a read beyond it is seen by a sanitizer.
        const std::vector<std::byte> exact(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
        check_bytes_refused("not " + std::to_string(length), exact);
    }
    check_bytes_refused("not 0", {});
}

TEST_CASE("Bytes of any alignment are read", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    std::array<std::byte, HandleBlob::kBytes + 8> room{};
    for (std::size_t start = 0; start < 8; ++start) {
        std::memcpy(room.data() + start, good.data(), good.size());
        CHECK((HandleBlob::from_bytes(std::span(room).subspan(start, good.size())) == full_blob()));
    }
}

TEST_CASE("What breaks a rule is refused with the rule and the numbers, in bytes and before it is written", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    struct Rule {
        const char* text;
        std::size_t offset;
        std::uint64_t value;
        std::size_t width;
        void (*break_it)(HandleBlob&);
    };
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
    const Rule rules[] = {
        {"no kind", 16, 0, 4, [](HandleBlob& blob) { blob.kinds = {}; }},
        {"location kind 0", 20, 0, 1, [](HandleBlob& blob) { blob.location_kind = LocationKind{0}; }},
        {"location kind 3", 20, 3, 1, [](HandleBlob& blob) { blob.location_kind = LocationKind::host_nearest; }},
        {"location kind 255", 20, 255, 1, [](HandleBlob& blob) { blob.location_kind = LocationKind{255}; }},
        {"numa_node is -1", 24, kMost, 4, [](HandleBlob& blob) { blob.numa_node = -1; }},
        {"device_ordinal is -1", 28, kMost, 4, [](HandleBlob& blob) { blob.device_ordinal = -1; }},
        {"imex_channel is -1", 32, kMost, 4, [](HandleBlob& blob) { blob.imex_channel = -1; }},
        {"mapped_bytes is 0", 120, 0, 8, [](HandleBlob& blob) { blob.mapped_bytes = 0; }},
        {"mapped_bytes is 140737488355329, more than 140737488355328", 120, (1ULL << 47) + 1, 8,
         [](HandleBlob& blob) { blob.mapped_bytes = (1ULL << 47) + 1; }},
        {"bytes is 0", 136, 0, 8, [](HandleBlob& blob) { blob.bytes = 0; }},
        {"(2097153 bytes from offset 2097152) leaves the 4194304", 136, 2097153, 8,
         [](HandleBlob& blob) { blob.bytes = 2097153; }},
        {"(18446744073709551615 bytes from offset 2097152)", 136, kMost, 8,
         [](HandleBlob& blob) { blob.bytes = kMost; }},
        {"from offset 4194305) leaves", 128, 4194305, 8, [](HandleBlob& blob) { blob.offset = 4194305; }},
        {"from offset 18446744073708503040) leaves", 128, kMost - 1048576 + 1, 8,
         [](HandleBlob& blob) { blob.offset = kMost - 1048576 + 1; }},  // offset + bytes is 2^64, which wraps to 0
        {"granularity is 0", 144, 0, 8, [](HandleBlob& blob) { blob.granularity = 0; }},
        {"granularity is 1398101", 144, 1398101, 8, [](HandleBlob& blob) { blob.granularity = 1398101; }},
        {"mapped_bytes is 4194304, not a multiple of the granularity 8388608", 144, 8388608, 8,
         [](HandleBlob& blob) { blob.granularity = 8388608; }},
    };
    for (const Rule& rule : rules) {
        CAPTURE(rule.text);
        Bytes bytes = good;
        for (std::size_t i = 0; i < rule.width; ++i) {
            bytes[rule.offset + i] = static_cast<std::byte>(rule.value >> (8 * i) & 0xff);
        }
        mend_crc(bytes);
        check_bytes_refused(rule.text, bytes);
        HandleBlob blob = full_blob();
        rule.break_it(blob);
        check_refused(rule.text, [&] { blob.validate(); });
        check_refused(rule.text, [&] { (void)blob.to_bytes(); });
        check_refused(rule.text, [&] { (void)blob.to_hex(); });
        check_refused(rule.text, [&] { (void)blob.to_words(); });
        check_refused(rule.text, [&] { (void)blob.to_json(); });
    }
    check_bytes_refused("rdma is 2", with(good, 21, std::uint8_t{2}));
}

TEST_CASE("The largest and the last range are accepted", "[blob]") {
    HandleBlob blob = full_blob();
    blob.bytes = 2097152;
    CHECK_NOTHROW(blob.validate());
    blob.mapped_bytes = HandleBlob::kMaxMappedBytes;
    blob.offset = 0;
    blob.bytes = blob.mapped_bytes;
    CHECK_NOTHROW(blob.validate());
}

TEST_CASE("A wrong envelope is refused by name though its CRC is right", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    check_bytes_refused("it starts with 0x4d424147", with(good, 0, std::uint32_t{0x4d424147}));
    check_bytes_refused("it states 319 bytes, not 320", with(good, 8, std::uint32_t{319}));
    check_bytes_refused("it states 0 bytes", with(good, 8, std::uint32_t{0}));
    check_bytes_refused("version 1 needs a reader of version 2, this one is of version 1",
                        with(good, 6, std::uint16_t{2}));
    check_bytes_refused("version 65535 needs a reader of version 258",
                        with(with(good, 4, std::uint16_t{65535}), 6, std::uint16_t{258}));
}

TEST_CASE("A newer version is read where its writer says that this reader can", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    CHECK((HandleBlob::from_bytes(with(good, 4, std::uint16_t{2})) == full_blob()));
    CHECK((HandleBlob::from_bytes(with(good, 4, std::uint16_t{0xffff})) == full_blob()));
}

TEST_CASE("Reserved bytes are written as zero and ignored when read", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    const std::array<std::array<std::size_t, 2>, 3> reserved{{{22, 2}, {44, 4}, {288, 28}}};
    Bytes bytes = good;
    std::size_t count = 0;
    for (const auto& [offset, width] : reserved) {
        for (std::size_t i = offset; i < offset + width; ++i, ++count) {
            CHECK(good[i] == std::byte{0});
            bytes[i] = std::byte{0xff};
        }
    }
    CHECK(count >= 32);
    check_bytes_refused("CRC-32C", bytes);
    mend_crc(bytes);
    CHECK((HandleBlob::from_bytes(bytes) == full_blob()));
}

TEST_CASE("Unknown flags are ignored and unknown kinds are kept", "[blob]") {
    const Bytes good = full_blob().to_bytes();
    CHECK((HandleBlob::from_bytes(with(good, 12, ~0U)) == full_blob()));
    const HandleBlob blob = HandleBlob::from_bytes(with(good, 16, 0x80000000U));
    CHECK(blob.kinds.bits() == 0x80000000U);
    CHECK_FALSE(blob.kinds.has(HandleKind::fabric));
    check_round_trips(blob);
}

TEST_CASE("Random bytes under a right magic, length and CRC end in a value or in bad_blob", "[blob]") {
    std::mt19937_64 random(7);
    int values = 0;
    for (int round = 0; round < 20000; ++round) {
        Bytes bytes = full_blob().to_bytes();
        for (int change = 0; change < 3; ++change) {
            bytes[12 + random() % 304] = static_cast<std::byte>(random() & 0xff);
        }
        mend_crc(bytes);
        try {
            const HandleBlob blob = HandleBlob::from_bytes(bytes);
            blob.validate();
            if (!(HandleBlob::from_bytes(blob.to_bytes()) == blob)) FAIL_CHECK("changed by a round trip");
            ++values;
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::bad_blob) FAIL_CHECK(error.what());
        }
    }
    CHECK(values > 1000);
}

TEST_CASE("A sub-range keeps all but the range", "[blob]") {
    const HandleBlob blob = example_blob();
    const HandleBlob part = blob.sub_range(4096, 100);
    HandleBlob expected = blob;
    expected.offset = 2097152 + 4096;
    expected.bytes = 100;
    CHECK((part == expected));
    CHECK((blob.sub_range(0, blob.bytes) == blob));
    CHECK((part.sub_range(99, 1).offset == 2097152 + 4096 + 99));
}

TEST_CASE("A sub-range that is empty or leaves the blob's is refused", "[blob]") {
    const HandleBlob blob = example_blob();
    const auto refused = [&](std::uint64_t offset, std::uint64_t bytes) {
        CAPTURE(offset, bytes);
        check_refused(
            "sub-range of " + std::to_string(bytes), [&] { (void)blob.sub_range(offset, bytes); },
            ErrorKind::bad_argument);
    };
    refused(0, 0);
    refused(0, 1048577);
    refused(1048576, 1);
    refused(1048577, 1);
    refused(1, 1048576);
    refused(1, ~0ULL);
    refused(~0ULL, 2);
    HandleBlob wrong = blob;
    wrong.offset = ~0ULL - 9;  // 20 bytes on it would be 10: a range that looks right
    check_refused("leaves the", [&] { (void)wrong.sub_range(20, 5); });
}

TEST_CASE("Hexadecimal digits are written in lower case and read in both", "[blob]") {
    const std::string lower = full_blob().to_hex();
    CHECK(lower.size() == 640);
    CHECK(lower.find_first_not_of("0123456789abcdef") == std::string::npos);
    std::string upper = lower;
    for (char& digit : upper) digit = digit >= 'a' ? static_cast<char>(digit - 'a' + 'A') : digit;
    CHECK((HandleBlob::from_hex(upper) == full_blob()));
}

TEST_CASE("Damaged hexadecimal digits are refused", "[blob]") {
    const std::string good = full_blob().to_hex();
    const auto refused = [](std::string_view text, const std::string& hex) {
        check_refused(text, [&] { (void)HandleBlob::from_hex(hex); });
    };
    for (std::size_t length = 0; length < good.size(); ++length) refused("640", good.substr(0, length));
    refused("not 641", good + "0");
    refused("not 641", good + "\n");
    refused("not 642", "0x" + good);
    refused("character 1 is not", "0x" + good.substr(2));
    for (const char wrong : {'g', 'G', ' ', '\0', '/', ':', '@', '`', '\x80', '-'}) {
        for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{333}, std::size_t{639}}) {
            std::string hex = good;
            hex[at] = wrong;
            refused("character " + std::to_string(at) + " is not", hex);
        }
    }
    std::string changed = good;
    changed[400] = changed[400] == '0' ? '1' : '0';
    refused("CRC-32C", changed);
}

TEST_CASE("Words are the little-endian values of four bytes each", "[blob]") {
    const auto words = example_blob().to_words();
    CHECK(words[0] == 0x4d424146);
    CHECK(words[1] == 0x00010001);
    CHECK(words[2] == 320);
    CHECK(words[16] == static_cast<std::int32_t>(0xa3a2a1a0));
    CHECK((HandleBlob::from_words(words) == example_blob()));
}

TEST_CASE("Another count of words is refused", "[blob]") {
    const auto words = example_blob().to_words();
    std::vector<std::int32_t> many(words.begin(), words.end());
    many.push_back(0);
    for (std::size_t count = 0; count <= many.size(); ++count) {
        if (count == HandleBlob::kWords) continue;
        check_refused("it has 80 words, not " + std::to_string(count),
                      [&] { (void)HandleBlob::from_words(std::span(many).first(count)); });
    }
    auto changed = words;
    changed[40] ^= 1;
    check_refused("CRC-32C", [&] { (void)HandleBlob::from_words(changed); });
}

TEST_CASE("A bare handle goes out as 128 digits and comes in without an identity", "[blob]") {
    const std::string hex = example_blob().bare_hex();
    CHECK(hex.size() == 128);
    CHECK(hex.substr(0, 8) == "01020304");

    HandleBlob expected;
    expected.kinds = HandleKind::fabric;
    expected.handle = example_blob().handle;
    expected.mapped_bytes = expected.bytes = 2097152;
    SECTION("device") {
        expected.location_kind = LocationKind::device;
        expected.device_ordinal = 3;
        CHECK((HandleBlob::from_bare(hex, 2097152, Location::device(3)) == expected));
    }
    SECTION("device, not known which") {
        expected.location_kind = LocationKind::device;
        CHECK((HandleBlob::from_bare(hex, 2097152, Location::device(-1)) == expected));
    }
    SECTION("host, NUMA node 0") {
        expected.location_kind = LocationKind::host_numa;
        expected.numa_node = 0;
        CHECK((HandleBlob::from_bare(hex, 2097152, Location::host_numa(0)) == expected));
        check_round_trips(expected);
    }
}

TEST_CASE("A bare handle that is none is refused", "[blob]") {
    const std::string good = example_blob().bare_hex();
    const auto refused = [](std::string_view text, const std::string& hex, std::uint64_t bytes) {
        check_refused(text, [&] { (void)HandleBlob::from_bare(hex, bytes, Location::device(0)); });
    };
    for (std::size_t length = 0; length < good.size(); ++length) refused("128", good.substr(0, length), 4096);
    refused("not 129", good + "0", 4096);
    refused("not 130", "0x" + good, 4096);
    refused("character 1 is not", "0x" + good.substr(2), 4096);
    refused("character 127 is not", good.substr(0, 127) + "g", 4096);
    refused("mapped_bytes is 0", good, 0);
    refused("more than", good, ~0ULL);
    check_refused(
        "nearest to device 0", [&] { (void)HandleBlob::from_bare(good, 4096, Location::host_nearest(0)); },
        ErrorKind::bad_argument);
}

namespace {

/// What stands between ``` and ``` in docs/blob-format.md, in the one block of that language.
std::string example_in_docs(const std::string& language) {
    std::ifstream file(FABRICMEM_SOURCE_DIR "/docs/blob-format.md");
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const std::string fence = "\n```" + language + "\n";
    const std::size_t start = text.find(fence);
    REQUIRE(start != std::string::npos);
    const std::size_t end = text.find("\n```\n", start + fence.size());
    REQUIRE(end != std::string::npos);
    return text.substr(start + fence.size(), end - start - fence.size());
}

}  // namespace

TEST_CASE("The examples in docs/blob-format.md are what the library writes", "[blob]") {
    std::string hex = example_in_docs("hex");
    std::erase(hex, '\n');
    CHECK(hex == kExampleHex);
    const std::string json = example_in_docs("json");
    CHECK((HandleBlob::from_json(json) == example_blob()));
    CHECK(nlohmann::ordered_json::parse(json).dump() == example_blob().to_json());
}
