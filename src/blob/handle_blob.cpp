// SPDX-License-Identifier: Apache-2.0
// The blob's rules and its binary forms; docs/blob-format.md is the format. Knows neither CUDA nor a driver. What it
// reads may come from anybody: nothing is used before it was checked.
#include <fabricmem/handle_blob.hpp>

#include <bit>
#include <concepts>
#include <cstring>
#include <string>

#include <fabricmem/error.hpp>

#include "blob/bad_blob.hpp"
#include "blob/crc32c.hpp"
#include "blob/hex.hpp"
#include "blob/layout.hpp"
#include "blob/wire.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

using namespace detail;
using namespace detail::layout;

constexpr std::uint16_t kThisReader = HandleBlob::kVersion;

// How a value of each type stands in the bytes. A writer's and a reader's function for each, side by side.

template <std::integral T>
void store(std::byte* out, T value) {
    put_le(out, value);
}
template <std::integral T>
void load(const std::byte* in, T& value) {
    value = get_le<T>(in);
}
template <std::size_t N>
void store(std::byte* out, const std::array<std::uint8_t, N>& value) {
    std::memcpy(out, value.data(), N);
}
template <std::size_t N>
void load(const std::byte* in, std::array<std::uint8_t, N>& value) {
    std::memcpy(value.data(), in, N);
}
void store(std::byte* out, const Id128& value) { store(out, value.bytes); }
void load(const std::byte* in, Id128& value) { load(in, value.bytes); }
void store(std::byte* out, HandleKinds value) { put_le(out, value.bits()); }
void load(const std::byte* in, HandleKinds& value) { value = HandleKinds::from_bits(get_le<std::uint32_t>(in)); }
void store(std::byte* out, LocationKind value) { put_le(out, static_cast<std::uint8_t>(value)); }
void load(const std::byte* in, LocationKind& value) {
    value = static_cast<LocationKind>(get_le<std::uint8_t>(in));  // any value: validate() comes after it
}
void store(std::byte* out, bool value) { put_le<std::uint8_t>(out, value ? 1 : 0); }
void load(const std::byte* in, bool& value) {
    const auto number = get_le<std::uint8_t>(in);
    if (number > 1) refuse_blob(detail::formatted("rdma is {}, neither 0 nor 1", number));
    value = number == 1;
}

/// Writes into bytes that are all zero, so a field that is not known stays zero.
class Writer {
public:
    explicit Writer(std::byte* out) noexcept : out_(out) {}

    template <Field kField, typename T>
    void field(const T& value) {
        static_assert(sizeof(T) == kField.bytes);
        store(out_ + kField.offset, value);
    }
    template <Field kField, Known kFlag, typename T>
    void field(const std::optional<T>& value) {
        if (!value) return;
        known_ |= static_cast<std::uint32_t>(kFlag);
        field<kField>(*value);
    }
    void place(const std::optional<FabricPlace>& value) {
        if (!value) return;
        known_ |= static_cast<std::uint32_t>(Known::fabric);
        field<kClusterUuid>(value->cluster_uuid);
        field<kClique>(value->clique);
    }
    [[nodiscard]] std::uint32_t known() const noexcept { return known_; }

private:
    std::byte* out_;
    std::uint32_t known_ = 0;
};

/// Leaves std::nullopt where the flag is off, whatever stands in the field.
class Reader {
public:
    explicit Reader(const std::byte* in) noexcept : in_(in), known_(get_le<std::uint32_t>(in + kKnownFlags.offset)) {}

    template <Field kField, typename T>
    void field(T& value) {
        static_assert(sizeof(T) == kField.bytes);
        load(in_ + kField.offset, value);
    }
    template <Field kField, Known kFlag, typename T>
    void field(std::optional<T>& value) {
        if (is_known(kFlag)) field<kField>(value.emplace());
    }
    void place(std::optional<FabricPlace>& value) {
        if (!is_known(Known::fabric)) return;
        value.emplace();
        field<kClusterUuid>(value->cluster_uuid);
        field<kClique>(value->clique);
    }

private:
    [[nodiscard]] bool is_known(Known flag) const noexcept { return (known_ & static_cast<std::uint32_t>(flag)) != 0; }

    const std::byte* in_;
    std::uint32_t known_;
};

/// Every field of the value, for the writer and for the reader: what is forgotten here is lost both ways.
template <typename Wire, typename Blob>
void transfer(Wire& wire, Blob& blob) {
    wire.template field<kKinds>(blob.kinds);
    wire.template field<kLocationKind>(blob.location_kind);
    wire.template field<kRdma, Known::rdma>(blob.rdma);
    wire.template field<kNumaNode, Known::numa_node>(blob.numa_node);
    wire.template field<kDeviceOrdinal, Known::device_ordinal>(blob.device_ordinal);
    wire.template field<kImexChannel, Known::imex_channel>(blob.imex_channel);
    wire.template field<kProcessId, Known::process_id>(blob.process_id);
    wire.template field<kPidNamespace, Known::pid_namespace>(blob.pid_namespace);
    wire.template field<kProcessStart, Known::process_start>(blob.process_start);
    wire.template field<kDeviceUuid, Known::device_uuid>(blob.device_uuid);
    wire.template field<kAllocationId, Known::allocation_id>(blob.allocation_id);
    wire.template field<kPeer>(blob.peer);
    wire.template field<kGeneration>(blob.generation);
    wire.template field<kMappedBytes>(blob.mapped_bytes);
    wire.template field<kOffset>(blob.offset);
    wire.template field<kRangeBytes>(blob.bytes);
    wire.template field<kGranularity, Known::granularity>(blob.granularity);
    wire.template field<kCreatedNs, Known::created_ns>(blob.created_ns);
    wire.template field<kHostId, Known::host_id>(blob.host_id);
    wire.template field<kBootId, Known::boot_id>(blob.boot_id);
    wire.place(blob.fabric);
    wire.template field<kHandle>(blob.handle);
    wire.template field<kDescriptorToken, Known::descriptor_token>(blob.descriptor_token);
}

std::uint32_t crc_of(const std::byte* bytes) noexcept { return crc32c({bytes, kCrc.offset}); }

/// All that is checked before the fields are read: after it the bytes are what some writer wrote, and for us.
void check_envelope(std::span<const std::byte> bytes) {
    if (bytes.size() != HandleBlob::kBytes) {
        refuse_blob(detail::formatted("it has {} bytes, not {}", HandleBlob::kBytes, bytes.size()));
    }
    const std::byte* const in = bytes.data();
    const auto magic = get_le<std::uint32_t>(in + kMagic.offset);
    if (magic != kMagicNumber) {
        refuse_blob(detail::formatted("it starts with {:#010x}, not with {:#010x} (\"FABM\")", magic, kMagicNumber));
    }
    const auto stated = get_le<std::uint32_t>(in + kCrc.offset);
    const std::uint32_t found = crc_of(in);
    if (stated != found) {
        refuse_blob(detail::formatted("its CRC-32C is {:#010x}, that of its bytes {:#010x}: damaged", stated, found));
    }
    const auto least = get_le<std::uint16_t>(in + kLeastReader.offset);
    if (least > kThisReader) {
        refuse_blob(detail::formatted("version {} needs a reader of version {}, this one is of version {}",
                                      get_le<std::uint16_t>(in + kVersionNumber.offset), least, kThisReader));
    }
    const auto total = get_le<std::uint32_t>(in + kTotalBytes.offset);
    if (total != HandleBlob::kBytes) {
        refuse_blob(detail::formatted("it states {} bytes, not {}", total, HandleBlob::kBytes));
    }
}

void require_not_negative(const std::optional<std::int32_t>& number, const char* name) {
    if (number && *number < 0) refuse_blob(detail::formatted("{} is {}: what is not known is left out", name, *number));
}

void require_sizes(const HandleBlob& blob) {
    if (blob.mapped_bytes == 0) refuse_blob("mapped_bytes is 0");
    if (blob.mapped_bytes > HandleBlob::kMaxMappedBytes) {
        refuse_blob(
            detail::formatted("mapped_bytes is {}, more than {}", blob.mapped_bytes, HandleBlob::kMaxMappedBytes));
    }
    if (blob.bytes == 0) refuse_blob("bytes is 0");
    // In this order nothing can overflow.
    if (blob.offset > blob.mapped_bytes || blob.bytes > blob.mapped_bytes - blob.offset) {
        refuse_blob(detail::formatted("its range ({} bytes from offset {}) leaves the {} mapped bytes", blob.bytes,
                                      blob.offset, blob.mapped_bytes));
    }
    if (!blob.granularity) return;
    if (!std::has_single_bit(*blob.granularity))
        refuse_blob(detail::formatted("granularity is {}, no power of two", *blob.granularity));
    if (blob.mapped_bytes % *blob.granularity != 0) {
        refuse_blob(detail::formatted("mapped_bytes is {}, not a multiple of the granularity {}", blob.mapped_bytes,
                                      *blob.granularity));
    }
}

}  // namespace

void HandleBlob::validate() const {
    if (kinds.empty()) refuse_blob("it offers no kind of handle");
    if (location_kind != LocationKind::device && location_kind != LocationKind::host_numa) {
        refuse_blob(detail::formatted("location kind {} is neither device (1) nor host_numa (2)",
                                      static_cast<unsigned>(location_kind)));
    }
    require_not_negative(numa_node, "numa_node");
    require_not_negative(device_ordinal, "device_ordinal");
    require_not_negative(imex_channel, "imex_channel");
    require_sizes(*this);
}

HandleBlob HandleBlob::sub_range(std::uint64_t from, std::uint64_t count) const {
    validate();  // else the new offset could wrap into a range that looks right
    if (count == 0 || from > bytes || count > bytes - from) {
        throw Error(
            {.kind = ErrorKind::bad_argument,
             .subject = detail::formatted("a sub-range of {} bytes from {} is empty or leaves the blob's {} bytes",
                                          count, from, bytes)});
    }
    HandleBlob part = *this;
    part.offset += from;
    part.bytes = count;
    return part;
}

std::array<std::byte, HandleBlob::kBytes> HandleBlob::to_bytes() const {
    validate();
    std::array<std::byte, kBytes> bytes_out{};
    std::byte* const out = bytes_out.data();
    Writer writer(out);
    writer.field<kMagic>(kMagicNumber);
    writer.field<kVersionNumber>(kVersion);
    writer.field<kLeastReader>(kLeastReaderWritten);
    writer.field<kTotalBytes>(static_cast<std::uint32_t>(kBytes));
    transfer(writer, *this);
    writer.field<kKnownFlags>(writer.known());
    writer.field<kCrc>(crc_of(out));
    return bytes_out;
}

HandleBlob HandleBlob::from_bytes(std::span<const std::byte> bytes_in) {
    check_envelope(bytes_in);
    HandleBlob blob;
    Reader reader(bytes_in.data());
    transfer(reader, blob);
    blob.validate();
    return blob;
}

std::string HandleBlob::to_hex() const {
    return detail::to_hex(std::bit_cast<std::array<std::uint8_t, kBytes>>(to_bytes()));
}

HandleBlob HandleBlob::from_hex(std::string_view hex) {
    std::array<std::uint8_t, kBytes> bytes_in{};
    detail::from_hex(hex, bytes_in, "the hexadecimal form");
    return from_bytes(std::as_bytes(std::span(bytes_in)));
}

std::array<std::int32_t, HandleBlob::kWords> HandleBlob::to_words() const {
    const auto bytes_out = to_bytes();
    std::array<std::int32_t, kWords> words{};
    for (std::size_t i = 0; i < kWords; ++i) words[i] = get_le<std::int32_t>(&bytes_out[4 * i]);
    return words;
}

HandleBlob HandleBlob::from_words(std::span<const std::int32_t> words) {
    if (words.size() != kWords) refuse_blob(detail::formatted("it has {} words, not {}", kWords, words.size()));
    std::array<std::byte, kBytes> bytes_in{};
    for (std::size_t i = 0; i < kWords; ++i) put_le(&bytes_in[4 * i], words[i]);
    return from_bytes(bytes_in);
}

std::string HandleBlob::bare_hex() const { return detail::to_hex(handle); }

HandleBlob HandleBlob::from_bare(std::string_view hex, std::uint64_t mapped_bytes_in, const Location& location) {
    if (location.kind() != LocationKind::device && location.kind() != LocationKind::host_numa) {
        throw Error(
            {.kind = ErrorKind::bad_argument,
             .subject = detail::formatted("memory can't be at \"{}\": say device or host_numa", to_string(location))});
    }
    HandleBlob blob;
    detail::from_hex(hex, blob.handle, "a bare handle");
    blob.kinds = HandleKind::fabric;
    blob.location_kind = location.kind();
    if (location.index() >= 0) (location.is_host() ? blob.numa_node : blob.device_ordinal) = location.index();
    blob.mapped_bytes = mapped_bytes_in;
    blob.bytes = mapped_bytes_in;
    blob.validate();
    return blob;
}

}  // namespace fabricmem
