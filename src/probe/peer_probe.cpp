// SPDX-License-Identifier: Apache-2.0
// One side's memory, and the other side's try at it.
#include <fabricmem/peer_probe.hpp>

#include <algorithm>
#include <cstring>
#include <exception>
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
#include "vmm/copy_port.hpp"
#include "worker/workers.hpp"

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

// Reads what an import begins with. A copy on a link that is dead may keep the driver from coming back, and the GPU
// from ever being done.
class ReadJob final : public detail::Job {
public:
    ReadJob(std::shared_ptr<Driver> driver, ImportedFabricBuffer imported_memory, int device, std::size_t bytes)
        : Job(driver),
          imported(std::move(imported_memory)),
          driver_(std::move(driver)),
          device_(device),
          bytes_(bytes) {}

    void run() noexcept override {
        try {
            read();
        } catch (...) {
            failure = std::current_exception();
        }
    }
    void clean_up() noexcept override {
        { const ImportedFabricBuffer ended = std::move(imported); }
        detail::log(LogLevel::info, "reading {} bytes of a peer's memory, which had been given up, is over", bytes_);
    }

    ImportedFabricBuffer imported;
    std::vector<std::byte> seen;
    std::exception_ptr failure;

private:
    void read() {
        progress.enter("cuDevicePrimaryCtxRetain");
        detail::CopyPort port(driver_, device_, bytes_);
        const std::chrono::milliseconds patience = detail::DriverState::of(*driver_).patience.probing;
        progress.enter("cuMemcpyAsync");
        port.read(0, reinterpret_cast<std::uintptr_t>(imported.address()), bytes_);
        progress.enter("cuStreamQuery");
        if (port.wait(detail::deadline_after(patience)) == detail::Finished::yes) {
            seen.assign(port.bounce(), port.bounce() + bytes_);
            progress.enter("cuMemUnmap");  // of the port's own memory
            return;
        }
        detail::BufferParts::of(imported).give_up();  // a copy of it is under way
        throw Error(
            {.kind = ErrorKind::timed_out,
             .call = "cuMemcpyAsync",
             .bytes = bytes_,
             .subject = to_string(imported.location()),
             .cause = detail::formatted("device {} had not read it after {} ms: the GPU is busy, or the link to "
                                        "the memory is dead",
                                        device_, patience.count()),
             .cure = detail::cure_of("FM-MEMORY-011"),
             .check = "FM-MEMORY-011"});
    }

    std::shared_ptr<Driver> driver_;
    int device_;
    std::size_t bytes_;
};

Error call_hangs(const char* call, int device, std::chrono::milliseconds waited) {
    return Error(
        {.kind = ErrorKind::timed_out,
         .call = call == nullptr ? "" : call,
         .subject = detail::formatted("reading the peer's memory by device {}", device),
         .cause = detail::formatted("it had not returned after {} ms: likely the link to the memory is dead, or "
                                    "another call of the driver hangs and holds it up",
                                    waited.count()),
         .cure = detail::cure_of("FM-DRIVER-008"),
         .check = "FM-DRIVER-008"});
}

// Takes the import, and hands it back where nothing is under way.
std::vector<std::byte> read_by(int device, const std::shared_ptr<Driver>& driver, ImportedFabricBuffer& imported,
                               std::size_t bytes) {
    auto& state = detail::DriverState::of(*driver);
    const auto job = std::make_shared<ReadJob>(driver, std::move(imported), device, bytes);
    const std::chrono::milliseconds most = state.patience.probing + state.patience.calling;
    if (state.workers().run(job, detail::deadline_after(most)) == detail::Ended::no)
        throw call_hangs(job->progress.call(), device, most);
    imported = std::move(job->imported);
    if (job->failure != nullptr) std::rethrow_exception(job->failure);
    return std::move(job->seen);
}

void import_and_read(const std::shared_ptr<Driver>& driver, const PeerProbeBytes& said, const PeerProbeOptions& options,
                     int& device) {
    ImportOptions import{.timeout = options.timeout};
    if (options.device >= 0) import.access = std::vector<int>{options.device};
    ImportedFabricBuffer imported(driver, *said.blob, import);
    device = options.device >= 0 ? options.device : worker_of(imported, imported.location());
    const auto seen = read_by(device, driver, imported, sizeof said.token);
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

// What a device did not do in time with another node's memory proves nothing about this side.
Side side_of_try(const Error& error, bool same_node) {
    return error.kind() == ErrorKind::timed_out && !same_node ? Side::unknown : side_of(error);
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
                                 const PeerProbeOptions& options) {
    refuse_no_driver(driver);
    if (options.timeout.count() <= 0) detail::refuse(detail::formatted("a timeout of {} ms", options.timeout.count()));
    if (options.device < -1) detail::refuse(detail::formatted("a device {}", options.device));
    PeerProbeResult result;
    try {
        const PeerProbeBytes said = PeerProbeBytes::from_bytes(bytes);
        result.peer = describe_sender(said);
        if (!said.blob.has_value()) throw nothing_to_import(said);
        detail::check_driver(driver);
        result.same_node = detail::DriverState::of(*driver).is_this_node(*said.blob);
        try {
            import_and_read(driver, said, options, result.device);
        } catch (const Error& error) {
            throw of_living_exporter(error, said, result.same_node);
        }
        result.summary = "the peer's memory was imported, and holds what the peer's GPU wrote into it";
    } catch (const Error& error) {
        result.why_not = error;
        result.side = side_of_try(error, result.same_node);
        result.summary =
            detail::formatted("the peer's memory can't be used, and {}: {}", in_words(result.side), error.what());
    }
    return result;
}

}  // namespace fabricmem
