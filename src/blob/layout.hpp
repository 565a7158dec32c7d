// SPDX-License-Identifier: Apache-2.0
// Where each field of the wire form stands and which flag bit says that it is known: docs/blob-format.md as code, the
// one place that both the writer and the reader take it from. Knows no values.
#pragma once

#include <cstddef>
#include <cstdint>

#include <fabricmem/handle_blob.hpp>

namespace fabricmem::detail::layout {

struct Field {
    std::size_t offset;
    std::size_t bytes;
};

inline constexpr Field kMagic{0, 4};
inline constexpr Field kVersionNumber{4, 2};
inline constexpr Field kLeastReader{6, 2};
inline constexpr Field kTotalBytes{8, 4};
inline constexpr Field kKnownFlags{12, 4};
inline constexpr Field kKinds{16, 4};
inline constexpr Field kLocationKind{20, 1};
inline constexpr Field kRdma{21, 1};
inline constexpr Field kReservedA{22, 2};
inline constexpr Field kNumaNode{24, 4};
inline constexpr Field kDeviceOrdinal{28, 4};
inline constexpr Field kImexChannel{32, 4};
inline constexpr Field kClique{36, 4};
inline constexpr Field kProcessId{40, 4};
inline constexpr Field kReservedB{44, 4};
inline constexpr Field kPidNamespace{48, 8};
inline constexpr Field kProcessStart{56, 8};
inline constexpr Field kDeviceUuid{64, 16};
inline constexpr Field kAllocationId{80, 16};
inline constexpr Field kPeer{96, 16};
inline constexpr Field kGeneration{112, 8};
inline constexpr Field kMappedBytes{120, 8};
inline constexpr Field kOffset{128, 8};
inline constexpr Field kRangeBytes{136, 8};
inline constexpr Field kGranularity{144, 8};
inline constexpr Field kCreatedNs{152, 8};
inline constexpr Field kHostId{160, 16};
inline constexpr Field kBootId{176, 16};
inline constexpr Field kClusterUuid{192, 16};
inline constexpr Field kHandle{208, 64};
inline constexpr Field kDescriptorToken{272, 16};
inline constexpr Field kReservedC{288, 28};
inline constexpr Field kCrc{316, 4};  ///< last: over all bytes before it

inline constexpr Field kFields[] = {
    kMagic,       kVersionNumber, kLeastReader,     kTotalBytes,    kKnownFlags,   kKinds,  kLocationKind,
    kRdma,        kReservedA,     kNumaNode,        kDeviceOrdinal, kImexChannel,  kClique, kProcessId,
    kReservedB,   kPidNamespace,  kProcessStart,    kDeviceUuid,    kAllocationId, kPeer,   kGeneration,
    kMappedBytes, kOffset,        kRangeBytes,      kGranularity,   kCreatedNs,    kHostId, kBootId,
    kClusterUuid, kHandle,        kDescriptorToken, kReservedC,     kCrc,
};

/// Whether the fields, in their order, fill the wire form without a gap or an overlap.
constexpr bool tiles() {
    std::size_t next = 0;
    for (const Field& field : kFields) {
        if (field.offset != next) return false;
        next += field.bytes;
    }
    return next == HandleBlob::kBytes;
}
static_assert(tiles());
static_assert(kCrc.offset + kCrc.bytes == HandleBlob::kBytes);
static_assert(kReservedA.bytes + kReservedB.bytes + kReservedC.bytes >= 32);

/// The flag bits: set where the field is known.
enum class Known : std::uint32_t {
    rdma = 1U << 0,
    numa_node = 1U << 1,
    device_ordinal = 1U << 2,
    imex_channel = 1U << 3,
    fabric = 1U << 4,  ///< cluster UUID and clique together
    process_id = 1U << 5,
    pid_namespace = 1U << 6,
    process_start = 1U << 7,
    device_uuid = 1U << 8,
    allocation_id = 1U << 9,
    granularity = 1U << 10,
    created_ns = 1U << 11,
    host_id = 1U << 12,
    boot_id = 1U << 13,
    descriptor_token = 1U << 14,
};

inline constexpr std::uint32_t kMagicNumber = 0x4d424146;  ///< "FABM", read as a little-endian number
inline constexpr std::uint16_t kLeastReaderWritten = 1;    ///< what this version's writer asks of its readers

}  // namespace fabricmem::detail::layout
