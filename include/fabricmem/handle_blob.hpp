// SPDX-License-Identifier: Apache-2.0
// The value that travels from the exporter of memory to its importers. Knows neither CUDA nor a driver.
// The format is docs/blob-format.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <fabricmem/export.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

/// A device's place in an NVLink fabric. Compare both: unrelated racks share clique numbers.
struct FabricPlace {
    Id128 cluster_uuid{};
    std::uint32_t clique = 0;
    friend bool operator==(const FabricPlace&, const FabricPlace&) = default;
};

/// All that an importer has to know of memory that another process (or this one) exported: its handle, its sizes, and
/// who made it where, so that a failed import can be explained. A plain value: copying it shares nothing and keeps no
/// memory alive. A field that is std::nullopt is not known, which the wire form tells apart from zero.
///
/// The 64 handle bytes are neither random nor secret-proof: whoever has them and the same IMEX channel can map the
/// memory, and after a reboot the same bytes may name other memory. Compare `allocation_id` and `boot_id`, never
/// addresses or handle bytes.
struct FABRICMEM_API HandleBlob {
    static constexpr std::size_t kBytes = 320;         ///< the wire form's size, whatever the kind
    static constexpr std::size_t kWords = kBytes / 4;  ///< the same as 32-bit words
    static constexpr std::size_t kHandleBytes = 64;
    static constexpr std::uint16_t kVersion = 1;
    /// What a blob may state at most, as much as a buffer may have: 2^47 bytes, the user's half of a 48-bit address
    /// space. So sums and roundings of sizes out of a blob don't overflow.
    static constexpr std::uint64_t kMaxMappedBytes = std::uint64_t{1} << 47;
    static constexpr std::size_t kMaxJsonBytes = 65536;  ///< longer texts are refused unread

    HandleKinds kinds{};                                ///< in which ways the memory can be imported through this blob
    LocationKind location_kind = LocationKind::device;  ///< device or host_numa
    std::optional<std::int32_t> numa_node{};            ///< the exporter's numbering; host_numa only
    std::optional<std::int32_t> device_ordinal{};       ///< the exporter's numbering: for humans only
    std::optional<Id128> device_uuid{};                 ///< a MIG instance has its own
    std::optional<Id128> allocation_id{};  ///< 128 random bits; none for a bare handle, which is never cached
    Id128 peer{};                  ///< chosen by the caller, the same for the same exporter after a restart; zero: none
    std::uint64_t generation = 0;  ///< belongs to `peer`, set by the caller, grows with each incarnation

    std::optional<Id128> host_id{};
    std::optional<Id128> boot_id{};
    std::optional<std::uint32_t> process_id{};
    std::optional<std::uint64_t> pid_namespace{};
    std::optional<std::uint64_t> process_start{};  ///< clock ticks since boot
    std::optional<std::int32_t> imex_channel{};    ///< the one that the exporter can open, lowest number first
    std::optional<FabricPlace> fabric{};           ///< of the device; not known for host memory

    std::uint64_t mapped_bytes = 0;              ///< the whole allocation, which is what has to be mapped
    std::uint64_t offset = 0;                    ///< of the range that is meant, from the allocation's start, in bytes
    std::uint64_t bytes = 0;                     ///< of the range that is meant, in bytes
    std::optional<std::uint64_t> granularity{};  ///< bytes, a power of two; mapped_bytes is a multiple of it
    std::optional<bool> rdma{};                  ///< whether the memory is GPUDirect RDMA capable
    std::optional<std::uint64_t> created_ns{};   ///< nanoseconds since 1970-01-01 UTC, by the exporter's clock

    std::array<std::uint8_t, kHandleBytes> handle{};
    std::optional<Id128> descriptor_token{};  ///< by which a file descriptor can be asked for; not used by this version

    friend bool operator==(const HandleBlob&, const HandleBlob&) = default;

    /// Throws Error{bad_blob} that says what is wrong: no kind, a location kind that is no answer, a known number below
    /// zero (NUMA node, ordinal, channel), size 0, more than kMaxMappedBytes, a size that is not a multiple of the
    /// granularity, a range that overflows or leaves the allocation.
    void validate() const;

    /// The same memory, another range: `offset` bytes from the start of this one's range. Throws Error{bad_argument}
    /// where the new range is empty or leaves this one, Error{bad_blob} where this one is wrong already.
    [[nodiscard]] HandleBlob sub_range(std::uint64_t offset, std::uint64_t bytes) const;

    /// The wire form. Each `to_` throws Error{bad_blob} as validate() does; each `from_` accepts exactly one blob and
    /// throws Error{bad_blob} that says what is wrong: wrong length (trailing bytes included), magic, CRC, a version
    /// that needs a newer reader, or as validate() does.
    [[nodiscard]] std::array<std::byte, kBytes> to_bytes() const;
    [[nodiscard]] static HandleBlob from_bytes(std::span<const std::byte> bytes);
    /// The wire form as 640 lower-case hexadecimal digits; both cases are read.
    [[nodiscard]] std::string to_hex() const;
    [[nodiscard]] static HandleBlob from_hex(std::string_view hex);
    /// The wire form as 80 words for collectives, each the little-endian value of four bytes.
    [[nodiscard]] std::array<std::int32_t, kWords> to_words() const;
    [[nodiscard]] static HandleBlob from_words(std::span<const std::int32_t> words);
    /// A JSON object with the same fields under their names here, those of the place together in "location"; those not
    /// known are absent. It has no CRC. Unknown names are ignored when read; a text of more than kMaxJsonBytes is not
    /// read.
    [[nodiscard]] std::string to_json() const;
    [[nodiscard]] static HandleBlob from_json(std::string_view json);

    /// The 64 handle bytes alone as 128 hexadecimal digits, as Mooncake's BufferDesc.shm_name holds them.
    [[nodiscard]] std::string bare_hex() const;
    /// A blob of a bare fabric handle. It has no identity, so it is never cached and its errors can't name the
    /// exporter. `location` says which kind of memory it is; throws Error{bad_blob} for anything but 128 hexadecimal
    /// digits or for size 0, Error{bad_argument} for Location::host_nearest.
    [[nodiscard]] static HandleBlob from_bare(std::string_view hex, std::uint64_t mapped_bytes,
                                              const Location& location);
};

}  // namespace fabricmem
