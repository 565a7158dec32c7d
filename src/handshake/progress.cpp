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
    const Lock held = lock();
    return step();
}

std::size_t HandshakeCore::step() {
    imports_.look();
    for (auto& [rank, peer] : peers_) {
        if (!peer.hello.has_value() || peer.is_settled()) continue;
        advance_import(peer, peer.device, peer.hello->device);
        advance_import(peer, peer.host, peer.hello->host);
    }
    if (options_.policy == ProofPolicy::verify) {
        look_into_host_slots();
        try {
            if (port_ != nullptr && !port_error_.has_value()) move_copies();
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
            path.imported = task->take();
            path.error.reset();
            if (options_.policy == ProofPolicy::trust) path.state = PathState::trusted;
        } catch (const Error& error) {
            try_failed(path, *region.blob, error);
        } catch (const std::exception& error) {
            try_failed(path, *region.blob, Error({.kind = ErrorKind::system, .subject = error.what()}));
        }
    }
    if (path.imported != nullptr || path.state != PathState::pending) return;
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

Token HandshakeCore::token_for(const PeerState& peer, const Path& path, const Path& other) const {
    Token token{.writer = options_.incarnation,
                .reader = peer.hello->incarnation,
                .group = options_.group,
                .rank = options_.rank,
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
    if (!token.has_value() || token->group != options_.group || token->reader != options_.incarnation) return;
    if (token->writer != peer.hello->incarnation) {
        path.other_writer = token->writer;
        return;
    }
    moved_ = moved_ || !path.seen || (token->echo && !path.echoed);
    path.other_writer.reset();
    path.seen = true;
    path.echoed = path.echoed || token->echo;
    if (token->trouble == 0 || other.state != PathState::pending) return;
    other.state = PathState::failed;
    other.error =
        Error({.kind = static_cast<ErrorKind>(token->trouble - 1),
               .code = token->trouble_code,
               .subject = formatted("rank {} could not reach this rank's {} memory, and says so", peer.rank,
                                    other_memory == LocationKind::device ? "device" : "host"),
               .cause = formatted("its import failed: {}{}", to_string(static_cast<ErrorKind>(token->trouble - 1)),
                                  token->trouble_code != 0 ? formatted(" ({})", token->trouble_code) : ""),
               .cure = "look at that rank's own report"});
}

void HandshakeCore::write_due(PeerState& peer, Path& path, const HelloRegion& region, LocationKind memory) {
    const bool reachable = path.imported != nullptr || (options_.writer != nullptr && path.state == PathState::pending);
    if (!reachable || path.state == PathState::failed || path.queued.has_value()) return;
    const Token token = token_for(peer, path, memory == LocationKind::device ? peer.host : peer.device);
    if (path.written == token) return;
    const SlotBytes bytes = seal(to_message(token, ++path.sequence));
    const std::uint64_t offset = std::uint64_t{options_.rank} * kSlotStride + kTokenOffset;
    if (options_.writer != nullptr) {
        if (Clock::now() < path.retry_at) return;
        try {
            options_.writer({peer.rank, memory, region.address + offset, bytes});
            path.written = token;
            moved_ = true;
        } catch (const Error& error) {
            try_failed(path, *region.blob, error);
        } catch (const std::exception& error) {
            path.state = PathState::failed;
            path.error = Error({.kind = ErrorKind::system,
                                .subject = formatted("the caller's writer to rank {}: {}", peer.rank, error.what())});
        }
        return;
    }
    const std::uint64_t from = staging(peer.rank, memory);
    std::memcpy(port_->bounce() + from, bytes.data(), bytes.size());
    port_->write(pointer(path.imported->address()) + region.blob->offset + offset, from, bytes.size());
    path.queued = token;
}

// All at once when what was queued before is done: then it is known what has been written, and what was read is here.
void HandshakeCore::move_copies() {
    if (!port_->is_idle()) return;
    bool wanted = false;
    std::uint32_t ranks = 0;
    for (auto& [rank, peer] : peers_) {
        if (!peer.hello.has_value()) continue;
        for (Path* path : {&peer.device, &peer.host}) {
            if (!path->queued.has_value()) continue;
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
    if (!wanted) return;
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
    if (dropped_.empty()) return;
    try {
        if (port_ != nullptr && !port_error_.has_value() && !port_->is_idle()) return;
    } catch (const Error& error) {
        port_error_ = error;
    }
    for (auto& buffer : dropped_) imports_.drop(std::move(buffer));
    dropped_.clear();
}

}  // namespace fabricmem::detail
