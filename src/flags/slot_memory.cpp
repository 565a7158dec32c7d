// SPDX-License-Identifier: Apache-2.0
#include "flags/slot_memory.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "driver/driver_state.hpp"
#include "error/refuse.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::size_t kBounceBytes = std::size_t{2} << 20;

int copying_device(const Access& access, const Location& location, int asked) {
    const auto has = [&](int device) {
        return std::find(access.devices.begin(), access.devices.end(), device) != access.devices.end();
    };
    if (asked >= 0) {
        if (has(asked)) return asked;
        refuse(formatted("device {} has no access to the slots' memory ({})", asked, to_string(access)));
    }
    if (location.kind() == LocationKind::device && has(location.index())) return location.index();
    if (!access.devices.empty()) return access.devices.front();
    throw Error({.kind = ErrorKind::unsupported,
                 .subject = "neither the CPU nor a device of this process reaches the slots' memory"});
}

}  // namespace

bool cpu_may_touch(const Access& access, Driver& driver, const HandleBlob* imported_from) {
    return access.host && (imported_from == nullptr || DriverState::of(driver).is_this_node(*imported_from));
}

SlotMemory::SlotMemory(Block block, std::size_t slot_bytes, const FlagSlotsOptions& options)
    : block_(std::move(block)), count_(0), slot_bytes_(slot_bytes), born_in_(fork_epoch()), copy_timeout_(0) {
    if (!block_.is_open()) refuse("slots over a block that is not open");
    driver_ = block_.driver();
    address_ = static_cast<std::byte*>(block_.address());
    count_ = static_cast<std::size_t>(block_.bytes() / slot_bytes);
    if (count_ == 0) refuse(formatted("a block of {} bytes for slots of {}", block_.bytes(), slot_bytes));
    start(block_.access(), block_.location(), nullptr, options);
}

SlotMemory::SlotMemory(std::shared_ptr<const ImportedFabricBuffer> buffer, std::uint64_t offset, std::size_t count,
                       std::size_t slot_bytes, const FlagSlotsOptions& options)
    : buffer_(std::move(buffer)), count_(count), slot_bytes_(slot_bytes), born_in_(fork_epoch()), copy_timeout_(0) {
    if (buffer_ == nullptr || !buffer_->is_open()) refuse("slots in a buffer that is not open");
    if (count == 0 || offset > buffer_->bytes() || count > (buffer_->bytes() - offset) / slot_bytes) {
        refuse(formatted("{} slots of {} bytes from byte {} on, of memory of {} bytes", count, slot_bytes, offset,
                         buffer_->bytes()));
    }
    driver_ = buffer_->driver();
    address_ = static_cast<std::byte*>(buffer_->address()) + offset;
    if (reinterpret_cast<std::uintptr_t>(address_) % std::min<std::size_t>(slot_bytes, 64) != 0)
        refuse(formatted("slots of {} bytes that are not aligned to that, at {}", slot_bytes,
                         static_cast<const void*>(address_)));
    start(buffer_->access(), buffer_->location(), &buffer_->blob(), options);
}

SlotMemory::~SlotMemory() {
    if (port_ == nullptr || born_in_ != fork_epoch()) return;
    // What is still under way goes to this memory: neither may end before it. It has had its time limit once already.
    try {
        if (port_->wait(std::chrono::steady_clock::now() + copy_timeout_) == Finished::yes) return;
    } catch (const std::exception&) {  // the context failed, so nothing is under way
        return;
    }
    log(LogLevel::error, "slots' memory is kept until the process ends: a copy is still under way");
    if (block_.is_open()) leave_to_parent(new (std::nothrow) Block(std::move(block_)));
    if (buffer_ != nullptr) leave_to_parent(new (std::nothrow) auto(std::move(buffer_)));
}

void SlotMemory::start(const Access& access, const Location& location, const HandleBlob* imported_from,
                       const FlagSlotsOptions& options) {
    if (options.copy_timeout.count() <= 0)
        refuse(formatted("a copy's time limit of {} ms", options.copy_timeout.count()));
    copy_timeout_ = std::min<std::chrono::milliseconds>(options.copy_timeout, std::chrono::hours(24 * 365));
    writable_ = access.permission == Permission::read_write;
    if (cpu_may_touch(access, *driver_, imported_from)) return;
    port_ = std::make_unique<CopyPort>(driver_, copying_device(access, location, options.device), kBounceBytes);
}

void SlotMemory::check_index(std::size_t index) const {
    if (index >= count_) refuse(formatted("slot {} of {}", index, count_));
    if (born_in_ != fork_epoch()) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = "slots that were made before a fork",
                     .cause = "CUDA does not work in a forked child",
                     .cure = "start processes by exec"});
    }
}

std::byte* SlotMemory::direct(std::size_t index) const {
    check_index(index);
    return address_ + index * slot_bytes_;
}

Error SlotMemory::too_late() const {
    return Error({.kind = ErrorKind::timed_out,
                  .call = "cuMemcpyAsync",
                  .bytes = slot_bytes_,
                  .subject = formatted("a copy by device {}", port_->ordinal()),
                  .cause = formatted("the GPU did not get to it within {} ms", copy_timeout_.count()),
                  .cure = "look for work that keeps the GPU's copy engines busy, or for a GPU in trouble",
                  .check = "FM-MEMORY-011"});
}

void SlotMemory::check_writable() const {
    if (!writable_) refuse("a store to slots in memory that was mapped read-only");
}

void SlotMemory::write(std::size_t index, std::span<const std::byte> bytes) {
    check_index(index);
    const auto deadline = std::chrono::steady_clock::now() + copy_timeout_;
    const Turn::Held turn(turn_, deadline);
    if (!turn) throw too_late();
    if (port_->wait(deadline) == Finished::no) throw too_late();
    std::memcpy(port_->bounce(), bytes.data(), bytes.size());
    port_->write(reinterpret_cast<std::uintptr_t>(address_) + index * slot_bytes_, 0, bytes.size());
    if (port_->wait(deadline) == Finished::no) throw too_late();
}

void SlotMemory::write_zeros() {
    check_index(0);
    const auto deadline = std::chrono::steady_clock::now() + copy_timeout_;
    const Turn::Held turn(turn_, deadline);
    if (!turn) throw too_late();
    if (port_->wait(deadline) == Finished::no) throw too_late();
    const std::size_t all = count_ * slot_bytes_;
    std::memset(port_->bounce(), 0, std::min(all, kBounceBytes));
    for (std::size_t done = 0; done < all; done += kBounceBytes) {
        port_->write(reinterpret_cast<std::uintptr_t>(address_) + done, 0, std::min(all - done, kBounceBytes));
    }
    if (port_->wait(deadline) == Finished::no) throw too_late();
}

bool SlotMemory::read(std::size_t index, std::span<std::byte> bytes,
                      std::optional<std::chrono::steady_clock::time_point> deadline) const {
    check_index(index);
    const auto limit = std::chrono::steady_clock::now() + copy_timeout_;
    const auto until = deadline.has_value() ? std::min(limit, *deadline) : limit;
    const Turn::Held turn(turn_, until);
    if (!turn) {
        if (until == limit) throw too_late();
        return false;
    }
    const auto in_time = [&] {
        if (port_->wait(until) == Finished::yes) return true;
        if (until == limit) throw too_late();
        return false;
    };
    if (!in_time()) return false;
    port_->read(0, reinterpret_cast<std::uintptr_t>(address_) + index * slot_bytes_, bytes.size());
    if (!in_time()) return false;
    std::memcpy(bytes.data(), port_->bounce(), bytes.size());
    return true;
}

}  // namespace fabricmem::detail
