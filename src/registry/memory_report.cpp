// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/memory_report.hpp>

#include <algorithm>
#include <mutex>
#include <string_view>

#include "driver/check.hpp"
#include "driver/driver_state.hpp"
#include "error/refuse.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

using detail::formatted;

constexpr std::size_t kNamedMax = 64;

void append_live(std::string& text, std::string_view what, const std::vector<LiveMemory>& all) {
    for (std::size_t i = 0; i < std::min(all.size(), kNamedMax); ++i) {
        const LiveMemory& live = all[i];
        text += formatted(
            "\n  {} of {} bytes ({} mapped) on {} at {}, allocation {}", what, live.blob.bytes, live.blob.mapped_bytes,
            to_string(live.location), live.base,
            live.blob.allocation_id.has_value() ? to_string(*live.blob.allocation_id) : std::string("without an id"));
        if (what == "import") text += ", exporter: " + detail::describe_exporter(live.blob);
    }
    if (all.size() > kNamedMax) text += formatted("\n  and {} {}s more", all.size() - kNamedMax, what);
}

void log_report(const Driver& driver) {
    const MemoryReport report = memory_report(driver);
    detail::log(report.is_clean() ? LogLevel::info : LogLevel::warning, "at exit the driver \"{}\" holds {}",
                driver.name(), report.describe());
}

// What is reported when this is destroyed. As the log sink it is the process's: exit is the process's too.
class AtExit {
public:
    AtExit() = default;
    AtExit(const AtExit&) = delete;
    AtExit& operator=(const AtExit&) = delete;
    ~AtExit() {
        std::vector<std::weak_ptr<Driver>> drivers;  // no sink is called under a lock
        {
            const std::lock_guard lock(mutex_);
            drivers.swap(drivers_);
        }
        for (const std::weak_ptr<Driver>& weak : drivers) {
            const std::shared_ptr<Driver> driver = weak.lock();
            if (driver == nullptr || detail::DriverState::of(*driver).forked()) continue;
            try {
                log_report(*driver);
            } catch (const std::exception& error) {  // no memory for it
                detail::log(LogLevel::error, "at exit there is no report of what is held: {}", error.what());
            }
        }
    }

    void add(const std::shared_ptr<Driver>& driver) {
        const std::lock_guard lock(mutex_);
        const auto same = [&](const std::weak_ptr<Driver>& other) { return other.lock() == driver; };
        if (std::none_of(drivers_.begin(), drivers_.end(), same)) drivers_.push_back(driver);
    }

private:
    std::mutex mutex_;
    std::vector<std::weak_ptr<Driver>> drivers_;
};

}  // namespace

bool MemoryReport::is_clean() const noexcept {
    return buffers.empty() && imports.empty() && given_up == 0 && failed_tear_downs == 0 && stuck_calls == 0;
}

std::string MemoryReport::describe() const {
    std::string text = formatted("{} buffers of {} bytes, {} imports of {} bytes", buffers.size(), buffer_bytes,
                                 imports.size(), import_bytes);
    if (given_up != 0) text += formatted("; {} given up, {} bytes", given_up, given_up_bytes);
    if (failed_tear_downs != 0)
        text += formatted("; {} not taken back whole, {} bytes", failed_tear_downs, failed_tear_down_bytes);
    if (retired_ranges != 0) text += formatted("; {} retired address ranges, {} bytes", retired_ranges, retired_bytes);
    if (stuck_calls != 0) text += formatted("; {} stuck calls", stuck_calls);
    append_live(text, "buffer", buffers);
    append_live(text, "import", imports);
    return text;
}

MemoryReport memory_report(const Driver& driver) {
    MemoryReport report;
    const detail::DriverState& state = detail::DriverState::of(driver);
    if (state.forked()) return report;
    state.book.fill(report);
    const auto retired = state.retired();
    report.retired_ranges = retired.ranges;
    report.retired_bytes = retired.bytes;
    if (const detail::Workers* const workers = state.workers_if_any(); workers != nullptr)
        report.stuck_calls = workers->stuck();
    return report;
}

void report_memory_at_exit(const std::shared_ptr<Driver>& driver) {
    if (driver == nullptr) detail::refuse("the driver is null");
    static AtExit at_exit;
    at_exit.add(driver);
}

}  // namespace fabricmem
