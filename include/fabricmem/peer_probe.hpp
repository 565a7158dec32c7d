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

/// What one process can do with another's memory.
struct PeerProbeResult {
    Side side = Side::none;          ///< none: the memory was imported, and held what the peer's GPU had written
    std::optional<Error> why_not{};  ///< where not: cause, cure, and the failed check's id
    std::string peer{};              ///< who the peer is: host, process, device, place in the fabric, channel
    bool same_node = false;          ///< whether both run on one node, where that is known
    std::string summary{};           ///< one sentence for humans

    [[nodiscard]] bool usable() const noexcept { return side == Side::none; }
};

/// Imports the memory that `bytes` (of a peer's PeerProbe) name, lets a GPU of this process read it, compares, and lets
/// it go. Does not throw for what the peer or the machine is like, only Error{bad_argument} without a driver, and
/// std::bad_alloc. `timeout` is for the import and its end, which ask the IMEX daemons of two nodes; the GPU has 10 s
/// more to read.
[[nodiscard]] FABRICMEM_API PeerProbeResult
check_peer_probe(const std::shared_ptr<Driver>& driver, std::span<const std::byte> bytes,
                 std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000));

}  // namespace fabricmem
