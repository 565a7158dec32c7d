// SPDX-License-Identifier: Apache-2.0
// Whether this process can have fabric memory at a location, found out by doing it. No CUDA type.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

struct ProbeResult {
    Location location;             ///< as asked
    std::optional<Error> why_not;  ///< the first step that failed, with cause and cure; nullopt: all passed
    HandleKinds kinds;             ///< what was granted where all passed
    std::string summary;           ///< one sentence for humans

    [[nodiscard]] bool usable() const noexcept { return !why_not.has_value(); }
};

/// Creates the smallest buffer at `location`, exports it, imports it again in this process, lets a GPU write through
/// the import and reads the bytes back, and takes all down. Says nothing of other nodes: a process that imports its own
/// handle never asks the IMEX daemon. Makes the device's primary context for that time where no context of it is
/// current. Does not throw for a machine that can't, only std::bad_alloc.
///
/// Waits at most 10 s for the GPU to do what the probe queues on a stream of its own; where that passes, the memory,
/// the stream and the context are kept until the process ends. Work of others is not waited for. No limit holds for the
/// driver's own calls, of which making the primary context may take long; the 4 KiB that are read back are copied while
/// the call lasts.
[[nodiscard]] FABRICMEM_API ProbeResult probe(const std::shared_ptr<Driver>& driver, const Location& location);

}  // namespace fabricmem
