// SPDX-License-Identifier: Apache-2.0
// Whether this process can have fabric memory at a location, found out by doing it, step by step. No CUDA type.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

/// The steps of a probe, in order. The first three look, the others do.
enum class ProbeRung : std::uint8_t {
    attributes,    ///< the place exists, and its device says that it has fabric handles (attribute 128): proves nothing
    channels,      ///< an IMEX channel node that this process can open
    fabric_state,  ///< NVML: the device has joined the NVLink fabric, and is well
    reserve,
    create,
    map,
    set_access,
    handle_types,  ///< those asked for were granted: a device can take the request and silently not do it
    export_handle,
    import_handle,  ///< in this process itself: the IMEX daemon is not asked
    map_import,     ///< reserve, map and set access
    touch,          ///< a GPU writes through the import, and the exporter's mapping has the bytes
    tear_down,      ///< all is given back
};
[[nodiscard]] FABRICMEM_API std::string_view to_string(ProbeRung rung) noexcept;

enum class RungState : std::uint8_t {
    passed,
    warning,  ///< not as it should be, and does not stand in the way here
    failed,
    unknown,  ///< could not be told
    skipped,  ///< an earlier rung failed, or there is nothing to look at
};
[[nodiscard]] FABRICMEM_API std::string_view to_string(RungState state) noexcept;

struct ProbeStep {
    ProbeRung rung{};
    RungState state = RungState::skipped;
    std::string facts{};  ///< what was seen: "channel 0 can be opened"
    std::string
        check{};  ///< the id of the check that decides it; of failed and warning always, else where there is one
    std::string cause{};  ///< of failed and warning
    std::string cure{};
};

/// How far memory of a location travels as a handle.
enum class HandleReach : std::uint8_t {
    none,
    posix_fd,       ///< no fabric handles, but file descriptors: within the node
    fabric_node,    ///< fabric handles, within this node
    fabric_domain,  ///< fabric handles, and the device is part of a multi-node NVLink domain. Only a peer on another
                    ///< node proves that the handles work there: peer_probe.hpp
};
[[nodiscard]] FABRICMEM_API std::string_view to_string(HandleReach reach) noexcept;

struct ProbeResult {
    Location location;  ///< as asked
    /// The first thing done that failed, with cause and cure; nullopt: all that is done passed. What is only looked at
    /// (attributes, channels, fabric_state) may be wrong beside.
    std::optional<Error> why_not;
    HandleKinds kinds;    ///< what was granted where all passed
    std::string summary;  ///< one sentence for humans
    HandleReach reach = HandleReach::none;
    std::vector<ProbeStep> steps{};  ///< every rung, in order

    [[nodiscard]] bool usable() const noexcept { return !why_not.has_value(); }
};

enum class ProbeMemory : std::uint8_t {
    /// An answer that this driver object has had is given again: a yes for good, a no for 5 s. Only what the machine or
    /// the process is like is kept (unsupported, not_permitted, system, timed_out), not that memory was short, say.
    kept,
    fresh,  ///< all is tried anew
};

/// Creates the smallest buffer at `location`, exports it, imports it again in this process, lets a GPU write through
/// the import and reads the bytes back, and takes all down. Says nothing of other nodes: a process that imports its own
/// handle never asks the IMEX daemon. Where the driver does not permit or support fabric handles, the same is tried
/// with a file descriptor, as far as its import. Makes the device's primary context for that time where no context of
/// it is current. Does not throw for a machine that can't, only std::bad_alloc.
///
/// Waits at most 10 s for the GPU to do what the probe queues on a stream of its own; where that passes, the memory,
/// the stream and the context are kept until the process ends. Work of others is not waited for. No limit holds for the
/// driver's own calls, of which making the primary context may take long; the 4 KiB that are read back are copied while
/// the call lasts. NVML is started, which takes some time where it was not. Thread-safe; two threads that ask at once
/// may both try.
[[nodiscard]] FABRICMEM_API ProbeResult probe(const std::shared_ptr<Driver>& driver, const Location& location,
                                              ProbeMemory memory = ProbeMemory::kept);

}  // namespace fabricmem
