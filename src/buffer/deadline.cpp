// SPDX-License-Identifier: Apache-2.0
#include "buffer/deadline.hpp"

#include <exception>
#include <string_view>
#include <utility>

#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

// Which calls ask the IMEX daemon, which can wait for a lost peer without limit: those for memory of another node.
bool asks_daemon(const char* call, const Driver& driver, const HandleBlob& blob) {
    if (call == nullptr || on_one_node(driver, blob)) return false;
    const std::string_view name = call;
    return name == "cuMemImportFromShareableHandle" || name == MappingTraits::kCloseCall ||
           name == AllocationTraits::kCloseCall;
}

}  // namespace

bool on_one_node(const Driver& driver, const HandleBlob& blob) {
    const auto identity = DriverState::of(driver).known().identity;
    return identity != nullptr && blob.boot_id.has_value() && blob.boot_id == identity->boot_id;
}

HeldUp held_up_by_daemon() noexcept {
    return {"likely the IMEX daemon of this node waits for a peer that is lost", "look at nvidia-imex on both nodes",
            "FM-IMEX-004"};
}
HeldUp held_up_by_driver() noexcept {
    return {"likely another call of the driver hangs and holds it up", "look for an Xid in the kernel's log (dmesg)",
            "FM-DRIVER-008"};
}

TearDownJob::TearDownJob(std::shared_ptr<Driver> driver) noexcept : Job(std::move(driver)) {}
TearDownJob::~TearDownJob() = default;

void TearDownJob::run() noexcept {
    parts->progress = &progress;
    failure = parts->tear_down();
    parts->progress = nullptr;
}

void TearDownJob::clean_up() noexcept {
    const std::uint64_t bytes = parts->blob.mapped_bytes;
    if (failure.call != nullptr) log_failure(failure.call, bytes, failure.result);
    parts.reset();
    log(LogLevel::info, "an import of {} bytes, whose tear-down had been given up, is torn down", bytes);
}

void let_go(std::unique_ptr<BufferParts> parts) noexcept {
    if (parts == nullptr || !parts->has_deadline() || parts->forked()) return;  // the destructor does it
    const std::shared_ptr<TearDownJob> job = std::exchange(parts->tear_down_job, nullptr);
    const std::uint64_t bytes = parts->blob.mapped_bytes;
    const std::chrono::milliseconds timeout = parts->tear_down_timeout;
    Workers& workers = DriverState::of(*parts->driver).workers();  // there since the import
    const std::shared_ptr<Driver> driver = parts->driver;          // has the workers, and outlives the parts
    const HandleBlob blob = parts->blob;
    job->parts = std::move(parts);
    try {
        if (workers.run(job, deadline_after(timeout)) == Ended::yes) {
            if (job->failure.call != nullptr) log_failure(job->failure.call, bytes, job->failure.result);
            return;
        }
        const char* const call = job->progress.call();
        log(LogLevel::error, "the tear-down of an import of {} bytes is given up: {} has not returned within {} ms{}",
            bytes, call == nullptr ? "it" : call, timeout.count(),
            asks_daemon(call, *driver, blob) ? ", likely since the IMEX daemon waits for a lost peer" : "");
    } catch (const std::exception& error) {
        log(LogLevel::error, "the tear-down of an import of {} bytes has to wait for another call with a deadline: {}",
            bytes, error.what());
        workers.leave(job);
    }
}

TearDownFailure tear_down_within(std::unique_ptr<BufferParts>& parts) {
    const HandleBlob blob = parts->blob;
    const Location location = parts->location;
    const std::chrono::milliseconds timeout = parts->tear_down_timeout;
    const std::shared_ptr<Driver> driver = parts->driver;
    const std::shared_ptr<TearDownJob> job = std::exchange(parts->tear_down_job, nullptr);
    job->parts = std::move(parts);
    Ended ended = Ended::no;
    try {
        ended = DriverState::of(*driver).workers().run(job, deadline_after(timeout));
    } catch (...) {
        parts = std::move(job->parts);
        parts->tear_down_job = job;
        throw;
    }
    if (ended == Ended::no) throw timed_out({"tearing down", job->progress.call(), timeout, location}, *driver, blob);
    parts = std::move(job->parts);
    return job->failure;
}

Error timed_out(const Late& late, const Driver& driver, const HandleBlob& blob) {
    ErrorDetails details{.kind = ErrorKind::timed_out, .bytes = blob.mapped_bytes};
    const std::string where = late.location.has_value() ? to_string(*late.location) : std::string("a peer's memory");
    if (late.call != nullptr) {
        details.call = late.call;
        details.subject = formatted("{} {}", late.what, where);
    } else {
        details.subject = formatted("{} {} failed while the devices were looked at", late.what, where);
    }
    const HeldUp held = asks_daemon(late.call, driver, blob) ? held_up_by_daemon() : held_up_by_driver();
    details.cause = formatted("it had not returned after {} ms; {}", late.timeout.count(), held.cause);
    details.cure = formatted(
        "{}; the call goes on in a thread of its own (stuck_calls() counts it), and what comes of "
        "it is given back then",
        held.cure);
    details.check = held.check;
    details.identity =
        formatted("Exporter: {}. Importer: {}", describe_exporter(blob), describe_known_importer(driver));
    return Error(std::move(details));
}

void check_timeout(std::chrono::milliseconds timeout) {
    if (timeout.count() < 0)
        throw Error({.kind = ErrorKind::bad_argument, .subject = formatted("a timeout of {} ms", timeout.count())});
}

bool wait_until_stuck(const Driver& driver, std::size_t at_most, std::chrono::milliseconds timeout) {
    const Workers* const workers = DriverState::of(driver).workers_if_any();
    return workers == nullptr || workers->wait_until_stuck(at_most, deadline_after(timeout));
}

}  // namespace fabricmem::detail

namespace fabricmem {

std::size_t stuck_calls(const Driver& driver) noexcept {
    const detail::Workers* const workers = detail::DriverState::of(driver).workers_if_any();
    return workers == nullptr ? 0 : workers->stuck();
}

}  // namespace fabricmem
