// SPDX-License-Identifier: Apache-2.0
// Peers meet: each brings a region of fabric memory, imports the others', and writes into them, so that it knows by a
// deadline who can be reached, or why not. Needs any channel that carries bytes; knows no store and no socket. No CUDA.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/arena.hpp>
#include <fabricmem/checks.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem {

class Driver;

namespace detail {
class HandshakeCore;
}

enum class ProofPolicy : std::uint8_t {
    verify,  ///< a peer is connected when bytes were seen to travel both ways
    trust,   ///< a peer is connected when its regions are imported; nothing is written, and the report says so
};

enum class SlotPlacement : std::uint8_t {
    host_first,  ///< on host memory where both sides have it and it can be reached, so that plain loads read the slots;
                 ///< else on device memory
    device,
};

/// What a Writer is to do: put `bytes` into a peer's memory.
struct WriteRequest {
    std::uint32_t rank = 0;          ///< the peer's
    LocationKind memory{};           ///< device or host_numa: of which of its regions
    std::uint64_t peer_address = 0;  ///< where it is in the peer's own address space, as transports that exchange raw
                                     ///< addresses want it
    std::span<const std::byte> bytes{};
};
/// Writes before it returns, or puts the write under way; the bytes need not live on after the call. What it throws
/// is tried again with back-off where it is an Error whose kind may pass (timed_out, peer_gone, not_permitted,
/// conflict, system, out_of_memory, driver), and else fails that path of the peer. Called by poll() and wait(), never
/// by two threads at once, and must not call back.
using Writer = std::function<void(const WriteRequest&)>;

struct HandshakeOptions {
    std::uint32_t rank = 0;
    /// Ranks 0 to world_size - 1 are expected and named where they are missing; 0: whoever is added.
    std::uint32_t world_size = 0;
    /// Sizes the slots: ranks below this can be added, at any time. 1 to 65,536.
    std::uint32_t max_ranks = 1024;
    /// Which group this is; a peer's hello of another one is refused. Several groups may live side by side.
    Id128 group{};
    /// Of this rank's life: another one each time that it starts. 0: the library chooses.
    std::uint64_t incarnation = 0;
    ProofPolicy policy = ProofPolicy::verify;
    SlotPlacement placement = SlotPlacement::host_first;
    /// The device that writes into the peers' memory, and whose memory is proved.
    int device = 0;
    /// The regions are blocks of these, so that groups can share them and peers import what else is in them; null: the
    /// handshake makes its own (2 MiB each). The host's has to have host access.
    std::shared_ptr<Arena> device_arena{};
    std::shared_ptr<Arena> host_arena{};
    /// Sends the tokens in place of the built-in writer (copies by the device). Nothing is imported then: reaching the
    /// peer's memory is the writer's business.
    Writer writer{};
    /// How long one import may take before it is given up and tried again.
    std::chrono::milliseconds import_timeout{10'000};
    /// How long a peer's host memory is tried on once its device memory is proved, before it is done without.
    std::chrono::milliseconds host_patience{2'000};
    /// First pause before a failed import is tried again; doubled each time, up to 1 s.
    std::chrono::milliseconds retry_pause{10};
};

enum class PeerStage : std::uint8_t {
    no_hello,   ///< nothing was heard of it
    importing,  ///< its regions are being imported; a failure that may pass is tried again
    proving,    ///< imported; its token, or its echo of ours, has not come yet
    connected,
    failed,  ///< error says why, and no retry helps; another incarnation of the peer begins anew
    self,    ///< this rank; error says so where it has no fabric memory of its own
};
[[nodiscard]] FABRICMEM_API std::string_view to_string(PeerStage stage) noexcept;

enum class PathState : std::uint8_t {
    absent,   ///< one of the sides has no such region: reason
    pending,  ///< not proved yet: stage of the peer
    proved,   ///< bytes were seen both ways
    trusted,  ///< imported, and not tried: ProofPolicy::trust
    failed,   ///< error
};
[[nodiscard]] FABRICMEM_API std::string_view to_string(PathState state) noexcept;

/// One way to a peer's memory.
struct PathReport {
    PathState state = PathState::absent;
    /// The device that wrote; -1: the caller's Writer, or nobody.
    int from_device = -1;
    std::string reason{};          ///< of absent
    std::optional<Error> error{};  ///< of failed; of pending, what the last try met
};

struct PeerReport {
    std::uint32_t rank = 0;
    PeerStage stage = PeerStage::no_hello;
    std::uint64_t incarnation = 0;  ///< the peer's; 0: not known
    PathReport host{};              ///< into the peer's host memory
    PathReport device{};            ///< into the peer's device memory
    /// Where the slots are that this pair uses, and why: host_numa or device.
    LocationKind slots = LocationKind::device;
    std::string slots_reason{};
    std::chrono::microseconds in_no_hello{0};  ///< time in each stage so far
    std::chrono::microseconds in_importing{0};
    std::chrono::microseconds in_proving{0};
    std::uint32_t imports_tried = 0;
    std::optional<Error> error{};  ///< of failed; after a wait() that ended at its deadline, why not connected by then
    Side side = Side::none;        ///< of error: on which side it has to be mended
};

struct FABRICMEM_API HandshakeReport {
    std::vector<PeerReport> peers{};  ///< of all expected and added ranks, ascending, this one too
    std::size_t connected = 0;        ///< this rank not counted
    std::size_t failed = 0;
    std::size_t pending = 0;

    [[nodiscard]] bool all_connected() const noexcept { return failed == 0 && pending == 0; }
    /// One line for each peer that is not connected: rank, stage, why.
    [[nodiscard]] std::string describe() const;
};

/// A rank's side of the meeting of a group. Bytes from hello() have to reach the others, theirs have to come to
/// add_peer(), by whatever channel there is, in any order and as often as one likes. A peer is connected when a token
/// with both sides' incarnations, which it wrote, was seen here, and its echo says that ours was seen there, in each
/// kind of memory that both sides have. Tokens are written by a GPU (a copy on a non-blocking stream of our own), so
/// what is proved is the path that data will take; it is never waited for inside poll().
///
/// A peer that comes back with another incarnation begins anew: its import is dropped and its old tokens mean nothing.
/// Device memory has to be reached, since that is where the data will be. Where a peer's host memory can't be, both
/// sides go on without it, and the report says why: the slots of that pair are on devices then.
///
/// Threads: all members may be called from many threads; they take turns. The driver stays alive with the object.
/// After fork() the child's copy does nothing, and its calls throw Error{unsupported}.
class FABRICMEM_API Handshake {
public:
    /// Makes the regions. Where that fails it goes on without: the others are told why, so that they need not wait, and
    /// this rank's own entry in the report says so. Throws Error: bad_argument (a rank that is not below max_ranks, an
    /// arena of the wrong kind or too full), unsupported (a forked child).
    Handshake(std::shared_ptr<Driver> driver, HandshakeOptions options);
    Handshake(const Handshake&) = delete;
    Handshake& operator=(const Handshake&) = delete;
    /// As close(), and does not throw.
    ~Handshake();

    /// What the others need: the incarnation and the regions' blobs, kHelloBytes long. Each call exports anew where a
    /// peer is not connected yet: a handle that was exported before the IMEX daemon was up is never good elsewhere, a
    /// fresh one is. So publish it again while peers are missing.
    [[nodiscard]] std::vector<std::byte> hello();
    static constexpr std::size_t kHelloBytes = 1280;

    /// Takes a peer's hello. The same again changes nothing; a newer one of the same incarnation is used for the next
    /// try; one of another incarnation begins anew, and drops what was. Returns whether anything is new. Throws Error:
    /// bad_argument (a rank beyond max_ranks), bad_blob (the bytes are no hello), conflict (they are of another rank or
    /// group, of a group of another size where both know one, of a life that has been followed by another one, or of
    /// another process with this very rank). What it throws stays in an
    /// expected peer's report too, unless the peer is better off already.
    bool add_peer(std::uint32_t rank, std::span<const std::byte> hello);
    /// Names a rank that is to come, as world_size does for the first ones: it is waited for and reported. Nothing is
    /// done for one that is there. Throws Error{bad_argument} for a rank beyond max_ranks.
    void expect_peer(std::uint32_t rank);
    /// The group has more ranks from now on: those between are expected. hello() tells the new number; a hello with the
    /// old one is a conflict, and so is this rank's for those who have not grown yet, so publish it again. Throws
    /// Error{bad_argument} for a smaller number and for more than max_ranks.
    void grow(std::uint32_t world_size);
    /// Drops the peer's import and forgets it; its tokens mean nothing any more. Nothing is done for a rank that is not
    /// there. An expected rank is expected no longer.
    void remove_peer(std::uint32_t rank);

    /// Does what can be done without waiting: takes imports that are done, writes tokens, looks into the slots. Returns
    /// the number of peers that are neither connected nor failed.
    std::size_t poll();
    /// Polls until every expected or added peer is connected or failed, or the deadline has come; pending ones have
    /// then an error that names their stage, and go on being pending. Never longer than the deadline and a poll, for
    /// which see docs/handshake.md: calls that ask other nodes are on threads of their own.
    HandshakeReport wait(std::chrono::steady_clock::time_point deadline);

    [[nodiscard]] HandshakeReport report() const;
    /// Throws Error{bad_argument} for a rank that was neither expected nor added.
    [[nodiscard]] PeerReport peer(std::uint32_t rank) const;

    /// Writes into each of a connected peer's regions and reads that back from there, by the device, and looks whether
    /// the peer's process is alive where that can be told (the same boot and pid namespace): memory outlives its
    /// exporter while it is imported. Throws Error: bad_argument (not connected), timed_out, peer_gone, unsupported
    /// (with a Writer of the caller's or ProofPolicy::trust with nothing imported), driver.
    void health_check(std::uint32_t rank, std::chrono::steady_clock::time_point deadline);

    /// A connected peer's memory as it is mapped here: the whole of the arena that its region lies in, so that whatever
    /// else is in there can be reached at address() + its blob's offset. Null where there is none. Valid, and the
    /// memory with it, for as long as the pointer is held; a peer that comes back has another one.
    [[nodiscard]] std::shared_ptr<const ImportedFabricBuffer> imported(std::uint32_t rank, LocationKind memory) const;

    /// Where `bytes` at `peer_address`, an address of the peer's own in that arena, are mapped here: for transports
    /// that exchange raw addresses. Good for as long as imported() would return the same. Throws Error: bad_argument
    /// (not connected, or not wholly in that memory), unsupported (nothing of that kind is imported).
    [[nodiscard]] void* translate(std::uint32_t rank, LocationKind memory, std::uint64_t peer_address,
                                  std::uint64_t bytes) const;

    [[nodiscard]] std::uint32_t rank() const noexcept;
    [[nodiscard]] std::uint64_t incarnation() const noexcept;
    /// The arenas that the regions lie in; the host's is null where there is no host region.
    [[nodiscard]] std::shared_ptr<Arena> device_arena() const noexcept;
    [[nodiscard]] std::shared_ptr<Arena> host_arena() const noexcept;

    /// Drops all imports and the regions. Peers that still write do so into memory that lives as long as they hold it.
    /// Waits for copies that are under way until `deadline`, and keeps what they touch for ever where they don't end:
    /// then Error{timed_out}. A second call does nothing. Any other member throws Error{closed} afterwards.
    /// Blocks of an arena that others share are given back to it: close when the peers are done with this rank, since
    /// what a peer still writes then lands in whatever has its place.
    void close(std::chrono::steady_clock::time_point deadline);

private:
    std::unique_ptr<detail::HandshakeCore> core_;
};

}  // namespace fabricmem
