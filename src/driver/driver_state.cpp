// SPDX-License-Identifier: Apache-2.0
#include "driver/driver_state.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "driver/check.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

// A driver that is older than the attribute answers INVALID_VALUE: `unknown` then.
int attribute(Driver& driver, CUdevice_attribute which, CUdevice device, int unknown) {
    int value = 0;
    const CUresult result = driver.device_get_attribute(&value, which, device);
    if (result == CUDA_ERROR_INVALID_VALUE) return unknown;
    check(result, driver, {.call = "cuDeviceGetAttribute", .location = Location::device(device)});
    return value;
}

DeviceFacts learn_device(Driver& driver, int ordinal, int count) {
    const Location where = Location::device(ordinal);
    DeviceFacts facts;
    check(driver.device_get(&facts.device, ordinal), driver, {.call = "cuDeviceGet", .location = where});
    CUuuid uuid{};
    check(driver.device_get_uuid(&uuid, facts.device), driver, {.call = "cuDeviceGetUuid", .location = where});
    std::memcpy(facts.uuid.bytes.data(), uuid.bytes, facts.uuid.bytes.size());
    std::array<char, 32> pci{};
    check(driver.device_get_pci_bus_id(pci.data(), static_cast<int>(pci.size()), facts.device), driver,
          {.call = "cuDeviceGetPCIBusId", .location = where});
    facts.pci_bus_id = pci.data();
    facts.fabric_attribute = attribute(driver, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED, facts.device, 0) != 0;
    facts.rdma_attribute =
        attribute(driver, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, facts.device, 0) != 0;
    facts.nearest_numa_node = std::max(0, attribute(driver, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, facts.device, -1));
    for (int other = 0; other < count; ++other) {
        int can_access = other == ordinal ? 1 : 0;
        if (other != ordinal) {
            CUdevice peer = 0;
            check(driver.device_get(&peer, other), driver,
                  {.call = "cuDeviceGet", .location = Location::device(other)});
            check(driver.device_can_access_peer(&can_access, peer, facts.device), driver,
                  {.call = "cuDeviceCanAccessPeer", .location = Location::device(other)});
        }
        if (can_access != 0) facts.reachable_from.push_back(other);
    }
    return facts;
}

}  // namespace

std::optional<int> Topology::ordinal_of(const Id128& uuid) const noexcept {
    for (std::size_t i = 0; i < devices.size(); ++i) {
        if (devices[i].uuid == uuid) return static_cast<int>(i);
    }
    return std::nullopt;
}

DriverState::DriverState(Driver& driver) : driver_(driver), made_in_(fork_epoch()) {}
DriverState::~DriverState() {
    if (workers_ != nullptr && forked()) leave_to_parent(workers_.release());
}

bool DriverState::forked() const noexcept { return fork_epoch() != made_in_; }

KnownFacts DriverState::known() const {
    const std::lock_guard lock(mutex_);
    return {topology_, identity_, imex_channel_, fabric_places_};
}

Workers& DriverState::workers() {
    const std::lock_guard lock(mutex_);
    if (workers_ == nullptr) workers_ = std::make_unique<Workers>();
    return *workers_;
}

const Workers* DriverState::workers_if_any() const noexcept {
    if (forked()) return nullptr;
    const std::lock_guard lock(mutex_);
    return workers_.get();
}

Topology DriverState::learn_topology() {
    int count = 0;
    check(driver_.device_get_count(&count), driver_, {.call = "cuDeviceGetCount"});
    if (count <= 0) check(CUDA_ERROR_NO_DEVICE, driver_, {.call = "cuDeviceGetCount"});
    Topology topology;
    topology.devices.reserve(static_cast<std::size_t>(count));
    for (int ordinal = 0; ordinal < count; ++ordinal) topology.devices.push_back(learn_device(driver_, ordinal, count));
    return topology;
}

std::shared_ptr<const Topology> DriverState::topology() {
    {
        const std::lock_guard lock(mutex_);
        if (topology_ != nullptr) return topology_;
    }
    auto learnt = std::make_shared<const Topology>(learn_topology());
    const std::lock_guard lock(mutex_);
    if (topology_ == nullptr) topology_ = std::move(learnt);
    return topology_;
}

std::uint64_t DriverState::granularity(const CUmemAllocationProp& properties) {
    const GranularityKey key{static_cast<int>(properties.location.type), properties.location.id,
                             static_cast<unsigned>(properties.requestedHandleTypes)};
    {
        const std::lock_guard lock(mutex_);
        const auto found = granularities_.find(key);
        if (found != granularities_.end()) return found->second;
    }
    std::size_t bytes = 0;
    check(driver_.mem_get_allocation_granularity(&bytes, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM), driver_,
          {.call = "cuMemGetAllocationGranularity", .location = location_of(properties)});
    if (bytes == 0 || (bytes & (bytes - 1)) != 0) {
        throw Error(
            {.kind = ErrorKind::driver,
             .subject = formatted("the driver names a granularity of {} bytes, which is no power of two", bytes)});
    }
    const std::lock_guard lock(mutex_);
    granularities_[key] = bytes;
    return bytes;
}

std::shared_ptr<const MemoryFacts> DriverState::memory_at(const Location& asked,
                                                          CUmemAllocationHandleType handle_types) {
    {
        const std::lock_guard lock(mutex_);
        for (const auto& known : memory_) {
            if (known->asked == asked && known->handle_types == handle_types) return known;
        }
    }
    auto learnt = std::make_shared<const MemoryFacts>(learn_memory(asked, handle_types));
    if (!is_final(*learnt)) return learnt;
    const std::lock_guard lock(mutex_);
    memory_.push_back(learnt);  // two threads may do so: the first one is found, and they are alike
    return learnt;
}

MemoryFacts DriverState::learn_memory(const Location& asked, CUmemAllocationHandleType handle_types) {
    MemoryFacts facts;
    facts.asked = asked;
    facts.handle_types = handle_types;
    facts.topology = topology();
    const std::vector<DeviceFacts>& devices = facts.topology->devices;
    const DeviceFacts* named = nullptr;  // the device that `asked` names
    if (asked.kind() != LocationKind::host_numa) {
        if (asked.index() < 0 || static_cast<std::size_t>(asked.index()) >= devices.size()) {
            throw Error(
                {.kind = ErrorKind::bad_argument,
                 .subject = formatted("there is no device {}: this process sees {}", asked.index(), devices.size())});
        }
        named = &devices[static_cast<std::size_t>(asked.index())];
    } else if (asked.index() < 0) {
        throw Error({.kind = ErrorKind::bad_argument, .subject = formatted("host NUMA node {}", asked.index())});
    }
    HandleBlob& blob = facts.blob;
    facts.location = asked.kind() == LocationKind::host_nearest ? Location::host_numa(named->nearest_numa_node) : asked;
    if (facts.location.kind() == LocationKind::device) {
        facts.rdma_attribute = named->rdma_attribute;
        facts.devices = named->reachable_from;
        blob.device_ordinal = asked.index();
        blob.device_uuid = named->uuid;
        blob.fabric = fabric_place(*named);
    } else {
        for (std::size_t i = 0; i < devices.size(); ++i) facts.devices.push_back(static_cast<int>(i));
        blob.numa_node = facts.location.index();
    }
    facts.properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    facts.properties.requestedHandleTypes = handle_types;
    facts.properties.location.type =
        facts.location.is_host() ? CU_MEM_LOCATION_TYPE_HOST_NUMA : CU_MEM_LOCATION_TYPE_DEVICE;
    facts.properties.location.id = facts.location.index();
    facts.granularity = granularity(facts.properties);
    blob.location_kind = facts.location.kind();
    blob.granularity = facts.granularity;
    const auto self = identity();
    blob.host_id = self->host_id;
    blob.boot_id = self->boot_id;
    blob.process_id = self->process_id;
    blob.pid_namespace = self->pid_namespace;
    blob.process_start = self->process_start;
    blob.imex_channel = imex_channel();
    return facts;
}

bool DriverState::is_final(const MemoryFacts& facts) {
    if (!facts.blob.imex_channel.has_value()) return false;
    if (facts.location.is_host()) return true;
    const std::string& device = facts.topology->devices[static_cast<std::size_t>(facts.location.index())].pci_bus_id;
    const std::lock_guard lock(mutex_);
    // What another thread has learnt since may not be what these facts say.
    const auto place = fabric_places_.find(device);
    return place != fabric_places_.end() && place->second == facts.blob.fabric;
}

std::shared_ptr<const ProcessIdentity> DriverState::identity() {
    {
        const std::lock_guard lock(mutex_);
        if (identity_ != nullptr) return identity_;
    }
    const Platform& platform = driver_.platform();
    auto learnt = std::make_shared<const ProcessIdentity>(
        ProcessIdentity{platform.host_id(), platform.boot_id(), platform.process_id(), platform.pid_namespace(),
                        platform.process_start()});
    const std::lock_guard lock(mutex_);
    if (identity_ == nullptr) identity_ = std::move(learnt);
    return identity_;
}

bool DriverState::is_this_node(const HandleBlob& blob) {
    return blob.boot_id.has_value() && blob.boot_id == identity()->boot_id;
}

std::optional<std::int32_t> DriverState::imex_channel() {
    {
        const std::lock_guard lock(mutex_);
        if (imex_channel_.has_value()) return imex_channel_;
    }
    std::optional<std::int32_t> found;
    for (const ImexChannel& channel : driver_.platform().imex_channels()) {
        if (channel.open_errno != 0 || !channel.major_matches) continue;
        found = channel.channel();
        break;
    }
    const std::lock_guard lock(mutex_);
    if (!imex_channel_.has_value()) imex_channel_ = found;
    return imex_channel_;
}

std::optional<FabricPlace> DriverState::fabric_place(const DeviceFacts& device) {
    {
        const std::lock_guard lock(mutex_);
        const auto found = fabric_places_.find(device.pci_bus_id);
        if (found != fabric_places_.end()) return found->second;
    }
    const std::optional<FabricInfo> info = driver_.platform().fabric_info(device.pci_bus_id);
    const bool probing = info.has_value() && (info->state == FabricInfo::State::not_started ||
                                              info->state == FabricInfo::State::in_progress);
    if (probing) {  // not kept as an answer: it will be another one soon
        const std::lock_guard lock(mutex_);
        probing_.insert(device.pci_bus_id);
        return std::nullopt;
    }
    std::optional<FabricPlace> place;
    if (info.has_value() && info->state == FabricInfo::State::completed && info->status == 0) {
        place = FabricPlace{info->cluster_uuid, info->clique};
    }
    const std::lock_guard lock(mutex_);
    fabric_places_[device.pci_bus_id] = place;
    probing_.erase(device.pci_bus_id);
    return place;
}

std::shared_ptr<const Topology> DriverState::known_topology() {
    const std::lock_guard lock(mutex_);
    return topology_;
}

std::optional<FabricPlace> DriverState::known_fabric_place(const DeviceFacts& device) {
    const std::lock_guard lock(mutex_);
    const auto found = fabric_places_.find(device.pci_bus_id);
    return found == fabric_places_.end() ? std::nullopt : found->second;
}

bool DriverState::was_probing(const DeviceFacts& device) {
    const std::lock_guard lock(mutex_);
    return probing_.contains(device.pci_bus_id);
}

std::optional<ProbeResult> DriverState::kept_probe(const Location& location) const {
    const std::lock_guard lock(mutex_);
    for (const KeptProbe& kept : probes_) {
        if (kept.result.location != location) continue;
        const bool holds = kept.result.usable() || std::chrono::steady_clock::now() - kept.at < patience.no_of_a_probe;
        return holds ? std::optional(kept.result) : std::nullopt;
    }
    return std::nullopt;
}

void DriverState::keep_probe(const ProbeResult& result) {
    const KeptProbe now{result, std::chrono::steady_clock::now()};
    const std::lock_guard lock(mutex_);
    const auto same = std::find_if(probes_.begin(), probes_.end(),
                                   [&](const KeptProbe& kept) { return kept.result.location == result.location; });
    if (same == probes_.end())
        probes_.push_back(now);
    else
        *same = now;
}

void DriverState::forget_probe(const Location& location) {
    const std::lock_guard lock(mutex_);
    std::erase_if(probes_, [&](const KeptProbe& kept) { return kept.result.location == location; });
}

void DriverState::retire(CUdeviceptr address, std::uint64_t bytes) noexcept {
    try {
        const std::lock_guard lock(mutex_);
        retired_.push_back({address, bytes});
        retired_bytes_ += bytes;
    } catch (const std::bad_alloc&) {
        // Not listed, so it stays reserved for good: that keeps the promise, and the cap is off by one range.
        log(LogLevel::warning,
            "out of memory while retiring an address range: it stays reserved until the process ends");
        return;
    }
    while (const std::optional<RetiredRange> oldest = take_surplus()) {
        const CUresult result = driver_.mem_address_free(oldest->address, oldest->bytes);
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_DEINITIALIZED)
            log_failure("cuMemAddressFree", oldest->bytes, result);
    }
}

DriverState::Retired DriverState::retired() const {
    const std::lock_guard lock(mutex_);
    return {retired_.size(), retired_bytes_};
}

std::optional<DriverState::RetiredRange> DriverState::take_surplus() noexcept {
    const std::lock_guard lock(mutex_);
    const bool above =
        retired_.size() > kRetiredRangesMax || (retired_bytes_ > kRetiredBytesMax && retired_.size() > 1);
    if (!above) return std::nullopt;
    const RetiredRange oldest = retired_.front();
    retired_.pop_front();
    retired_bytes_ -= oldest.bytes;
    return oldest;
}

}  // namespace fabricmem::detail
