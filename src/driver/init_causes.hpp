// SPDX-License-Identifier: Apache-2.0
// What a failed cuInit comes of.
#pragma once

#include <chrono>
#include <memory>

#include <fabricmem/error.hpp>
#include <fabricmem/platform.hpp>

namespace fabricmem::detail {

/// Kind, check, cause and cure. Asks NVML, which is not cuInit, where it tells causes apart, and waits for it until
/// `timeout` is over: it may hang where the driver does. It is then left to a thread of its own, which keeps the
/// platform, and the cause says so.
[[nodiscard]] ErrorDetails explain_init(int code, const std::shared_ptr<const Platform>& platform,
                                        std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000));

}  // namespace fabricmem::detail
