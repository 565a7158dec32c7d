// SPDX-License-Identifier: Apache-2.0
// One side's memory, and the other side's try at it.
#include <fabricmem/peer_probe.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "buffer/buffer_parts.hpp"
#include "driver/check.hpp"
#include "driver/driver_state.hpp"
#include "error/cures.hpp"
#include "error/refuse.hpp"
#include "log/log.hpp"
#include "platform/random_id.hpp"
#include "probe/peer_probe_bytes.hpp"
#include "probe/touch.hpp"
#include "text/text.hpp"

namespace fabricmem {

struct PeerProbeParts {
    std::optional<FabricBuffer> memory;
    std::optional<Error> why_not;
    detail::PeerProbeBytes said;
};

namespace {

using detail::PeerProbeBytes;

PeerProbeBytes::Token random_token() {
    const Id128 id = detail::random_id();
    PeerProbeBytes::Token token{};
    static_assert(sizeof token == sizeof id.bytes);
    std::memcpy(token.data(), id.bytes.data(), sizeof token);
    return token;
}

// The device that works on memory there: its own or the nearest, where it has access, else any that has.
int worker_of(const MappedBuffer& buffer, const Location& asked) {
    const std::vector<int>& devices = buffer.access().devices;
    if (asked.kind() != LocationKind::host_numa &&
        std::find(devices.begin(), devices.end(), asked.index()) != devices.end())
        return asked.index();
    if (!devices.empty()) return devices.front();
    throw Error({.kind = ErrorKind::unsupported,
                 .call = "cuMemSetAccess",
                 .subject = detail::formatted("no GPU got access to memory of {}", to_string(asked)),
                 .cause = "the driver refused it; the log has its code",
                 .cure = detail::cure_of("FM-MEMORY-008"),
                 .check = "FM-MEMORY-008"});
}

void make_memory(PeerProbeParts& parts, const std::shared_ptr<Driver>& driver, const Location& location) {
    parts.memory.emplace(driver, 1, FabricBufferOptions{.location = location});
    parts.said.token = random_token();
    {
        detail::Touch touch(*driver, worker_of(*parts.memory, location), {&*parts.memory});
        touch.write(*parts.memory, parts.said.token);
    }
    parts.said.blob = parts.memory->blob();
}

std::string describe_sender(const PeerProbeBytes& said) {
    if (said.blob.has_value()) return detail::describe_exporter(*said.blob);
    const auto id = [](const std::optional<Id128>& value) {
        return value.has_value() ? to_string(*value) : std::string("unknown");
    };
    std::string text = detail::formatted("host {}, boot {}", id(said.host_id), id(said.boot_id));
    if (said.process_id.has_value()) text += detail::formatted(", process {}", *said.process_id);
    return text;
}

// The peer has said why it has nothing to import.
Error nothing_to_import(const PeerProbeBytes& said) {
    const std::string its_cure = detail::cure_of(said.check);
    const std::string its_check = said.check.empty() ? std::string() : detail::formatted(" ({})", said.check);
    return Error({.kind = said.kind,
                  .code = said.code,
                  .subject = "the peer has no fabric memory to import",
                  .cause = detail::formatted("it says: {}{}", said.why_not, its_check),
                  .cure = its_cure.empty() ? detail::cure_of("FM-PEER-006") : "on the peer's side: " + its_cure,
                  .identity = "Exporter: " + describe_sender(said),
                  .check = "FM-PEER-006"});
}

// Its exporter holds the memory for as long as its bytes are passed around: what is not there for another node was
// never told to the daemons.
Error of_living_exporter(const Error& error, const PeerProbeBytes& said, bool same_node) {
    if (same_node || error.details().check != "FM-PEER-001" || said.blob->location_kind != LocationKind::device)
        return error;
    ErrorDetails details = error.details();
    details.check = "FM-IMEX-005";
    details.cure = detail::cure_of(details.check);
    return Error(std::move(details));
}

void import_and_read(const std::shared_ptr<Driver>& driver, const PeerProbeBytes& said,
                     std::chrono::milliseconds timeout) {
    ImportedFabricBuffer imported(driver, *said.blob, {.timeout = timeout});
    std::vector<unsigned char> seen;
    {
        const Location where = imported.location();
        detail::Touch touch(*driver, worker_of(imported, where), {&imported});
        seen = touch.read(imported, sizeof said.token);
    }
    imported.close();
    if (std::memcmp(seen.data(), said.token.data(), sizeof said.token) == 0) return;
    throw Error({.kind = ErrorKind::driver,
                 .subject = "the peer's memory was imported, and does not hold what the peer's GPU wrote into it",
                 .cause =
                     "the handle names other memory (its exporter has given it back since), or what GPUs write and "
                     "read does not arrive",
                 .cure = detail::cure_of("FM-PEER-008"),
                 .identity = detail::formatted("Exporter: {}. Importer: {}", detail::describe_exporter(*said.blob),
                                               detail::describe_importer(*driver)),
                 .check = "FM-PEER-008"});
}

std::string_view in_words(Side side) noexcept {
    switch (side) {
        case Side::here: return "this side has to be mended";
        case Side::there: return "the peer's side has to be mended";
        case Side::between: return "the two sides do not fit together";
        case Side::none:
        case Side::unknown: break;
    }
    return "which side has to be mended is not known";
}

void refuse_no_driver(const std::shared_ptr<Driver>& driver) {
    if (driver == nullptr) detail::refuse("no driver");
}

}  // namespace

PeerProbe::PeerProbe(const std::shared_ptr<Driver>& driver, const Location& location)
    : parts_(std::make_unique<PeerProbeParts>()) {
    refuse_no_driver(driver);
    PeerProbeBytes& said = parts_->said;
    try {
        detail::check_driver(driver);
        const auto self = detail::DriverState::of(*driver).identity();
        said.host_id = self->host_id;
        said.boot_id = self->boot_id;
        said.process_id = self->process_id;
        make_memory(*parts_, driver, location);
    } catch (const Error& error) {
        parts_->memory.reset();
        said.blob.reset();
        said.kind = error.kind();
        said.code = error.code();
        said.check = error.details().check;
        said.why_not = error.details().cause.empty() ? error.what() : error.details().cause;
        parts_->why_not = error;
    }
}
PeerProbe::PeerProbe(PeerProbe&&) noexcept = default;
PeerProbe& PeerProbe::operator=(PeerProbe&&) noexcept = default;
PeerProbe::~PeerProbe() = default;

std::vector<std::byte> PeerProbe::bytes() const {
    if (parts_ == nullptr) throw Error({.kind = ErrorKind::closed, .subject = "the probe was moved from"});
    return parts_->said.to_bytes();
}

const std::optional<Error>& PeerProbe::why_not() const noexcept {
    static const std::optional<Error> kNone;
    return parts_ == nullptr ? kNone : parts_->why_not;
}

PeerProbe make_peer_probe(const std::shared_ptr<Driver>& driver, const Location& location) {
    return {driver, location};
}

PeerProbeResult check_peer_probe(const std::shared_ptr<Driver>& driver, std::span<const std::byte> bytes,
                                 std::chrono::milliseconds timeout) {
    refuse_no_driver(driver);
    if (timeout.count() <= 0) detail::refuse(detail::formatted("a timeout of {} ms", timeout.count()));
    PeerProbeResult result;
    try {
        const PeerProbeBytes said = PeerProbeBytes::from_bytes(bytes);
        result.peer = describe_sender(said);
        if (!said.blob.has_value()) throw nothing_to_import(said);
        detail::check_driver(driver);
        result.same_node = detail::DriverState::of(*driver).is_this_node(*said.blob);
        try {
            import_and_read(driver, said, timeout);
        } catch (const Error& error) {
            throw of_living_exporter(error, said, result.same_node);
        }
        result.summary = "the peer's memory was imported, and holds what the peer's GPU wrote into it";
    } catch (const Error& error) {
        result.why_not = error;
        result.side = side_of(error);
        result.summary =
            detail::formatted("the peer's memory can't be used, and {}: {}", in_words(result.side), error.what());
    }
    return result;
}

}  // namespace fabricmem
