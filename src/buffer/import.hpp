// SPDX-License-Identifier: Apache-2.0
// An import as its steps, for those who run it on a thread that they may give up.
#pragma once

#include <chrono>
#include <memory>

#include "buffer/buffer_parts.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {

/// What can be told from the blob alone, before any driver call. Throws as ImportedFabricBuffer's constructor.
void check_blob(const HandleBlob& blob);

/// On this thread, for as long as it takes; options.timeout is not looked at but as the default of tear_down_timeout.
/// `progress`: told each call; null where nobody may give the import up. Throws as ImportedFabricBuffer's constructor.
[[nodiscard]] std::unique_ptr<BufferParts> import(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                                  const ImportOptions& options, Progress* progress);

/// An import, with its checks, on a thread that may be given up. `progress` lives as long as the thread.
struct ImportHere {
    /// Throws as ImportedFabricBuffer's constructor.
    [[nodiscard]] static ImportedFabricBuffer make(const std::shared_ptr<Driver>& driver, const HandleBlob& blob,
                                                   const ImportOptions& options, Progress& progress);
};

/// Makes no call of the driver's or the platform's. `call`: what it was at; null: nothing yet.
[[nodiscard]] Error import_timed_out(const Driver& driver, const HandleBlob& blob, const char* call,
                                     std::chrono::milliseconds timeout);

}  // namespace fabricmem::detail
