// SPDX-License-Identifier: Apache-2.0
// Where the library's own messages go. The one process-wide setting; no third-party type shows through.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <fabricmem/export.hpp>

namespace fabricmem {

enum class LogLevel : std::uint8_t { trace, debug, info, warning, error, off };

/// Takes one message, without a line end. Called from any thread, from destructors and at exit, never with a lock of
/// the library held; what it throws is dropped.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces the sink; an empty one brings back the default, which writes to stderr (never to stdout). Thread-safe; a
/// call of the old sink that is under way in another thread may end after this returns.
FABRICMEM_API void set_log_sink(LogSink sink);

/// Messages below this level are dropped before they are formatted. Default: warning. Thread-safe. The bytes of a
/// handle are never logged above debug, since whoever has them can map the memory; this version logs them nowhere.
FABRICMEM_API void set_log_level(LogLevel level) noexcept;

}  // namespace fabricmem
