// SPDX-License-Identifier: Apache-2.0
#include "probe/ladder.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <unistd.h>

#include <fabricmem/checks.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/platform.hpp>

#include "buffer/buffer_parts.hpp"
#include "driver/causes.hpp"
#include "driver/check.hpp"
#include "error/cures.hpp"
#include "probe/touch.hpp"
#include "text/text.hpp"
#include "vmm/vmm.hpp"

namespace fabricmem::detail {
namespace {

constexpr unsigned char kPattern = 0xa5;
constexpr std::size_t kTouchedBytes = 4096;
constexpr auto kRungs = static_cast<std::size_t>(ProbeRung::tear_down) + 1;
constexpr CUdevice_attribute kHostReachesNodes = static_cast<CUdevice_attribute>(143);

// The check of a failure whose error names none.
std::string_view check_of(ProbeRung rung) {
    switch (rung) {
        case ProbeRung::attributes: return "FM-DRIVER-003";
        case ProbeRung::channels: return "FM-CHANNEL-001";
        case ProbeRung::fabric_state: return "FM-FABRIC-003";
        case ProbeRung::reserve: return "FM-MEMORY-006";
        case ProbeRung::create: return "FM-MEMORY-001";
        case ProbeRung::map:
        case ProbeRung::map_import: return "FM-MEMORY-007";
        case ProbeRung::set_access: return "FM-MEMORY-008";
        case ProbeRung::handle_types: return "FM-FABRIC-002";
        case ProbeRung::export_handle: return "FM-MEMORY-004";
        case ProbeRung::import_handle: return "FM-MEMORY-005";
        case ProbeRung::touch: return "FM-MEMORY-009";
        case ProbeRung::tear_down: return "FM-MEMORY-010";
    }
    return "FM-MEMORY-001";
}

// Of the making of a buffer, by the call that failed: a buffer makes them in this order, each once the one before has
// succeeded, so that the call tells what was seen to pass too. All else fails before the first of them.
ProbeRung rung_of_making(const ErrorDetails& failure) {
    constexpr std::array<std::pair<std::string_view, ProbeRung>, 6> kCalls{{
        {"cuMemAddressReserve", ProbeRung::reserve},
        {"cuMemCreate", ProbeRung::create},
        {"cuMemMap", ProbeRung::map},
        {"cuMemSetAccess", ProbeRung::set_access},
        {"cuPointerGetAttributes", ProbeRung::handle_types},
        {"cuMemExportToShareableHandle", ProbeRung::export_handle},
    }};
    for (const auto& [name, rung] : kCalls) {
        if (name == failure.call) return rung;
    }
    // No call failed: what the driver says that it has granted is not what was asked for.
    const bool silently = failure.check == "FM-FABRIC-001" || failure.check == "FM-FABRIC-002";
    return failure.call.empty() && silently ? ProbeRung::handle_types : ProbeRung::attributes;
}

// Of an import, as rung_of_making(): its range is reserved before it is imported.
ProbeRung rung_of_import(std::string_view call) {
    const bool maps = call == "cuMemAddressReserve" || call == "cuMemMap" || call == "cuMemSetAccess";
    return maps ? ProbeRung::map_import : ProbeRung::import_handle;
}

// The device that touches: the one that is asked about, or is nearest; for a host node any that got access.
int toucher(const Location& asked, const Access& own, const Access& imported) {
    const auto able = [&](int device) {
        const auto has = [&](const std::vector<int>& all) {
            return std::find(all.begin(), all.end(), device) != all.end();
        };
        return has(own.devices) && has(imported.devices);
    };
    if (asked.kind() != LocationKind::host_numa) {
        if (able(asked.index())) return asked.index();
    } else if (const auto found = std::find_if(own.devices.begin(), own.devices.end(), able);
               found != own.devices.end()) {
        return *found;
    }
    const std::string who =
        asked.kind() == LocationKind::host_numa ? "no GPU" : formatted("not even device {}", asked.index());
    throw Error({.kind = ErrorKind::unsupported,
                 .call = "cuMemSetAccess",
                 .subject = formatted("{} got access to memory of {}", who, to_string(asked)),
                 .cause = "the driver refused it; the log has its code",
                 .cure = "use memory that the GPU can reach, its own as a rule",
                 .check = "FM-MEMORY-008"});
}

// The exporter is this process: no peer and no daemon is to blame. Where it may not, the channels tell why.
Error of_own_handle(const Error& error) {
    switch (error.kind()) {
        case ErrorKind::not_permitted:
        case ErrorKind::out_of_memory:
        case ErrorKind::closed: return error;
        default: break;
    }
    ErrorDetails details = error.details();
    const bool import = details.call == "cuMemImportFromShareableHandle";
    details.check = import ? "FM-MEMORY-005" : "FM-MEMORY-007";
    details.kind = ErrorKind::driver;
    details.cause = import ? "the driver does not take a handle that this process has just exported"
                           : "the driver does not map what it has let this process import";
    details.cure = cure_of(details.check);
    return Error(std::move(details));
}

struct CloseDescriptor {
    int fd = -1;
    ~CloseDescriptor() {
        if (fd >= 0) ::close(fd);
    }
};

std::string in_fabric(const FabricInfo& info) {
    constexpr std::array kStates{"not supported", "not started", "in progress", "completed"};
    std::string text = formatted("state {} ({})", static_cast<int>(info.state),
                                 kStates[static_cast<std::size_t>(info.state) % kStates.size()]);
    if (info.state == FabricInfo::State::completed) text += formatted(", status {}", info.status);
    if (info.cluster_uuid.is_zero())
        text += ", no multi-node domain";
    else
        text += formatted(", cluster {} clique {}", to_string(info.cluster_uuid), info.clique);
    if (info.health_mask.has_value())
        text += formatted(", health 0x{:x}: {}", *info.health_mask, describe_fabric_health(*info.health_mask));
    return text;
}

}  // namespace

Ladder::Ladder(std::shared_ptr<Driver> driver, const Location& location)
    : driver_(std::move(driver)), result_{location, std::nullopt, HandleKinds(), {}} {
    result_.steps.resize(kRungs);
    for (std::size_t i = 0; i < kRungs; ++i) result_.steps[i].rung = static_cast<ProbeRung>(i);
}

void Ladder::pass(ProbeRung rung, std::string facts) {
    ProbeStep& passed = step(rung);
    passed.state = RungState::passed;
    passed.facts = std::move(facts);
}

void Ladder::set(ProbeRung rung, RungState state, std::string facts, std::string_view check, std::string cause,
                 std::string cure) {
    ProbeStep& judged = step(rung);
    judged.state = state;
    judged.facts = std::move(facts);
    judged.check = std::string(check);
    judged.cause = std::move(cause);
    judged.cure = cure.empty() ? cure_of(check) : std::move(cure);
}

void Ladder::pass_all(ProbeRung first, ProbeRung end) {
    for (ProbeRung done = first; done < end; done = static_cast<ProbeRung>(static_cast<int>(done) + 1)) pass(done);
}

void Ladder::fail(ProbeRung rung, const Error& error) {
    ErrorDetails details = error.details();
    if (details.check.empty()) details.check = std::string(check_of(rung));
    const std::string cause = details.cause.empty() ? details.subject : details.cause;
    set(rung, RungState::failed, error.what(), details.check, cause, details.cure);
    result_.why_not = Error(std::move(details));
}

void Ladder::look_at_attributes() {
    topology_ = DriverState::of(*driver_).topology();
    const auto& devices = topology_->devices;
    const Location& asked = result_.location;
    if (asked.kind() == LocationKind::host_numa) {
        const auto nearest = std::find_if(devices.begin(), devices.end(), [&](const DeviceFacts& device) {
            return device.nearest_numa_node == asked.index();
        });
        if (!devices.empty()) device_ = nearest == devices.end() ? &devices.front() : &*nearest;
    } else if (asked.index() >= 0 && static_cast<std::size_t>(asked.index()) < devices.size()) {
        device_ = &devices[static_cast<std::size_t>(asked.index())];
    } else {
        throw Error(
            {.kind = ErrorKind::bad_argument,
             .subject = formatted("there is no {}: this process sees {} devices", to_string(asked), devices.size()),
             .cure = "name a device that this process sees (CUDA_VISIBLE_DEVICES)",
             .check = "FM-MEMORY-002"});
    }
    if (device_ == nullptr) return;
    std::string facts = formatted("attribute 128 is {}", device_->fabric_attribute ? 1 : 0);
    if (asked.is_host()) {
        int travels = 0;
        const CUresult result = driver_->device_get_attribute(&travels, kHostReachesNodes, device_->device);
        if (result != CUDA_ERROR_INVALID_VALUE)  // which a driver answers that is older than the attribute
            check(result, *driver_, {.call = "cuDeviceGetAttribute", .location = asked});
        host_travels_ = result == CUDA_SUCCESS && travels != 0;
        facts += result == CUDA_SUCCESS ? formatted(", attribute 143 is {}", travels)
                                        : std::string(", attribute 143 is not known to this driver");
    }
    if (device_->fabric_attribute) return pass(ProbeRung::attributes, std::move(facts));
    set(ProbeRung::attributes, RungState::failed, std::move(facts), "FM-FABRIC-001",
        "the device says that it has no fabric handles");
}

void Ladder::look_at_channels() {
    const auto channels = driver_->platform().imex_channels();
    for (const ImexChannel& channel : channels) {
        if (channel.open_errno == 0 && channel.major_matches)
            return pass(ProbeRung::channels, formatted("channel {} can be opened{}", channel.channel(),
                                                       channel.channel() == channel.number
                                                           ? std::string()
                                                           : formatted(" (by channel{}: the driver goes by the "
                                                                       "minor number)",
                                                                       channel.number)));
    }
    std::string facts = formatted("{} channel nodes, none of them usable", channels.size());
    if (const int error = driver_->platform().imex_channels_errno(); error != 0)
        facts = formatted("no channel nodes: their folder can't be listed (errno {})", error);
    Finding finding = find_cause_in_channels(driver_->platform());
    set(ProbeRung::channels, RungState::failed, std::move(facts), finding.check, std::move(finding.cause),
        std::move(finding.cure));
}

void Ladder::judge_fabric(const FabricInfo& info) {
    std::string facts = in_fabric(info);
    const auto warn = [&](std::string_view check, std::string cause) {
        set(ProbeRung::fabric_state, RungState::warning, std::move(facts), check, std::move(cause));
    };
    if (info.state == FabricInfo::State::not_started)
        return warn("FM-FABRIC-003", "the GPU has not begun to join the NVLink fabric");
    if (info.state == FabricInfo::State::in_progress)
        return warn("FM-FABRIC-003", "the GPU has not finished joining the NVLink fabric");
    if (info.state == FabricInfo::State::completed && info.status != 0)
        return warn("FM-FABRIC-006", formatted("joining the NVLink fabric ended with NVML's status {}", info.status));
    if (info.health_mask.has_value() && !is_healthy_fabric(*info.health_mask))
        return warn("FM-FABRIC-005", describe_fabric_health(*info.health_mask));
    pass(ProbeRung::fabric_state, std::move(facts));
}

void Ladder::look_at_fabric() {
    if (device_ == nullptr) return;
    if (const auto info = driver_->platform().fabric_info(device_->pci_bus_id); info.has_value())
        return judge_fabric(*info);
    ProbeStep& unknown = step(ProbeRung::fabric_state);
    unknown.state = RungState::unknown;
    unknown.facts = "NVML is not to be had, or does not know the device";
    unknown.check = "FM-NVML-001";
}

void Ladder::look() {
    look_at_attributes();
    look_at_channels();
    look_at_fabric();
}

void Ladder::make_and_touch() {
    at_ = ProbeRung::create;
    FabricBuffer own(driver_, 1, {.location = result_.location});
    pass_all(ProbeRung::reserve, ProbeRung::import_handle);
    at_ = ProbeRung::import_handle;
    ImportedFabricBuffer imported(driver_, own.blob());
    pass_all(ProbeRung::import_handle, ProbeRung::touch);
    at_ = ProbeRung::touch;
    {
        Touch with(*driver_, toucher(result_.location, own.access(), imported.access()), {&own, &imported});
        with.fill(imported, kPattern, kTouchedBytes);
        const auto seen = with.read(own, kTouchedBytes);
        if (!std::all_of(seen.begin(), seen.end(), [](unsigned char byte) { return byte == kPattern; })) {
            throw Error({.kind = ErrorKind::driver,
                         .subject = formatted(
                             "what the GPU wrote through an import on {} did not arrive in the exporter's mapping",
                             to_string(own.location())),
                         .cure = cure_of("FM-MEMORY-009"),
                         .check = "FM-MEMORY-009"});
        }
    }
    pass(ProbeRung::touch);
    const HandleKinds kinds = own.kinds();
    at_ = ProbeRung::tear_down;
    imported.close();
    if (own.close() == CloseResult::still_referenced) {
        throw Error({.kind = ErrorKind::conflict,
                     .subject = "the probe's memory is still referenced after it was released",
                     .check = "FM-MEMORY-010"});
    }
    pass(ProbeRung::tear_down);
    result_.kinds = kinds;
}

// Of a descriptor as far as the import: whether one can be had at all.
bool Ladder::has_file_descriptors() {
    constexpr auto kDescriptor = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    try {
        const auto facts = DriverState::of(*driver_).memory_at(result_.location, kDescriptor);
        const Allocation own = create(*driver_, facts->granularity, facts->properties);
        CloseDescriptor exported;
        check(driver_->mem_export_to_shareable_handle(&exported.fd, own.get(), kDescriptor, 0), *driver_,
              {.call = "cuMemExportToShareableHandle", .bytes = facts->granularity, .location = facts->location});
        CUmemGenericAllocationHandle handle = 0;
        // The descriptor itself goes where a pointer to a handle of another kind would (cuda.h).
        void* const descriptor = reinterpret_cast<void*>(static_cast<std::intptr_t>(exported.fd));
        check(driver_->mem_import_from_shareable_handle(&handle, descriptor, kDescriptor), *driver_,
              {.call = "cuMemImportFromShareableHandle", .bytes = facts->granularity, .location = facts->location});
        const Allocation imported(*driver_, handle);
        return true;
    } catch (const Error&) {
        return false;  // the reason why there is no fabric memory is the one to be told
    }
}

HandleReach Ladder::reach_of_fabric() {
    if (device_ == nullptr) return HandleReach::fabric_node;
    const auto place = DriverState::of(*driver_).fabric_place(*device_);
    const bool in_domain = place.has_value() && !place->cluster_uuid.is_zero();
    const bool travels = !result_.location.is_host() || host_travels_;
    return in_domain && travels ? HandleReach::fabric_domain : HandleReach::fabric_node;
}

ProbeResult Ladder::climb() {
    try {
        check_driver(driver_);
        look();
    } catch (const Error& error) {
        fail(ProbeRung::attributes, error);
        return result_;
    }
    try {
        make_and_touch();
        result_.reach = reach_of_fabric();
    } catch (const Error& error) {
        const std::string& call = error.details().call;
        ProbeRung rung = at_;
        if (at_ == ProbeRung::create) {
            rung = rung_of_making(error.details());
            pass_all(ProbeRung::reserve, rung);
        } else if (at_ == ProbeRung::import_handle) {
            rung = rung_of_import(call);
            if (rung == ProbeRung::map_import && call != "cuMemAddressReserve") pass(ProbeRung::import_handle);
        }
        fail(rung, at_ == ProbeRung::import_handle ? of_own_handle(error) : error);
        const bool refused = error.kind() == ErrorKind::not_permitted || error.kind() == ErrorKind::unsupported;
        if (refused && has_file_descriptors()) {
            result_.reach = HandleReach::posix_fd;
            result_.kinds = HandleKind::posix_fd;
        }
    }
    return result_;
}

}  // namespace fabricmem::detail
