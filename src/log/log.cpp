// SPDX-License-Identifier: Apache-2.0
// The default sink is a spdlog logger of our own on stderr: spdlog's default one prints to stdout, and its registry
// belongs to the program.
#include "log/log.hpp"

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace fabricmem {
namespace {

// Outside of State: what asks for it must not fail, and making State can.
constinit std::atomic<LogLevel> level_in_use{LogLevel::warning};

constinit thread_local detail::DeferredLog* collecting = nullptr;

struct State {
    std::mutex mutex;
    std::shared_ptr<const LogSink> sink;  // guarded by mutex; null: the default
    spdlog::logger fallback{"fabricmem", std::make_shared<spdlog::sinks::stderr_sink_mt>()};

    State() {
        fallback.set_level(spdlog::level::trace);  // `level_in_use` filters, before anything is formatted
        fallback.set_pattern("[%Y-%m-%d %H:%M:%S.%e] [%n] [%l] %v");
    }
};

// Never destroyed: buffers in statics log from their destructors, after the statics of this file would be gone.
State& state() {
    static State& leaked = *new State;
    return leaked;
}

spdlog::level::level_enum to_spdlog(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::trace: return spdlog::level::trace;
        case LogLevel::debug: return spdlog::level::debug;
        case LogLevel::info: return spdlog::level::info;
        case LogLevel::warning: return spdlog::level::warn;
        case LogLevel::error: return spdlog::level::err;
        case LogLevel::off: return spdlog::level::off;
    }
    return spdlog::level::err;
}

}  // namespace

void set_log_sink(LogSink sink) {
    auto next = sink ? std::make_shared<const LogSink>(std::move(sink)) : nullptr;
    State& log = state();
    const std::lock_guard lock(log.mutex);
    log.sink.swap(next);
}

void set_log_level(LogLevel level) noexcept { level_in_use.store(level, std::memory_order_relaxed); }

namespace detail {

bool log_enabled(LogLevel level) noexcept {
    return level != LogLevel::off && level >= level_in_use.load(std::memory_order_relaxed);
}

void log_line(LogLevel level, std::string_view text) noexcept {
    try {
        if (collecting != nullptr) {
            collecting->lines_.emplace_back(level, text);
            return;
        }
        State& log = state();
        std::shared_ptr<const LogSink> sink;
        {
            const std::lock_guard lock(log.mutex);
            sink = log.sink;
        }
        if (sink != nullptr) {
            (*sink)(level, text);
        } else {
            log.fallback.log(to_spdlog(level), spdlog::string_view_t(text.data(), text.size()));
        }
    } catch (...) {
        return;  // there is nowhere left to report to, and a destructor may be the caller
    }
}

DeferredLog::DeferredLog() noexcept : outermost_(collecting == nullptr) {
    if (outermost_) collecting = this;
}

DeferredLog::~DeferredLog() {
    if (!outermost_) return;
    collecting = nullptr;  // a sink that calls back logs anew
    for (const auto& [level, text] : lines_) log_line(level, text);
}

}  // namespace detail
}  // namespace fabricmem
