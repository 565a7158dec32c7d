// SPDX-License-Identifier: Apache-2.0
// What poll() does: takes imports that are done, copies tokens, looks into the slots. Waits for nothing.
#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "driver/driver_state.hpp"
#include "flags/sealed_slot.hpp"
#include "handshake/core.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::chrono::milliseconds kLongestPause{1000};
constexpr std::chrono::milliseconds kEchoPause{200};  // before a token of the caller's writer is written again
constexpr std::chrono::milliseconds kSettledPause{50};
constexpr std::size_t kCopiesAtOnce = 256;  // the driver's queues have an end, and may wait there
constexpr int kNotSupported = CUDA_ERROR_NOT_SUPPORTED;

// What is mapped is the whole allocation in any case, so that is what the import shows.
HandleBlob whole(HandleBlob blob) {
    blob.offset = 0;
    blob.bytes = blob.mapped_bytes;
    return blob;
}

// Whether it is certain that the two are in different NVLink domains, or partitions of one.
bool is_foreign(const HandleBlob& blob, DriverState& state) {
    if (!blob.fabric.has_value()) return false;
    bool known = false;
    for (const DeviceFacts& device : state.topology()->devices) {
        const auto place = state.fabric_place(device);
        if (!place.has_value()) continue;
        if (*place == *blob.fabric) return false;
        known = true;
    }
    return known;
}

// Other devices of the process may have been given access where the one that writes was not.
std::optional<Error> why_out_of_reach(const ImportedFabricBuffer& buffer, int device, DriverState& state) {
    const std::vector<int>& devices = buffer.access().devices;
    if (std::binary_search(devices.begin(), devices.end(), device)) return std::nullopt;
    const std::string what = formatted("device {} was given no access to {}", device,
                                       buffer.location().is_host() ? "its host memory" : "its device memory");
    const DeviceFacts& facts = state.topology()->devices[static_cast<std::size_t>(device)];
    const auto here = state.fabric_place(facts);
    const auto& there = buffer.blob().fabric;
    if (!there.has_value() || here == there) {
        return Error({.kind = ErrorKind::unsupported,
                      .subject = what,
                      .cause = "the driver gives access to other devices of this process alone",
                      .cure = "look at the links between the devices (nvidia-smi topo), or use another device",
                      .check = "FM-MEMORY-008"});
    }
    const std::string where = here.has_value()
                                  ? formatted("in cluster {} clique {}", to_string(here->cluster_uuid), here->clique)
                                  : std::string("in no NVLink domain");
    return Error({.kind = ErrorKind::foreign_domain,
                  .subject = what,
                  .cause = formatted("that device is {}, and the exporter's in cluster {} clique {}", where,
                                     to_string(there->cluster_uuid), there->clique),
                  .cure = "use a device of the exporter's NVLink domain and partition",
                  .check = "FM-PEER-002"});
}

// No later try changes these. A foreign domain may also be a daemon that is not well.
bool is_final(const Error& error, const HandleBlob& blob, DriverState& state) {
    switch (error.kind()) {
        case ErrorKind::foreign_domain: return is_foreign(blob, state);
        case ErrorKind::unsupported:
        case ErrorKind::bad_blob:
        case ErrorKind::bad_argument:
        case ErrorKind::closed: return true;
        default: return false;
    }
}

CUdeviceptr pointer(const void* address) noexcept {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(address));
}

}  // namespace

std::uint64_t HandshakeCore::staging(std::uint32_t rank, LocationKind memory) const noexcept {
    const std::uint64_t read_area = std::uint64_t{options_.max_ranks} * kSlotStride;
    return read_area + std::uint64_t{rank} * kSlotStride + (memory == LocationKind::device ? 0 : sizeof(SlotBytes));
}

std::size_t HandshakeCore::poll() {
    const DeferredLog deferred;
    std::size_t pending = 0;
    {
        const Lock held = lock();
        pending = step();
        if (due_.empty()) return pending;
    }
    write_by_caller();
    return pending;
}

// The caller's writer runs under no lock that anything else needs. Another thread that is at it does these too.
void HandshakeCore::write_by_caller() {
    const std::unique_lock turn(writer_mutex_, std::try_to_lock);
    if (!turn.owns_lock()) return;
    std::vector<DueWrite> due;
    {
        const Lock held(mutex_);
        due.swap(due_);
    }
    for (const DueWrite& write : due) {
        std::optional<Error> failure;
        try {
            options_.writer({write.rank, write.memory, write.address, write.bytes});
        } catch (const Error& error) {
            failure = error;
        } catch (const std::exception& error) {
            failure = Error({.kind = ErrorKind::unsupported,
                             .subject = formatted("the caller's writer to rank {}: {}", write.rank, error.what())});
        }
        const Lock held(mutex_);
        wrote(write, failure);
    }
}

void HandshakeCore::wrote(const DueWrite& write, const std::optional<Error>& error) {
    const auto found = peers_.find(write.rank);
    if (found == peers_.end() || found->second.attempt != write.attempt) return;
    PeerState& peer = found->second;
    Path& path = write.memory == LocationKind::device ? peer.device : peer.host;
    if (!path.queued.has_value()) return;
    moved_ = true;
    if (error.has_value()) {
        path.queued.reset();
        try_failed(path, write.memory == LocationKind::device ? *peer.hello->device.blob : *peer.hello->host.blob,
                   *error);
        return;
    }
    path.written = std::exchange(path.queued, std::nullopt);
    path.written_at = Clock::now();
    path.error.reset();
}

std::size_t HandshakeCore::step() {
    imports_.look();
    for (auto& [rank, peer] : peers_) {
        if (!peer.hello.has_value() || peer.is_settled()) continue;
        advance_import(peer, peer.device, peer.hello->device);
        advance_import(peer, peer.host, peer.hello->host);
        settle_host(peer);
    }
    if (options_.policy == ProofPolicy::verify) {
        look_into_host_slots();
        try {
            if (port_ != nullptr && !port_error_.has_value()) {
                if (port_->is_idle()) move_copies();
            }
        } catch (const Error& error) {
            port_error_ = error;
        }
        if (port_error_.has_value()) fail_all_pending(*port_error_);
    }
    drop_what_is_idle();
    const auto now = Clock::now();
    std::size_t pending = 0;
    for (auto& [rank, peer] : peers_) {
        update(peer, now);
        if (!peer.is_settled()) ++pending;
    }
    return pending;
}

void HandshakeCore::advance_import(PeerState& peer, Path& path, const HelloRegion& region) {
    if (path.state != PathState::pending || options_.writer != nullptr) return;
    if (path.task != nullptr) {
        if (!path.task->done()) return;
        moved_ = true;
        const std::shared_ptr<ImportTask> task = std::move(path.task);
        try {
            auto imported = task->take();
            path.error = why_out_of_reach(*imported, options_.device, DriverState::of(*driver_));
            if (path.error.has_value()) {
                path.state = PathState::failed;
                imports_.drop(std::move(imported));
                return;
            }
            path.imported = std::move(imported);
            if (options_.policy == ProofPolicy::trust) path.state = PathState::trusted;
        } catch (const Error& error) {
            if (!task->returned()) path.stuck = task;
            try_failed(path, *region.blob, error);
        } catch (const std::exception& error) {
            try_failed(path, *region.blob, Error({.kind = ErrorKind::system, .subject = error.what()}));
        }
    }
    if (path.imported != nullptr || path.state != PathState::pending) return;
    if (path.stuck != nullptr) {
        if (!path.stuck->returned()) return;  // else each try would leave another call behind
        path.stuck.reset();
    }
    // A blob that is newer than the one which failed is tried at once.
    const bool fresh = peer.hello->serial != path.tried_serial;
    if (!fresh && Clock::now() < path.retry_at) return;
    path.tried_serial = peer.hello->serial;
    ++peer.imports_tried;
    // The CPU of one node is given no access to another's memory; asking for it would only be refused.
    const bool near = DriverState::of(*driver_).is_this_node(*region.blob);
    path.task = imports_.start(whole(*region.blob), {.host_access = near ? HostAccess::automatic : HostAccess::none,
                                                     .timeout = std::chrono::milliseconds(0),
                                                     .tear_down_timeout = options_.import_timeout});
}

void HandshakeCore::try_failed(Path& path, const HandleBlob& blob, const Error& error) {
    path.error = error;
    if (is_final(error, blob, DriverState::of(*driver_))) {
        path.state = PathState::failed;
        return;
    }
    path.retry_at = Clock::now() + path.pause;
    path.pause = std::min(path.pause * 2, kLongestPause);
}

// Host memory is done without where it can't be had, and that is not always said plainly: across nodes it needs more
// than device memory does, and is refused with the code of a handle that is gone. With device memory of the same hello
// imported it is not that. And once device memory is proved, it is not tried for ever.
void HandshakeCore::settle_host(PeerState& peer) {
    Path& path = peer.host;
    if (path.state != PathState::pending || path.imported != nullptr || !path.error.has_value()) return;
    if (path.task != nullptr) return;  // the error is of the try before
    const bool refused = path.error->code() == kNotSupported && peer.device.imported != nullptr &&
                         peer.device.tried_serial == path.tried_serial;
    const bool long_enough =
        peer.device_proved.has_value() && Clock::now() - *peer.device_proved > options_.host_patience;
    if (refused || long_enough) path.state = PathState::failed;
}

Token HandshakeCore::token_for(const PeerState& peer, const Path& path, const Path& other) const {
    Token token{.writer = options_.incarnation,
                .reader = peer.hello->incarnation,
                .group = folded(options_.group),
                .rank = options_.rank,
                .attempt = peer.attempt,
                .echo = path.seen};
    if (other.state == PathState::failed && other.error.has_value()) {
        token.trouble = static_cast<std::uint8_t>(1 + static_cast<int>(other.error->kind()));
        token.trouble_code = static_cast<std::uint16_t>(std::clamp(other.error->code(), 0, 0xffff));
    }
    return token;
}

void HandshakeCore::look_into_host_slots() {
    if (!host_.block.is_open()) return;
    const auto* const slots = static_cast<const std::byte*>(host_.block.address());
    for (auto& [rank, peer] : peers_) {
        if (!peer.hello.has_value() || peer.host.state == PathState::absent) continue;
        const SlotBytes bytes = load_slot(slots + std::size_t{rank} * kSlotStride + kTokenOffset);
        take_message(peer, peer.host, peer.device, LocationKind::device, unseal(bytes));
    }
}

// `other_memory`: what `other` goes to.
void HandshakeCore::take_message(PeerState& peer, Path& path, Path& other, LocationKind other_memory,
                                 const std::optional<SlotMessage>& message) {
    const auto token = message.has_value() ? to_token(*message) : std::nullopt;
    if (!token.has_value() || token->group != folded(options_.group) || token->rank != peer.rank ||
        token->reader != options_.incarnation) {
        return;
    }
    if (token->writer != peer.hello->incarnation) {
        const auto lives = former_.find(peer.rank);
        const bool former = lives != former_.end() &&
                            std::find(lives->second.begin(), lives->second.end(), token->writer) != lives->second.end();
        if (!former) path.other_writer = token->writer;
        return;
    }
    const bool echoes = token->echo == peer.attempt;
    moved_ = moved_ || path.seen != token->attempt || (echoes && !path.echoed);
    path.other_writer.reset();
    path.seen = token->attempt;
    path.echoed = path.echoed || echoes;
    if (!echoes) return;  // what it says else may be of an attempt before
    // Proved host memory is given up too where the peer can't use it: both have to agree on where the slots are.
    const bool agreed = other.state == PathState::pending ||
                        (other.state == PathState::proved && other_memory == LocationKind::host_numa);
    if (token->trouble == 0 || !agreed) return;
    other.state = PathState::failed;
    other.error =
        Error({.kind = static_cast<ErrorKind>(token->trouble - 1),
               .code = token->trouble_code,
               .subject = formatted("rank {} could not reach this rank's {} memory, and says so", peer.rank,
                                    other_memory == LocationKind::device ? "device" : "host"),
               .cause = formatted("its import failed: {}{}", to_string(static_cast<ErrorKind>(token->trouble - 1)),
                                  token->trouble_code != 0 ? formatted(" ({})", token->trouble_code) : ""),
               .cure = "look at that rank's own report",
               .check = "FM-PEER-009"});
}

bool HandshakeCore::is_due(const PeerState& peer, const Path& path, const Token& token) const {
    if (path.queued.has_value() || path.state == PathState::absent || path.state == PathState::failed) return false;
    if (options_.writer == nullptr) return path.imported != nullptr && path.written != token;
    if (Clock::now() < path.retry_at) return false;
    // Such a write may be under way only, and be lost: it is made again until it is answered.
    const bool lost = path.state == PathState::pending && Clock::now() - path.written_at > kEchoPause;
    return path.written != token || (lost && !peer.is_settled());
}

void HandshakeCore::write_due(PeerState& peer, Path& path, const HelloRegion& region, LocationKind memory) {
    const Token token = token_for(peer, path, memory == LocationKind::device ? peer.host : peer.device);
    if (!is_due(peer, path, token)) return;
    const SlotBytes bytes = seal(to_message(token, path.sequence + 1));
    const std::uint64_t offset = std::uint64_t{options_.rank} * kSlotStride + kTokenOffset;
    if (options_.writer != nullptr) {
        due_.push_back({peer.rank, peer.attempt, memory, region.address + offset, bytes});
    } else {
        if (copies_ == kCopiesAtOnce) return;
        const std::uint64_t from = staging(peer.rank, memory);
        std::memcpy(port_->bounce() + from, bytes.data(), bytes.size());
        try {
            port_->write(pointer(path.imported->address()) + region.blob->offset + offset, from, bytes.size());
        } catch (const Error& error) {  // of this path alone; a context that is lost says so at the next look
            try_failed(path, *region.blob, error);
            path.state = PathState::failed;
            return;
        }
        ++copies_;
    }
    ++path.sequence;
    path.queued = token;
}

// All at once when what was queued before is done: then it is known what has been written, and what was read is here.
void HandshakeCore::move_copies() {
    bool wanted = false;
    std::uint32_t ranks = 0;
    copies_ = 0;
    for (auto& buffer : dropped_) imports_.drop(std::move(buffer));
    dropped_.clear();
    for (auto& [rank, peer] : peers_) {
        if (!peer.hello.has_value()) continue;
        for (Path* path : {&peer.device, &peer.host}) {
            if (options_.writer != nullptr || !path->queued.has_value()) continue;
            path->written = std::exchange(path->queued, std::nullopt);
            moved_ = true;
        }
        if (peer.device.state == PathState::absent) continue;
        if (reading_ && rank < read_ranks_) {
            SlotBytes bytes;
            std::memcpy(bytes.data(), port_->bounce() + std::size_t{rank} * kSlotStride + kTokenOffset, bytes.size());
            take_message(peer, peer.device, peer.host, LocationKind::host_numa, unseal(bytes));
        }
        wanted = wanted || !peer.is_settled();
        ranks = rank + 1;
    }
    reading_ = false;
    for (auto& [rank, peer] : peers_) {
        if (!peer.hello.has_value()) continue;
        write_due(peer, peer.device, peer.hello->device, LocationKind::device);
        write_due(peer, peer.host, peer.hello->host, LocationKind::host_numa);
    }
    // Peers that are settled may begin anew with this rank, or give host memory up: they are looked at now and then.
    const auto now = Clock::now();
    if (ranks == 0 || (!wanted && now - read_at_ < kSettledPause)) return;
    read_at_ = now;
    port_->read(0, pointer(device_.block.address()), std::size_t{ranks} * kSlotStride);
    reading_ = true;
    read_ranks_ = ranks;
}

void HandshakeCore::fail_all_pending(const Error& error) {
    for (auto& [rank, peer] : peers_) {
        for (Path* path : {&peer.device, &peer.host}) {
            if (path->state != PathState::pending) continue;
            path->state = PathState::failed;
            path->error = error;
        }
    }
}

void HandshakeCore::drop_what_is_idle() {
    if (dropped_.empty() || (port_ != nullptr && !port_->is_at_rest())) return;
    for (auto& buffer : dropped_) imports_.drop(std::move(buffer));
    dropped_.clear();
}

}  // namespace fabricmem::detail
