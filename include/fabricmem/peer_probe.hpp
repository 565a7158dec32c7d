// SPDX-License-Identifier: Apache-2.0
// Whether one process can import what another one exports, and if not, which of the two has to be mended. Needs any
// channel that carries bytes. No CUDA type.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fabricmem/checks.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;
struct PeerProbeParts;

/// Memory that another process can try to import. Its bytes are good for as long as the object lives: their size is
/// kBytes, whatever they say, and docs/peer-probe.md tells their form.
class FABRICMEM_API PeerProbe {
public:
    static constexpr std::size_t kBytes = 1024;

    /// See make_peer_probe().
    PeerProbe(const std::shared_ptr<Driver>& driver, const Location& location);
    PeerProbe(PeerProbe&&) noexcept;
    PeerProbe& operator=(PeerProbe&&) noexcept;
    /// Gives the memory back; an importer that still has it keeps it alive.
    ~PeerProbe();

    [[nodiscard]] std::vector<std::byte> bytes() const;
    /// Why there is no memory to import; the bytes tell the peer. nullopt: there is some.
    [[nodiscard]] const std::optional<Error>& why_not() const noexcept;

private:
    std::unique_ptr<PeerProbeParts> parts_;
};

/// Makes the smallest buffer at `location`, and lets a GPU write a random token into it. Where that can't be done the
/// bytes say why, so that the peer needs not guess. Throws Error{bad_argument} without a driver, and std::bad_alloc.
/// Waits at most 10 s for the GPU to write.
[[nodiscard]] FABRICMEM_API PeerProbe make_peer_probe(const std::shared_ptr<Driver>& driver, const Location& location);

struct PeerProbeOptions {
    /// For the import and its end, which ask the IMEX daemons of two nodes.
    std::chrono::milliseconds timeout{10'000};
    /// The ordinal of the device that imports and reads, and that alone gets access. -1: all devices get access where
    /// they can, and one of them reads: the memory's own where this process sees it, else the first that has access.
    int device = -1;
};

/// What one process can do with another's memory.
struct PeerProbeResult {
    Side side = Side::none;          ///< none: the memory was imported, and held what the peer's GPU had written
    std::optional<Error> why_not{};  ///< where not: cause, cure, and the failed check's id
    std::string peer{};              ///< who the peer is: host, process, device, place in the fabric, channel
    bool same_node = false;          ///< whether both run on one node, where that is known
    int device = -1;                 ///< the ordinal of the device that was to read; -1: it did not come to that
    std::string summary{};           ///< one sentence for humans

    [[nodiscard]] bool usable() const noexcept { return side == Side::none; }
};

/// Imports the memory that `bytes` (of a peer's PeerProbe) name, lets a GPU of this process read it, compares, and lets
/// it go. Does not throw for what the peer or the machine is like, a device that is not here included, only
/// Error{bad_argument} without a driver or time, and std::bad_alloc.
///
/// Beyond the options' timeout the GPU has 10 s to read, and the calls that have it read, of which one may hang where
/// the link to the memory is dead, have 10 s more. What is not over by then goes on in a thread of its own
/// (stuck_calls() counts it), which keeps the memory; so it is where the GPU is late, until the process ends.
[[nodiscard]] FABRICMEM_API PeerProbeResult check_peer_probe(const std::shared_ptr<Driver>& driver,
                                                             std::span<const std::byte> bytes,
                                                             const PeerProbeOptions& options = {});

}  // namespace fabricmem
