// SPDX-License-Identifier: Apache-2.0
// The beginning and the end: regions, hellos, peers that come and go.
#include "handshake/core.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "buffer/buffer_parts.hpp"
#include "driver/driver_state.hpp"
#include "error/refuse.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "platform/random_id.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::uint32_t kMaxRanks = 65'536;
constexpr std::size_t kFormerLivesKept = 64;  // of each rank
constexpr auto kPatienceOfDestructor = std::chrono::seconds(5);

std::uint64_t new_incarnation() {
    std::uint64_t value = 0;
    while (value == 0) {
        const Id128 id = random_id();
        std::memcpy(&value, id.bytes.data(), sizeof value);
    }
    return value;
}

void check_options(const HandshakeOptions& options) {
    if (options.max_ranks == 0 || options.max_ranks > kMaxRanks)
        refuse(formatted("max_ranks is {}, not 1 to {}", options.max_ranks, kMaxRanks));
    if (options.world_size > options.max_ranks)
        refuse(formatted("world_size is {}, and max_ranks {}", options.world_size, options.max_ranks));
    if (options.rank >= options.max_ranks)
        refuse(formatted("rank {}, and at most {} ranks", options.rank, options.max_ranks));
    if (options.world_size != 0 && options.rank >= options.world_size)
        refuse(formatted("rank {} of {}", options.rank, options.world_size));
    if (options.retry_pause.count() <= 0) refuse("a retry_pause that is not above 0");
    if (options.host_patience.count() < 0) refuse("a host_patience below 0");
    if (options.import_timeout.count() <= 0) refuse("an import_timeout that is not above 0");
    if (options.device < 0) refuse(formatted("device {}", options.device));
}

// A newer hello of one life may bring fresh handles, and nothing else.
bool same_region(const HelloRegion& a, const HelloRegion& b) {
    if (a.blob.has_value() != b.blob.has_value()) return false;
    if (!a.blob.has_value()) return true;
    HandleBlob blob = *b.blob;
    blob.handle = a.blob->handle;
    blob.created_ns = a.blob->created_ns;
    blob.imex_channel = a.blob->imex_channel;
    blob.fabric = a.blob->fabric;  // may be known only later
    return a.address == b.address && *a.blob == blob;
}

bool same_process(const HandleBlob& a, const HandleBlob& b) noexcept {
    return a.boot_id == b.boot_id && a.pid_namespace == b.pid_namespace && a.process_id == b.process_id &&
           a.process_start == b.process_start;
}

const HandleBlob* any_blob(const Hello& hello) noexcept {
    if (hello.device.blob.has_value()) return &*hello.device.blob;
    return hello.host.blob.has_value() ? &*hello.host.blob : nullptr;
}

HelloRegion hello_region(const SlotRegion& region, bool anew) {
    HelloRegion said;
    said.why_not = region.why_not;
    said.check = region.check;
    if (!region.block.is_open()) return said;
    said.address = reinterpret_cast<std::uintptr_t>(region.block.address());
    said.blob = anew ? region.arena->export_again().sub_range(region.block.offset(), region.block.bytes())
                     : region.block.blob();
    return said;
}

}  // namespace

HandshakeCore::HandshakeCore(std::shared_ptr<Driver> driver, HandshakeOptions options)
    : driver_((check_driver(driver), std::move(driver))),
      options_(std::move(options)),
      born_in_(fork_epoch()),
      imports_(driver_, options_.import_timeout) {
    check_options(options_);
    if (options_.incarnation == 0) options_.incarnation = new_incarnation();
    make_regions();
    for (std::uint32_t rank = 0; rank < options_.world_size; ++rank) {
        if (rank != options_.rank) expected(rank);
    }
}

HandshakeCore::~HandshakeCore() {
    try {
        close(Clock::now() + kPatienceOfDestructor);
    } catch (const std::exception& error) {
        log(LogLevel::error, "a handshake's end: {}", error.what());
    }
}

bool HandshakeCore::forked() const noexcept { return fork_epoch() != born_in_; }

void HandshakeCore::make_regions() {
    device_ = make_region(Location::device(options_.device), options_.device_arena);
    if (options_.placement == SlotPlacement::host_first) {
        host_ = make_region(Location::host_nearest(options_.device), options_.host_arena);
        if (host_.block.is_open() && !host_.block.access().host) {
            if (options_.host_arena != nullptr) refuse("host_arena gives the CPU no access");
            host_ = {nullptr, Block(), "the driver gives the CPU no access to host fabric memory"};
        }
    } else {
        host_.why_not = "slots were asked for on devices";
    }
    if (!device_.block.is_open() || options_.policy == ProofPolicy::trust) return;
    // Our device slots are read into the first part of it, and what is written lies in the second.
    const std::uint64_t bytes = std::uint64_t{options_.max_ranks} * kSlotStride * 2;
    try {
        port_ = std::make_unique<CopyPort>(driver_, options_.device, bytes);
    } catch (const Error& error) {
        device_ = {nullptr, Block(), formatted("device {} can't copy: {}", options_.device, error.what()),
                   error.details().check};
        host_ = {nullptr, Block(), device_.why_not, device_.check};
    }
}

SlotRegion HandshakeCore::make_region(const Location& location, const std::shared_ptr<Arena>& given) {
    const std::uint64_t bytes = std::uint64_t{options_.max_ranks} * kSlotStride;
    if (given != nullptr) {
        if (given->driver() != driver_) refuse("an arena of another driver");
        if (given->location().is_host() != location.is_host() ||
            (!location.is_host() && given->location() != location)) {
            refuse(formatted("an arena on {} where one on {} is wanted", to_string(given->location()),
                             to_string(location)));
        }
        return {given, given->allocate(bytes, kSlotStride), {}};
    }
    try {
        auto arena = std::make_shared<Arena>(driver_, bytes, FabricBufferOptions{.location = location});
        Block block = arena->allocate(bytes, kSlotStride);
        return {std::move(arena), std::move(block), {}};
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::bad_argument) throw;
        log(LogLevel::info, "a handshake goes on without memory on {}: {}", to_string(location), error.what());
        return {nullptr, Block(), error.what(), error.details().check};
    }
}

HandshakeCore::Lock HandshakeCore::lock() const {
    if (forked()) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = "the handshake was made before this process was forked",
                     .cause = "CUDA does not survive fork()",
                     .cure = "start the child with exec, and make its handshake there",
                     .check = "FM-DRIVER-007"});
    }
    Lock held(mutex_);
    if (closed_) throw Error({.kind = ErrorKind::closed, .subject = "the handshake is closed"});
    return held;
}

std::vector<std::byte> HandshakeCore::hello() {
    const DeferredLog deferred;
    const Lock held = lock();
    const bool missing =
        std::any_of(peers_.begin(), peers_.end(), [](const auto& entry) { return !entry.second.is_settled(); });
    const bool anew = serial_ != 0 && missing;
    Hello hello{.rank = options_.rank,
                .world_size = options_.world_size,
                .max_ranks = options_.max_ranks,
                .incarnation = options_.incarnation,
                .serial = anew || serial_ == 0 ? serial_ + 1 : serial_,
                .group = options_.group,
                .device = hello_region(device_, anew),
                .host = hello_region(host_, anew)};
    serial_ = hello.serial;
    return hello.to_bytes();
}

Hello HandshakeCore::check_hello(std::uint32_t rank, std::span<const std::byte> bytes) const {
    Hello hello = Hello::from_bytes(bytes);
    const auto conflict = [&](std::string what, std::string cure) {
        return Error({.kind = ErrorKind::conflict,
                      .subject = formatted("the hello of rank {}: {}", rank, what),
                      .cure = std::move(cure)});
    };
    if (hello.group != options_.group) {
        throw conflict(
            formatted("it is of the group {}, and this is {}", to_string(hello.group), to_string(options_.group)),
            "keep the jobs' channels apart");
    }
    if (hello.rank != rank) throw conflict(formatted("it is rank {}'s", hello.rank), "look at how the channel numbers");
    if (hello.world_size != options_.world_size && hello.world_size != 0 && options_.world_size != 0) {
        throw conflict(formatted("it says world_size {}, and this rank says {}", hello.world_size, options_.world_size),
                       "start all ranks with the same number, or let all of them grow()");
    }
    if (hello.max_ranks <= options_.rank) {
        throw conflict(formatted("it has slots for {} ranks, and this is rank {}", hello.max_ranks, options_.rank),
                       "start all ranks with the same max_ranks");
    }
    return hello;
}

void HandshakeCore::check_other_process(const PeerState& peer, const Hello& hello) const {
    if (!peer.hello.has_value()) return;
    const HandleBlob* const known = any_blob(*peer.hello);
    const HandleBlob* const other = any_blob(hello);
    if (known == nullptr || other == nullptr || same_process(*known, *other)) return;
    if (!known->process_id.has_value() || !known->process_start.has_value()) return;
    DriverState& state = DriverState::of(*driver_);
    if (!state.is_this_node(*known) || state.identity()->pid_namespace != known->pid_namespace) return;
    if (driver_->platform().process_state(*known->process_id, *known->process_start) != ProcessState::alive) return;
    throw Error({.kind = ErrorKind::conflict,
                 .subject = formatted("two processes are rank {}", peer.rank),
                 .cause = formatted("process {} has that number and lives, and process {} has it too",
                                    *known->process_id, other->process_id.value_or(0)),
                 .cure = "give each process a number of its own, or remove_peer() the one that is to go"});
}

bool HandshakeCore::add_peer(std::uint32_t rank, std::span<const std::byte> bytes) {
    const DeferredLog deferred;
    const Lock held = lock();
    check_rank(rank);
    if (rank == options_.rank) {
        if (check_hello(rank, bytes).incarnation == options_.incarnation) return false;
        throw Error({.kind = ErrorKind::conflict,
                     .subject = formatted("another process is rank {}, as this one", rank),
                     .cause = "two ranks were started with one number, or the channel still has a hello of this rank's "
                              "life before",
                     .cure = "give each process a number of its own"});
    }
    try {
        Hello hello = check_hello(rank, bytes);
        check_former_life(rank, hello.incarnation);
        PeerState& peer = expected(rank);
        if (!peer.hello.has_value() || peer.hello->incarnation != hello.incarnation) {
            check_other_process(peer, hello);
            begin_anew(peer, std::move(hello));
            return true;
        }
        if (hello.max_ranks != peer.hello->max_ranks || !same_region(peer.hello->device, hello.device) ||
            !same_region(peer.hello->host, hello.host)) {
            throw Error(
                {.kind = ErrorKind::bad_blob,
                 .subject = formatted("the hello of rank {}: a life of one incarnation has other memory now", rank)});
        }
        if (hello.serial <= peer.hello->serial) return false;
        peer.hello = std::move(hello);
        return true;
    } catch (const Error& error) {
        const auto there = peers_.find(rank);
        if (there != peers_.end() && !there->second.hello.has_value()) there->second.error = error;
        throw;
    }
}

void HandshakeCore::check_former_life(std::uint32_t rank, std::uint64_t incarnation) const {
    const auto lives = former_.find(rank);
    if (lives == former_.end()) return;
    if (std::find(lives->second.begin(), lives->second.end(), incarnation) == lives->second.end()) return;
    throw Error({.kind = ErrorKind::conflict,
                 .subject = formatted("the hello of rank {} is of a former life of its, {:x}", rank, incarnation),
                 .cause = "the channel is late, or two processes are that rank and take turns",
                 .cure = "give each process a number of its own"});
}

PeerState& HandshakeCore::expected(std::uint32_t rank) {
    const auto [place, is_new] = peers_.try_emplace(rank);
    if (is_new) {
        place->second.rank = rank;
        place->second.since = Clock::now();
    }
    return place->second;
}

void HandshakeCore::begin_anew(PeerState& peer, Hello hello) {
    const bool had_a_life = peer.hello.has_value();
    if (had_a_life) {
        auto& lives = former_[peer.rank];
        if (lives.size() == kFormerLivesKept) lives.erase(lives.begin());
        lives.push_back(peer.hello->incarnation);
    }
    drop(peer.device);
    drop(peer.host);
    peer.error.reset();
    peer.imports_tried = 0;
    peer.device_proved.reset();
    peer.attempt = ++attempts_ == 0 ? ++attempts_ : attempts_;
    const auto begin = [&](Path& path, const HelloRegion& theirs, const SlotRegion& ours, const char* kind) {
        path = Path();
        path.pause = options_.retry_pause;
        if (!ours.block.is_open()) {
            path.reason = formatted("this rank has no {} memory: {}", kind, ours.why_not);
            path.absent_check = ours.check;
        } else if (!theirs.blob.has_value()) {
            path.reason = formatted("rank {} has no {} memory: {}{}", peer.rank, kind, theirs.why_not,
                                    theirs.check.empty() ? "" : formatted(" (its check {})", theirs.check));
            path.absent_check = "FM-PEER-006";
        } else {
            // Trusted without an import where the way is the caller's.
            const bool now = options_.policy == ProofPolicy::trust && options_.writer != nullptr;
            path.state = now ? PathState::trusted : PathState::pending;
        }
    };
    begin(peer.device, hello.device, device_, "device");
    begin(peer.host, hello.host, host_, "host");
    peer.hello = std::move(hello);
    enter(peer, PeerStage::importing, Clock::now());
    if (had_a_life) peer.spent = {};  // else the wait for the first hello is part of it
}

void HandshakeCore::drop(Path& path) {
    imports_.drop(path.task);
    path.task.reset();
    if (path.imported != nullptr) dropped_.push_back(std::move(path.imported));
}

void HandshakeCore::remove_peer(std::uint32_t rank) {
    const DeferredLog deferred;
    const Lock held = lock();
    const auto found = peers_.find(rank);
    if (found == peers_.end()) return;
    drop(found->second.device);
    drop(found->second.host);
    peers_.erase(found);
    drop_what_is_idle();
}

void HandshakeCore::check_rank(std::uint32_t rank) const {
    if (rank >= options_.max_ranks)
        refuse(formatted("rank {}, and there are slots for {} ranks", rank, options_.max_ranks));
}

void HandshakeCore::expect_peer(std::uint32_t rank) {
    const Lock held = lock();
    check_rank(rank);
    if (rank != options_.rank) expected(rank);
}

void HandshakeCore::grow(std::uint32_t world_size) {
    const Lock held = lock();
    if (world_size < options_.world_size || world_size > options_.max_ranks || world_size <= options_.rank) {
        refuse(formatted("a group of {} that is to have {} ranks, with slots for {}", options_.world_size, world_size,
                         options_.max_ranks));
    }
    for (std::uint32_t rank = options_.world_size; rank < world_size; ++rank) {
        if (rank != options_.rank) expected(rank);
    }
    options_.world_size = world_size;
}

std::shared_ptr<Arena> HandshakeCore::arena(LocationKind memory) const noexcept {
    if (forked()) return nullptr;
    const Lock held(mutex_);
    return memory == LocationKind::device ? device_.arena : host_.arena;
}

const Path* HandshakeCore::connected_path(std::uint32_t rank, LocationKind memory) const {
    const auto found = peers_.find(rank);
    if (found == peers_.end() || found->second.stage != PeerStage::connected) return nullptr;
    return memory == LocationKind::device ? &found->second.device : &found->second.host;
}

std::shared_ptr<const ImportedFabricBuffer> HandshakeCore::imported(std::uint32_t rank, LocationKind memory) const {
    const Lock held = lock();
    const Path* const path = connected_path(rank, memory);
    return path == nullptr ? nullptr : path->imported;
}

void* HandshakeCore::translate(std::uint32_t rank, LocationKind memory, std::uint64_t peer_address,
                               std::uint64_t bytes) const {
    const Lock held = lock();
    const Path* const path = connected_path(rank, memory);
    if (path == nullptr) refuse(formatted("rank {} is not connected", rank));
    if (path->imported == nullptr) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = formatted("rank {}'s {} memory is not imported here", rank,
                                          memory == LocationKind::device ? "device" : "host")});
    }
    const Hello& hello = *peers_.at(rank).hello;
    const HelloRegion& region = memory == LocationKind::device ? hello.device : hello.host;
    const std::uint64_t base = region.address - region.blob->offset;
    const std::uint64_t mapped = path->imported->mapped_bytes();
    if (peer_address < base || peer_address - base > mapped || bytes > mapped - (peer_address - base)) {
        refuse(formatted("{} bytes at {:#x} are not in the {} bytes at {:#x} that rank {} exported", bytes,
                         peer_address, mapped, base, rank));
    }
    return static_cast<std::byte*>(path->imported->address()) + (peer_address - base);
}

// What a copy may still be under way to must not be unmapped, or the context is lost.
void HandshakeCore::end_copies(Clock::time_point deadline) {
    const auto idle = [&](CopyPort* port) {
        try {
            return port == nullptr || port->wait(deadline) == Finished::yes;
        } catch (const Error&) {
            return port->is_at_rest();
        }
    };
    const Turn::Held health(health_turn_, deadline);
    const bool health_idle = health && idle(health_port_.get());
    if (health) {
        health_over_ = true;
        if (!health_idle) leave_to_parent(new (std::nothrow) auto(std::move(under_check_)));
        for (auto& buffer : under_check_) imports_.drop(std::move(buffer));
        under_check_.clear();
        health_port_.reset();
    }
    const bool port_idle = idle(port_.get());
    if (!port_idle) {
        leave_to_parent(new (std::nothrow) auto(std::move(dropped_)));
        dropped_.clear();
        const Lock held(mutex_);
        leave_to_parent(new (std::nothrow) SlotRegion(std::move(device_)));
    }
    port_.reset();
    if (health_idle && port_idle) return;
    throw Error({.kind = ErrorKind::timed_out,
                 .subject = health ? "copies of the handshake's are still under way"
                                   : "a health check of the handshake's is still under way",
                 .cause = "the GPU did not get to them by the deadline",
                 .cure = "look for a GPU in trouble; the memory is kept until the process ends",
                 .check = "FM-MEMORY-011"});
}

void HandshakeCore::close(Clock::time_point deadline) {
    const DeferredLog deferred;
    if (forked()) static_cast<void>(lock());  // throws
    {
        const Lock held(mutex_);
        if (closed_) return;
        closed_ = true;
        for (auto& [rank, peer] : peers_) {
            drop(peer.device);
            drop(peer.host);
        }
        peers_.clear();
        due_.clear();
    }
    // Everybody else is told that it is closed from here on, and touches nothing of what follows.
    std::optional<Error> failure;
    try {
        end_copies(deadline);
    } catch (const Error& error) {
        failure = error;
    }
    for (auto& buffer : dropped_) imports_.drop(std::move(buffer));
    dropped_.clear();
    if (!imports_.wait_until_idle(deadline)) log(LogLevel::warning, "imports of a closed handshake have not ended yet");
    {
        const Lock held(mutex_);
        device_ = {};
        host_ = {};
    }
    if (failure.has_value()) throw Error(*failure);
}

}  // namespace fabricmem::detail
