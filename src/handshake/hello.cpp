// SPDX-License-Identifier: Apache-2.0
#include "handshake/hello.hpp"

#include <algorithm>
#include <cstring>

#include "blob/crc32c.hpp"
#include "blob/wire.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::size_t kHelloBytes = Handshake::kHelloBytes;
constexpr char kHelloMagic[8] = {'F', 'A', 'B', 'M', 'E', 'E', 'T', '\n'};
constexpr std::uint16_t kHelloVersion = 1;
constexpr std::size_t kHelloTextBytes = 256;
constexpr std::size_t kVersionOffset = 8;
constexpr std::size_t kLeastVersionOffset = 10;
constexpr std::size_t kLengthOffset = 12;
constexpr std::size_t kRankOffset = 16;
constexpr std::size_t kWorldSizeOffset = 20;
constexpr std::size_t kMaxRanksOffset = 24;
constexpr std::size_t kFlagsOffset = 28;
constexpr std::size_t kIncarnationOffset = 32;
constexpr std::size_t kSerialOffset = 40;
constexpr std::size_t kGroupOffset = 48;
constexpr std::size_t kCrcOffset = 124;
constexpr std::uint32_t kHasDevice = 1;
constexpr std::uint32_t kHasHost = 2;

struct RegionOffsets {
    std::size_t address;
    std::size_t text;
    std::size_t blob;
    std::uint32_t flag;
};
constexpr RegionOffsets kDeviceRegion{64, 128, 640, kHasDevice};
constexpr RegionOffsets kHostRegion{72, 384, 960, kHasHost};
static_assert(kHostRegion.blob + HandleBlob::kBytes == kHelloBytes);
static_assert(kHostRegion.text + kHelloTextBytes == kDeviceRegion.blob);

[[noreturn]] void bad(std::string what) {
    throw Error({.kind = ErrorKind::bad_blob, .subject = "these bytes are no hello: " + std::move(what)});
}

// With the checksum's own bytes as zero.
std::uint32_t checksum(std::span<const std::byte> bytes) {
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    std::fill_n(copy.begin() + kCrcOffset, 4, std::byte{0});
    return crc32c(copy);
}

void put_region(std::byte* out, const HelloRegion& region, const RegionOffsets& at) {
    put_le(out + at.address, region.address);
    std::memcpy(out + at.text, region.why_not.data(), std::min(region.why_not.size(), kHelloTextBytes));
    if (!region.blob.has_value()) return;
    const auto blob = region.blob->to_bytes();
    std::copy(blob.begin(), blob.end(), out + at.blob);
}

// What others send is shown to people: nothing but plain characters.
std::string printable(std::string_view text) {
    std::string plain(text.substr(0, text.find('\0')));
    std::replace_if(
        plain.begin(), plain.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return plain;
}

HelloRegion get_region(std::span<const std::byte> bytes, const RegionOffsets& at, LocationKind kind,
                       std::uint32_t flags) {
    HelloRegion region;
    region.address = get_le<std::uint64_t>(bytes.data() + at.address);
    region.why_not = printable({reinterpret_cast<const char*>(bytes.data() + at.text), kHelloTextBytes});
    if ((flags & at.flag) == 0) return region;
    region.blob = HandleBlob::from_bytes(bytes.subspan(at.blob, HandleBlob::kBytes));
    if (region.blob->location_kind != kind) bad("a region is of the wrong kind of memory");
    return region;
}

}  // namespace

std::vector<std::byte> Hello::to_bytes() const {
    std::vector<std::byte> bytes(kHelloBytes);
    std::byte* const out = bytes.data();
    std::memcpy(out, kHelloMagic, sizeof kHelloMagic);
    put_le(out + kVersionOffset, kHelloVersion);
    put_le(out + kLeastVersionOffset, kHelloVersion);
    put_le(out + kLengthOffset, static_cast<std::uint32_t>(kHelloBytes));
    put_le(out + kRankOffset, rank);
    put_le(out + kWorldSizeOffset, world_size);
    put_le(out + kMaxRanksOffset, max_ranks);
    put_le(out + kFlagsOffset, (device.blob.has_value() ? kHasDevice : 0) | (host.blob.has_value() ? kHasHost : 0));
    put_le(out + kIncarnationOffset, incarnation);
    put_le(out + kSerialOffset, serial);
    std::memcpy(out + kGroupOffset, group.bytes.data(), group.bytes.size());
    put_region(out, device, kDeviceRegion);
    put_region(out, host, kHostRegion);
    put_le(out + kCrcOffset, checksum(bytes));
    return bytes;
}

Hello Hello::from_bytes(std::span<const std::byte> bytes) {
    if (bytes.size() != kHelloBytes) bad(formatted("{} bytes, not {}", bytes.size(), kHelloBytes));
    const std::byte* const in = bytes.data();
    if (std::memcmp(in, kHelloMagic, sizeof kHelloMagic) != 0) bad("they begin with something else");
    if (const auto least = get_le<std::uint16_t>(in + kLeastVersionOffset); least > kHelloVersion)
        bad(formatted("they need a reader of version {}, and this one is of {}", least, kHelloVersion));
    if (get_le<std::uint32_t>(in + kLengthOffset) != kHelloBytes) bad("they state another length");
    if (get_le<std::uint32_t>(in + kCrcOffset) != checksum(bytes)) bad("the checksum is wrong");
    Hello hello;
    hello.rank = get_le<std::uint32_t>(in + kRankOffset);
    hello.world_size = get_le<std::uint32_t>(in + kWorldSizeOffset);
    hello.max_ranks = get_le<std::uint32_t>(in + kMaxRanksOffset);
    hello.incarnation = get_le<std::uint64_t>(in + kIncarnationOffset);
    hello.serial = get_le<std::uint64_t>(in + kSerialOffset);
    std::memcpy(hello.group.bytes.data(), in + kGroupOffset, hello.group.bytes.size());
    const auto flags = get_le<std::uint32_t>(in + kFlagsOffset);
    hello.device = get_region(bytes, kDeviceRegion, LocationKind::device, flags);
    hello.host = get_region(bytes, kHostRegion, LocationKind::host_numa, flags);
    if (hello.incarnation == 0) bad("the incarnation is 0");
    if (hello.rank >= hello.max_ranks) bad(formatted("rank {} of at most {}", hello.rank, hello.max_ranks));
    const std::uint64_t needed = std::uint64_t{hello.max_ranks} * kSlotStride;
    for (const HelloRegion* region : {&hello.device, &hello.host}) {
        if (region->blob.has_value() && region->blob->bytes < needed)
            bad(formatted("a region of {} bytes for the slots of {} ranks", region->blob->bytes, hello.max_ranks));
    }
    return hello;
}

}  // namespace fabricmem::detail
