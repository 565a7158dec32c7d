// SPDX-License-Identifier: Apache-2.0
#include "handshake/hello.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "blob/message.hpp"
#include "blob/wire.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

constexpr Envelope kHelloEnvelope{"FABMEET\n", 1, Handshake::kHelloBytes, 124};
constexpr std::size_t kHelloTextBytes = 256;
constexpr std::size_t kRankOffset = 16;
constexpr std::size_t kWorldSizeOffset = 20;
constexpr std::size_t kMaxRanksOffset = 24;
constexpr std::size_t kFlagsOffset = 28;
constexpr std::size_t kIncarnationOffset = 32;
constexpr std::size_t kSerialOffset = 40;
constexpr std::size_t kGroupOffset = 48;
constexpr std::uint32_t kHasDevice = 1;
constexpr std::uint32_t kHasHost = 2;

constexpr std::size_t kHelloCheckBytes = 16;

struct RegionOffsets {
    std::size_t address;
    std::size_t check;
    std::size_t text;
    std::size_t blob;
    std::uint32_t flag;
};
constexpr RegionOffsets kDeviceRegion{64, 80, 128, 640, kHasDevice};
constexpr RegionOffsets kHostRegion{72, 96, 384, 960, kHasHost};
static_assert(kHostRegion.blob + HandleBlob::kBytes == kHelloEnvelope.bytes);
static_assert(kHostRegion.check + kHelloCheckBytes <= kHelloEnvelope.crc_offset);
static_assert(kHostRegion.text + kHelloTextBytes == kDeviceRegion.blob);

[[noreturn]] void bad(std::string what) {
    throw Error({.kind = ErrorKind::bad_blob,
                 .subject = "these bytes are no hello: " + std::move(what),
                 .check = "FM-PEER-005"});
}

void put_region(std::byte* out, const HelloRegion& region, const RegionOffsets& at) {
    put_le(out + at.address, region.address);
    put_text(out + at.text, region.why_not, kHelloTextBytes);
    put_text(out + at.check, region.check, kHelloCheckBytes);
    if (!region.blob.has_value()) return;
    const auto blob = region.blob->to_bytes();
    std::copy(blob.begin(), blob.end(), out + at.blob);
}

HelloRegion get_region(std::span<const std::byte> bytes, const RegionOffsets& at, LocationKind kind,
                       std::uint32_t flags) {
    HelloRegion region;
    region.address = get_le<std::uint64_t>(bytes.data() + at.address);
    region.why_not = get_text(bytes.data() + at.text, kHelloTextBytes);
    region.check = get_text(bytes.data() + at.check, kHelloCheckBytes);
    if ((flags & at.flag) == 0) return region;
    region.blob = HandleBlob::from_bytes(bytes.subspan(at.blob, HandleBlob::kBytes));
    if (region.blob->location_kind != kind) bad("a region is of the wrong kind of memory");
    return region;
}

}  // namespace

std::vector<std::byte> Hello::to_bytes() const {
    std::vector<std::byte> bytes(kHelloEnvelope.bytes);
    std::byte* const out = bytes.data();
    put_le(out + kRankOffset, rank);
    put_le(out + kWorldSizeOffset, world_size);
    put_le(out + kMaxRanksOffset, max_ranks);
    put_le(out + kFlagsOffset, (device.blob.has_value() ? kHasDevice : 0) | (host.blob.has_value() ? kHasHost : 0));
    put_le(out + kIncarnationOffset, incarnation);
    put_le(out + kSerialOffset, serial);
    std::memcpy(out + kGroupOffset, group.bytes.data(), group.bytes.size());
    put_region(out, device, kDeviceRegion);
    put_region(out, host, kHostRegion);
    kHelloEnvelope.seal(bytes);
    return bytes;
}

Hello Hello::from_bytes(std::span<const std::byte> bytes) {
    if (std::string fault = kHelloEnvelope.fault_of(bytes); !fault.empty()) bad(std::move(fault));
    const std::byte* const in = bytes.data();
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
