// SPDX-License-Identifier: Apache-2.0
// What a Handshake is made of: this rank's regions, what is known of each peer, and the two things that go on beside
// it, imports on their thread and copies on their stream.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/handshake.hpp>

#include "flags/sealed_slot.hpp"
#include "handshake/hello.hpp"
#include "handshake/import_queue.hpp"
#include "handshake/token.hpp"
#include "vmm/copy_port.hpp"
#include "worker/turn.hpp"

namespace fabricmem::detail {

/// This rank's slots of one kind of memory.
struct SlotRegion {
    std::shared_ptr<Arena> arena;
    Block block;  // open where there is a region
    std::string why_not;
    std::string check{};  // that failed then
};

/// A way to one kind of a peer's memory, and back to ours.
struct Path {
    PathState state = PathState::absent;
    std::string reason;
    std::string absent_check;  // that failed where one of the sides has no memory
    std::optional<Error> error;

    std::shared_ptr<ImportTask> task;   // under way
    std::shared_ptr<ImportTask> stuck;  // given up: no other is begun until it comes back
    std::uint64_t tried_serial = 0;     // of the hello whose blob was tried last
    std::chrono::steady_clock::time_point retry_at{};
    std::chrono::milliseconds pause{0};
    std::shared_ptr<const ImportedFabricBuffer> imported;

    std::uint32_t seen = 0;        // the peer's attempt, in a token of its that is meant for us and lies in our slot
    bool echoed = false;           // and one of those has said that ours is in its
    std::optional<Token> queued;   // a copy of it is under way, or the caller's writer is at it
    std::optional<Token> written;  // is in the peer's slot
    std::chrono::steady_clock::time_point written_at{};
    std::uint64_t sequence = 0;                 // of what was written last
    std::optional<std::uint64_t> other_writer;  // an incarnation that uses the peer's slot and is not the peer's
};

struct PeerState {
    std::uint32_t rank = 0;
    std::optional<Hello> hello;
    PeerStage stage = PeerStage::no_hello;
    std::optional<Error> error;
    std::uint32_t attempt = 0;  // of ours with this peer: another one each time that it begins anew
    std::optional<std::chrono::steady_clock::time_point> device_proved{};
    Path device;
    Path host;
    std::uint32_t imports_tried = 0;
    std::chrono::steady_clock::time_point since{};               // in this stage
    std::array<std::chrono::steady_clock::duration, 3> spent{};  // in no_hello, importing, proving

    [[nodiscard]] bool is_settled() const noexcept {
        return stage == PeerStage::connected || stage == PeerStage::failed;
    }
};

/// A write that the caller's writer is to make, and where its outcome belongs.
struct DueWrite {
    std::uint32_t rank = 0;
    std::uint32_t attempt = 0;
    LocationKind memory{};
    std::uint64_t address = 0;
    SlotBytes bytes{};
};

class HandshakeCore {
public:
    using Clock = std::chrono::steady_clock;

    HandshakeCore(std::shared_ptr<Driver> driver, HandshakeOptions options);
    HandshakeCore(const HandshakeCore&) = delete;
    HandshakeCore& operator=(const HandshakeCore&) = delete;
    /// Not in a forked child: there it has to be left as it is, locks and all.
    ~HandshakeCore();

    // As Handshake's.
    [[nodiscard]] std::vector<std::byte> hello();
    bool add_peer(std::uint32_t rank, std::span<const std::byte> bytes);
    void expect_peer(std::uint32_t rank);
    void grow(std::uint32_t world_size);
    void remove_peer(std::uint32_t rank);
    std::size_t poll();
    HandshakeReport wait(Clock::time_point deadline);
    [[nodiscard]] HandshakeReport report() const;
    [[nodiscard]] PeerReport peer(std::uint32_t rank) const;
    void health_check(std::uint32_t rank, Clock::time_point deadline);
    [[nodiscard]] std::shared_ptr<const ImportedFabricBuffer> imported(std::uint32_t rank, LocationKind memory) const;
    [[nodiscard]] void* translate(std::uint32_t rank, LocationKind memory, std::uint64_t peer_address,
                                  std::uint64_t bytes) const;
    void close(Clock::time_point deadline);

    [[nodiscard]] const HandshakeOptions& options() const noexcept { return options_; }
    [[nodiscard]] std::shared_ptr<Arena> arena(LocationKind memory) const noexcept;
    [[nodiscard]] bool forked() const noexcept;

private:
    enum class Deadline : std::uint8_t { ahead, passed };
    using Lock = std::unique_lock<std::mutex>;

    // core.cpp
    void make_regions();
    [[nodiscard]] SlotRegion make_region(const Location& location, const std::shared_ptr<Arena>& given);
    [[nodiscard]] Lock lock() const;  // throws where the object can't be used
    void check_rank(std::uint32_t rank) const;
    [[nodiscard]] const Path* connected_path(std::uint32_t rank, LocationKind memory) const;
    [[nodiscard]] Hello check_hello(std::uint32_t rank, std::span<const std::byte> bytes) const;
    void check_other_process(const PeerState& peer, const Hello& hello) const;
    void check_former_life(std::uint32_t rank, std::uint64_t incarnation) const;
    PeerState& expected(std::uint32_t rank);
    void begin_anew(PeerState& peer, Hello hello);
    void drop(Path& path);
    void end_copies(Clock::time_point deadline);

    // progress.cpp
    [[nodiscard]] std::size_t step();
    void write_by_caller();
    void wrote(const DueWrite& write, const std::optional<Error>& error);
    void settle_host(PeerState& peer);
    void advance_import(PeerState& peer, Path& path, const HelloRegion& region);
    void try_failed(Path& path, const HandleBlob& blob, const Error& error);
    void look_into_host_slots();
    void take_message(PeerState& peer, Path& path, Path& other, LocationKind memory,
                      const std::optional<SlotMessage>& message);
    void move_copies();
    [[nodiscard]] bool is_due(const PeerState& peer, const Path& path, const Token& token) const;
    void write_due(PeerState& peer, Path& path, const HelloRegion& region, LocationKind memory);
    [[nodiscard]] Token token_for(const PeerState& peer, const Path& path, const Path& other) const;
    void fail_all_pending(const Error& error);
    void drop_what_is_idle();

    void let_checked_go();  // health.cpp

    // verdict.cpp
    void update(PeerState& peer, Clock::time_point now);
    [[nodiscard]] bool can_still_tell(const PeerState& peer) const;
    void enter(PeerState& peer, PeerStage stage, Clock::time_point now);
    void settle_at_deadline(PeerState& peer, Clock::time_point now);
    [[nodiscard]] Error why_late(const PeerState& peer) const;
    [[nodiscard]] PeerReport report_of(const PeerState& peer, Deadline deadline) const;
    [[nodiscard]] HandshakeReport report_all(Deadline deadline) const;
    [[nodiscard]] PeerReport own_report() const;

    [[nodiscard]] std::uint64_t staging(std::uint32_t rank, LocationKind memory) const noexcept;

    std::shared_ptr<Driver> driver_;
    HandshakeOptions options_;
    std::uint64_t born_in_;
    SlotRegion device_;
    SlotRegion host_;

    mutable std::mutex mutex_;  // guards what follows
    std::map<std::uint32_t, PeerState> peers_;
    std::map<std::uint32_t, std::vector<std::uint64_t>> former_;  // incarnations that were, by rank
    std::uint32_t attempts_ = 0;
    std::uint64_t serial_ = 0;
    bool closed_ = false;
    bool moved_ = false;  // since somebody last cared: more may follow soon
    std::vector<DueWrite> due_;
    std::vector<std::shared_ptr<const ImportedFabricBuffer>> dropped_;  // a copy to them may be under way: they outlive
    std::unique_ptr<CopyPort> port_;                                    // this
    bool reading_ = false;  // our device slots are on their way to the bounce memory
    Clock::time_point read_at_{};
    std::uint32_t read_ranks_ = 0;     // as many of them
    std::size_t copies_ = 0;           // queued in this round
    std::optional<Error> port_error_;  // nothing can be copied any more
    ImportQueue imports_;

    std::mutex writer_mutex_;  // held while the caller's writer is called, and nothing else is

    Turn health_turn_;  // guards what follows; the other may be taken under it, not it under the other
    std::vector<std::shared_ptr<const ImportedFabricBuffer>> under_check_;
    std::unique_ptr<CopyPort> health_port_;
    std::uint64_t health_sequence_ = 0;
    bool health_over_ = false;
};

}  // namespace fabricmem::detail
