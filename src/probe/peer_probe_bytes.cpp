// SPDX-License-Identifier: Apache-2.0
#include "probe/peer_probe_bytes.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fabricmem/peer_probe.hpp>

#include "blob/message.hpp"
#include "blob/wire.hpp"
#include "error/cures.hpp"

namespace fabricmem::detail {
namespace {

constexpr Envelope kProbeEnvelope{"FABPROB\n", 1, PeerProbe::kBytes, 1020};
constexpr std::size_t kProbeFlagsAt = 16;
constexpr std::size_t kProbeKindAt = 20;
constexpr std::size_t kProbeCodeAt = 24;
constexpr std::size_t kProbeProcessAt = 28;
constexpr std::size_t kProbeTokenAt = 32;
constexpr std::size_t kProbeCheckAt = 48;
constexpr std::size_t kProbeCheckRoom = 16;
constexpr std::size_t kProbeHostAt = 64;
constexpr std::size_t kProbeBootAt = 80;
constexpr std::size_t kProbeTextAt = 128;
constexpr std::size_t kProbeTextRoom = 384;
constexpr std::size_t kProbeBlobAt = 512;
static_assert(kProbeTextAt + kProbeTextRoom == kProbeBlobAt);
static_assert(kProbeBlobAt + HandleBlob::kBytes <= kProbeEnvelope.crc_offset);
constexpr std::uint32_t kHasBlob = 1;
constexpr std::uint32_t kHasProcess = 2;

[[noreturn]] void refuse_probe(std::string what) {
    throw Error({.kind = ErrorKind::bad_blob,
                 .subject = "these bytes are no peer's probe: " + std::move(what),
                 .cure = cure_of("FM-PEER-005"),
                 .check = "FM-PEER-005"});
}

void put_id(std::byte* out, const std::optional<Id128>& id) {
    if (id.has_value()) std::memcpy(out, id->bytes.data(), id->bytes.size());
}

std::optional<Id128> get_id(const std::byte* in) {
    Id128 id;
    std::memcpy(id.bytes.data(), in, id.bytes.size());
    return id.is_zero() ? std::nullopt : std::optional(id);
}

}  // namespace

std::vector<std::byte> PeerProbeBytes::to_bytes() const {
    std::vector<std::byte> bytes(kProbeEnvelope.bytes);
    std::byte* const out = bytes.data();
    put_le(out + kProbeFlagsAt, (blob.has_value() ? kHasBlob : 0U) | (process_id.has_value() ? kHasProcess : 0U));
    put_le(out + kProbeKindAt, static_cast<std::uint32_t>(kind));
    put_le(out + kProbeCodeAt, code);
    put_le(out + kProbeProcessAt, process_id.value_or(0));
    for (std::size_t i = 0; i < token.size(); ++i) put_le(out + kProbeTokenAt + 4 * i, token[i]);
    put_text(out + kProbeCheckAt, check, kProbeCheckRoom);
    put_id(out + kProbeHostAt, host_id);
    put_id(out + kProbeBootAt, boot_id);
    put_text(out + kProbeTextAt, why_not, kProbeTextRoom);
    if (blob.has_value()) {
        const auto encoded = blob->to_bytes();
        std::copy(encoded.begin(), encoded.end(), out + kProbeBlobAt);
    }
    kProbeEnvelope.seal(bytes);
    return bytes;
}

PeerProbeBytes PeerProbeBytes::from_bytes(std::span<const std::byte> bytes) {
    if (std::string fault = kProbeEnvelope.fault_of(bytes); !fault.empty()) refuse_probe(std::move(fault));
    const std::byte* const in = bytes.data();
    PeerProbeBytes probe;
    const auto flags = get_le<std::uint32_t>(in + kProbeFlagsAt);
    const auto kind = get_le<std::uint32_t>(in + kProbeKindAt);
    // Kinds may be added: a newer peer's is told as one that says nothing.
    const bool is_known = kind <= static_cast<std::uint32_t>(ErrorKind::driver);
    probe.kind = is_known ? static_cast<ErrorKind>(kind) : ErrorKind::driver;
    probe.code = get_le<std::int32_t>(in + kProbeCodeAt);
    if ((flags & kHasProcess) != 0) probe.process_id = get_le<std::uint32_t>(in + kProbeProcessAt);
    for (std::size_t i = 0; i < probe.token.size(); ++i)
        probe.token[i] = get_le<std::uint32_t>(in + kProbeTokenAt + 4 * i);
    probe.check = get_text(in + kProbeCheckAt, kProbeCheckRoom);
    probe.host_id = get_id(in + kProbeHostAt);
    probe.boot_id = get_id(in + kProbeBootAt);
    probe.why_not = get_text(in + kProbeTextAt, kProbeTextRoom);
    if ((flags & kHasBlob) != 0) probe.blob = HandleBlob::from_bytes(bytes.subspan(kProbeBlobAt, HandleBlob::kBytes));
    return probe;
}

}  // namespace fabricmem::detail
