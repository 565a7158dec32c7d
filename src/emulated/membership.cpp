// SPDX-License-Identifier: Apache-2.0
// Joins a fabric, and notices when that is over. What may be imported is in membership_import.cpp.
#include "emulated/membership.hpp"

#include <algorithm>
#include <utility>

#include <fabricmem/error.hpp>

#include "emulated/numbers.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem::detail::emulated {

namespace {

[[noreturn]] void no_device(const std::string& cause) {
    throw Error({.kind = ErrorKind::unsupported,
                 .code = CUDA_ERROR_NO_DEVICE,
                 .call = "cuInit",
                 .subject = "the emulated driver",
                 .cause = cause,
                 .cure = "ask for at least one device"});
}

}  // namespace

Membership::Membership(std::shared_ptr<EmulatedFabric> fabric, const EmulatedProcess& process)
    : fabric_(std::move(fabric)),
      core_(fabric_->core()),
      index_(core_.node_named(core_.is_scenario() ? std::string_view(process.node) : std::string_view())),
      born_in_(core_.switches().incarnation(index_)),
      identity_(core_.identify(index_)),
      seen_(core_.switches().changes() - 1) {  // so that the first call looks closely
    if (core_.lost(index_)) {
        throw Error({.kind = ErrorKind::system,
                     .subject = formatted("the emulated node {} is lost", node().name),
                     .cure = "take the switch \"node\" back"});
    }
    choose_devices(process);
    check_devices();
    choose_channel(process);
}

void Membership::choose_devices(const EmulatedProcess& process) {
    const auto count = static_cast<int>(node().devices.size());
    if (process.visible_devices.has_value()) {
        visible_ = *process.visible_devices;
    } else {
        for (int number = 0; number < count; ++number) visible_.push_back(number);
    }
    ordinals_.assign(node().devices.size(), -1);
    for (std::size_t ordinal = 0; ordinal < visible_.size(); ++ordinal) {
        const int number = visible_[ordinal];
        if (number < 0 || number >= count) {
            refuse(formatted("there is no device {}: the node {} has {}", number, node().name, count));
        }
        int& known = ordinals_[static_cast<std::size_t>(number)];
        if (known >= 0) refuse(formatted("device {} is named twice", number));
        known = static_cast<int>(ordinal);
    }
    if (count == 0)
        no_device(core_.is_scenario() ? formatted("the node {} has none", node().name)
                                      : "EmulatedOptions::devices is 0");
    if (visible_.empty()) no_device("the process sees none of the node's devices");
}

bool Membership::is_ready(int ordinal) const {
    const FabricInfo info = core_.fabric_info(index_, static_cast<std::size_t>(number_of(ordinal)));
    switch (info.state) {
        case FabricInfo::State::not_started:
        case FabricInfo::State::in_progress: return false;
        // invented: a probe that ended with a failure is as one that has not ended.
        case FabricInfo::State::completed: return info.status == 0;
        default: return true;
    }
}

// On an NVSwitch system without its Fabric Manager cuInit itself fails.
void Membership::check_devices() const {
    for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
        if (is_ready(ordinal)) continue;
        throw Error({.kind = ErrorKind::system,
                     .code = CUDA_ERROR_SYSTEM_NOT_READY,
                     .call = "cuInit",
                     .subject = formatted("the emulated node {}", node().name),
                     .cause = formatted("device {} has not joined the NVLink fabric (NVML's fabric state)", ordinal),
                     .cure = "wait for it, or look at the Fabric Manager's log"});
    }
}

// A process has one channel for life: the first that it can open.
void Membership::choose_channel(const EmulatedProcess& process) {
    for (const ImexChannel& channel : core_.channels(index_)) {
        if (process.imex_channel.has_value() && channel.number != *process.imex_channel) continue;
        if (channel.open_errno != 0 || !channel.major_matches) continue;
        channel_ = channel.number;
        return;
    }
    if (process.imex_channel.has_value()) {
        refuse(formatted("the node {} has no IMEX channel {} that can be opened", node().name, *process.imex_channel));
    }
}

int Membership::ordinal_of(int number) const noexcept {
    const auto index = static_cast<std::size_t>(number);
    return number >= 0 && index < ordinals_.size() ? ordinals_[index] : -1;
}

bool Membership::has_fabric() const noexcept {
    for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
        if (has_fabric(ordinal)) return true;
    }
    return false;
}

bool Membership::can_access(int ordinal, int number) const noexcept {
    const int own = number_of(ordinal);
    if (own == number || !node().p2p.has_value()) return true;
    const std::vector<DevicePair>& pairs = *node().p2p;
    return std::any_of(pairs.begin(), pairs.end(), [&](const DevicePair& pair) {
        return (pair.first == own && pair.second == number) || (pair.first == number && pair.second == own);
    });
}

// invented: the code, for all three.
CUresult Membership::may_create(int ordinal) const {
    // The daemon that died with live exports has turned fabric memory off until it is back.
    if (core_.daemon(index_) == ImexDaemon::killed) return CUDA_ERROR_SYSTEM_NOT_READY;
    return ordinal < 0 || is_ready(ordinal) ? CUDA_SUCCESS : CUDA_ERROR_SYSTEM_NOT_READY;
}

HandleFabric Membership::handle_fabric() const noexcept {
    if (!core_.is_scenario()) return {};
    return {.scenario = true,
            .single_node = core_.daemon(index_) != ImexDaemon::ready,
            .boots = born_in_.losses & HandleFabric::kBootMask};
}

bool Membership::outlived(const Key& key) const noexcept {
    const Switches& switches = core_.switches();
    const Incarnation theirs = switches.incarnation(std::get<0>(key));
    const Incarnation ours = switches.incarnation(index_);
    return std::make_tuple(std::get<0>(key), theirs.daemon_kills, theirs.losses, ours.daemon_kills) != key;
}

CUresult Membership::look_closely() noexcept {
    const std::lock_guard lock(mutex_);
    const std::uint32_t changes = core_.switches().changes();  // first: what comes later is looked at later
    bool over = cut_off_.load(std::memory_order_relaxed);
    over = over || core_.switches().incarnation(index_).losses != born_in_.losses;
    for (const auto& [key, count] : imports_) over = over || outlived(key);
    if (over) cut_off_.store(true, std::memory_order_relaxed);
    seen_.store(changes, std::memory_order_release);
    return over ? kCutOff : CUDA_SUCCESS;
}

void Membership::enter(const RemoteImport::Source& source) {
    const std::lock_guard lock(mutex_);
    ++imports_[source.key()];
    // What happened since the import was decided may have been looked at already, by another thread.
    if (outlived(source.key())) cut_off_.store(true, std::memory_order_relaxed);
}

void Membership::leave(const RemoteImport::Source& source) noexcept {
    const std::lock_guard lock(mutex_);
    const auto found = imports_.find(source.key());
    if (--found->second == 0) imports_.erase(found);
}

CUresult Membership::wait_for(Switch which) {
    const bool answered = core_.switches().wait([&] { return !core_.hangs(index_, which) || look() != CUDA_SUCCESS; });
    if (!answered) cut_off_.store(true, std::memory_order_relaxed);
    return look();
}

}  // namespace fabricmem::detail::emulated
