// SPDX-License-Identifier: Apache-2.0
// The table of causes. Each row's source is docs/failures.md: seen on a GPU, or reports from the field; what is
// inferred is worded as likely. A failing driver is not called again to explain it, and NVML is not started: what they
// say is used where the driver's state has it at hand. Asked anew are /proc (who we are, whether the exporter lives,
// the kernel module) and the channel nodes in /dev, which are opened once more.
#include "driver/causes.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include <fabricmem/platform.hpp>

#include "driver/driver_state.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

// The folder itself: a user who may not list it sees no node.
Finding find_in_channel_folder(int error) {
    constexpr const char* kFolder = "/dev/nvidia-caps-imex-channels";
    if (error == EACCES || error == EPERM) {
        return {"FM-CHANNEL-002",
                formatted("{} is there, but this user may not list it (errno {}), and so sees no channel node", kFolder,
                          error),
                formatted("as administrator: `chmod 0755 {}`", kFolder)};
    }
    const std::string why =
        error == 0 || error == ENOENT ? std::string() : formatted(": {} can't be listed (errno {})", kFolder, error);
    return {"FM-CHANNEL-001",
            formatted("this process sees no IMEX channel node (/dev/nvidia-caps-imex-channels/channelN){}", why)};
}

// "channel0", and which channel that is for the driver, where the name does not say.
std::string name_of(const ImexChannel& channel) {
    std::string node = formatted("/dev/nvidia-caps-imex-channels/channel{}", channel.number);
    if (channel.channel() == channel.number) return node;
    return formatted("{} (channel {} for the driver, which goes by the minor number)", node, channel.channel());
}

Finding find_in_channel(const ImexChannel& channel, const std::optional<KernelModule>& module) {
    const std::string node = formatted("/dev/nvidia-caps-imex-channels/channel{}", channel.number);
    if (module.has_value() && module->imex_channel_count == 0U)
        return {"FM-CHANNEL-006", "the driver has no IMEX channels: ImexChannelCount is 0", "",
                ErrorKind::not_permitted};
    if (!channel.major_matches) {
        return {"FM-CHANNEL-004", formatted("{} has a stale major number: it differs from the one in /proc/devices, "
                                            "which changes from node to node and boot to boot",
                                            node)};
    }
    if (channel.open_errno == EACCES)
        return {"FM-CHANNEL-002", formatted("{} is there, but its mode or owner keeps this user from opening it", node),
                channel.number == 0 ? std::string() : formatted("as administrator: `chmod 0666 {}`", node)};
    if (channel.open_errno == EPERM) {
        return {"FM-CHANNEL-003",
                formatted("{} is there, but likely a device cgroup keeps this container from opening it", node)};
    }
    const auto count = module.has_value() ? module->imex_channel_count : std::nullopt;
    if (count.has_value() && static_cast<std::uint32_t>(channel.channel()) >= *count) {
        return {"FM-CHANNEL-005", formatted("{} can't be opened (errno {}): its number is beyond the driver's "
                                            "ImexChannelCount, which is {}",
                                            name_of(channel), channel.open_errno, *count)};
    }
    return {"FM-CHANNEL-005", formatted("{} can't be opened (errno {}): likely its minor number is beyond the driver's "
                                        "ImexChannelCount (/proc/driver/nvidia/params)",
                                        name_of(channel), channel.open_errno)};
}

constexpr const char* kLookFurther =
    "look for an Xid in the kernel's log (dmesg), and for the code in the documentation of this driver's version";

const DeviceFacts* device_at(const std::optional<Location>& location, const Topology& topology) {
    if (!location.has_value() || location->kind() != LocationKind::device) return nullptr;
    const auto index = static_cast<std::size_t>(location->index());
    return location->index() >= 0 && index < topology.devices.size() ? &topology.devices[index] : nullptr;
}

bool fabric_is_probing(Driver& driver, const CallContext& context) {
    DriverState& state = DriverState::of(driver);
    const auto topology = state.known_topology();
    const DeviceFacts* const device = topology == nullptr ? nullptr : device_at(context.location, *topology);
    return device != nullptr && state.was_probing(*device);
}

Finding find_for_not_supported(Driver& driver, const CallContext& context) {
    if (!has_fabric_handles(driver, context.location))
        return {"FM-FABRIC-001", "this device has no fabric handles (attribute 128 is 0)"};
    const auto module = driver.platform().kernel_module();
    const auto count = module.has_value() ? module->imex_channel_count : std::nullopt;
    if (!count.has_value()) {
        return {"FM-CHANNEL-006",
                "likely ImexChannelCount is 0 (/proc/driver/nvidia/params), or the device has no fabric support"};
    }
    if (*count == 0)
        return {"FM-CHANNEL-006",
                "the driver has no IMEX channels: ImexChannelCount is 0 (/proc/driver/nvidia/params)"};
    return {"FM-FABRIC-001", formatted("likely the device has no fabric support, whatever attribute 128 says "
                                       "(ImexChannelCount is {}, so it is not that)",
                                       *count)};
}

Finding find_for_create(CUresult result, Driver& driver, const CallContext& context) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_NOT_PERMITTED: return find_cause_in_channels(driver.platform());
        case CUDA_ERROR_OUT_OF_MEMORY:
        case CUDA_ERROR_NOT_INITIALIZED:
        case CUDA_ERROR_DEINITIALIZED: return find_cause_by_code(result, driver);
        case CUDA_ERROR_NOT_SUPPORTED: return find_for_not_supported(driver, context);
        case CUDA_ERROR_INVALID_VALUE:
            if (context.location.has_value() && context.location->is_host()) {
                return {"FM-MEMORY-002", formatted("likely there is no {}", to_string(*context.location)),
                        "name a NUMA node that the machine has"};
            }
            if (!has_fabric_handles(driver, context.location)) {
                return {"FM-FABRIC-001",
                        "likely the driver is older than fabric handles, or the device has none (attribute 128)",
                        "use a driver of CUDA 12.3 or newer, or another kind of memory"};
            }
            return {"FM-MEMORY-002",
                    "the driver takes none of: an unaligned size, an unknown location, this handle type there"};
        case CUDA_ERROR_INVALID_DEVICE:
            return {"FM-MEMORY-002", "there is no such device",
                    "name a device that this process sees (CUDA_VISIBLE_DEVICES)"};
        case CUDA_ERROR_ILLEGAL_ADDRESS:
        case CUDA_ERROR_LAUNCH_FAILED:
        case 220:
        case 226: return find_cause_by_code(result, driver);  // sticky, whatever the fabric is at
        default: break;
    }
    if (fabric_is_probing(driver, context))
        return {"FM-FABRIC-003", "likely the GPU has not finished joining the NVLink fabric (NVML's fabric state)"};
    if (result == CUDA_ERROR_SYSTEM_NOT_READY) {
        return {
            "FM-IMEX-002",
            "likely this node's IMEX daemon died while other nodes had its memory, which keeps fabric memory off until "
            "it is back; or the Fabric Manager is not running",
            "as administrator start nvidia-imex, and look at nvidia-fabricmanager (HGX) or at the rack's partition"};
    }
    Finding finding = find_cause_by_code(result, driver);
    if (finding.check.empty()) finding.check = "FM-MEMORY-001";
    return finding;
}

Finding find_for_export(CUresult result, Driver& driver) {
    if (result == CUDA_ERROR_INVALID_VALUE) {
        return {"FM-MEMORY-004", "the memory was not created for fabric handles, or the device silently granted none"};
    }
    return find_cause_by_code(result, driver);
}

Finding find_for_set_access(CUresult result, Driver& driver) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_PEER_ACCESS_UNSUPPORTED:
            return {"FM-MEMORY-008", "the devices asked for have no P2P access to this memory",
                    "ask for access by the memory's own device, or by its P2P peers", ErrorKind::unsupported};
        case CUDA_ERROR_INVALID_DEVICE:
            return {"FM-MEMORY-008", "the access list names a device that this process does not see",
                    "name devices that it sees (CUDA_VISIBLE_DEVICES)", ErrorKind::bad_argument};
        case CUDA_ERROR_NOT_SUPPORTED:
            return {"FM-MEMORY-008",
                    "none of those asked for can access this memory (the CPU can't access device memory here)",
                    "ask for access by the memory's own device", ErrorKind::unsupported};
        case CUDA_ERROR_INVALID_VALUE:
            return {"FM-MEMORY-008",
                    "the driver knows no such access to this memory, or somebody has unmapped it; of an import, likely "
                    "the two sides' cliques, NVLink bandwidth modes or IMEX domains differ",
                    "ask for access by the memory's own device alone, and let nobody else unmap it"};
        default: return find_cause_by_code(result, driver);
    }
}

Finding find_for_reserve(CUresult result, Driver& driver, const CallContext& context) {
    if (result == CUDA_ERROR_INVALID_VALUE) {
        return {"FM-MEMORY-006", "the driver takes neither a size nor an alignment below its granularity",
                "ask for no alignment, and for sizes that are multiples of the granularity"};
    }
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        return {"FM-MEMORY-006",
                formatted("this process has no free range of {} bytes of addresses{}", context.bytes,
                          context.imported == nullptr ? "" : ", or the blob's size is not the allocation's"),
                "", ErrorKind::out_of_memory};
    }
    return find_cause_by_code(result, driver);
}

Finding find_for_tear_down(CUresult result, Driver& driver) {
    if (result == CUDA_ERROR_INVALID_VALUE)
        return {"FM-MEMORY-010", "somebody else has unmapped, released or freed it, or mapped something there"};
    return find_cause_by_code(result, driver);
}

}  // namespace

bool has_fabric_handles(Driver& driver, const std::optional<Location>& location) {
    const auto topology = DriverState::of(driver).known_topology();
    if (topology == nullptr) return true;  // it is not blamed on what is not known
    if (const DeviceFacts* const device = device_at(location, *topology); device != nullptr)
        return device->fabric_attribute;
    return std::any_of(topology->devices.begin(), topology->devices.end(),
                       [](const DeviceFacts& device) { return device.fabric_attribute; });
}

Finding find_cause_in_channels(const Platform& platform) {
    const std::vector<ImexChannel> channels = platform.imex_channels();
    const auto module = platform.kernel_module();
    if (channels.empty()) {
        if (module.has_value() && module->imex_channel_count == 0U)
            return {"FM-CHANNEL-006", "the driver has no IMEX channels: ImexChannelCount is 0", "",
                    ErrorKind::not_permitted};
        return find_in_channel_folder(platform.imex_channels_errno());
    }
    for (const ImexChannel& channel : channels) {
        if (channel.open_errno != 0 || !channel.major_matches) continue;
        return {"FM-CHANNEL-008",
                formatted("the driver refuses, although IMEX channel {} can be opened{}: likely the node's number is "
                          "beyond the driver's ImexChannelCount (/proc/driver/nvidia/params), or it appeared after "
                          "this process had started CUDA",
                          channel.channel(),
                          channel.channel() == channel.number ? std::string()
                                                              : formatted(" (the node is {})", name_of(channel)))};
    }
    return find_in_channel(channels.front(), module);
}

Finding find_cause_by_code(CUresult result, Driver& driver) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_OUT_OF_MEMORY:
            return {"FM-MEMORY-003", "the driver, or the system under it, has no more to give"};
        case CUDA_ERROR_NOT_INITIALIZED:
            if (DriverState::of(driver).forked()) {
                return {"FM-DRIVER-007",
                        "this process was forked after CUDA was initialised, and CUDA does not survive fork()"};
            }
            return {"", "cuInit was not called, or failed", "make the driver with make_cuda_driver()",
                    ErrorKind::driver};
        case CUDA_ERROR_DEINITIALIZED:
            return {"", "the CUDA driver has shut down: the process is exiting", "make no call after main has returned",
                    ErrorKind::closed};
        case CUDA_ERROR_NO_DEVICE:
            return {"FM-DRIVER-003", "CUDA sees no device: there is none, or CUDA_VISIBLE_DEVICES hides all",
                    "look at nvidia-smi and at CUDA_VISIBLE_DEVICES, and give the container its devices"};
        case CUDA_ERROR_SYSTEM_NOT_READY:
            return {"FM-FABRIC-004", "likely the Fabric Manager is not running or of another version than the driver"};
        case CUDA_ERROR_INVALID_CONTEXT:
            return {"", "no CUDA context is current in this thread",
                    "make one current (cuCtxSetCurrent, cudaSetDevice) before the call", ErrorKind::driver};
        case CUDA_ERROR_ILLEGAL_ADDRESS:
        case CUDA_ERROR_LAUNCH_FAILED:
            return {"FM-DRIVER-010",
                    "work on the GPU failed and the context is lost; likely memory was unmapped while work on it was "
                    "queued"};
        case 220:
        case 226: return {"FM-FABRIC-009", "an NVLink peer is gone; the error is sticky"};
        case CUDA_ERROR_NOT_SUPPORTED:
            return {"", "this driver, or this device, does not do it", kLookFurther, ErrorKind::unsupported};
        case CUDA_ERROR_NOT_PERMITTED:
            return {"", "this process may not do it", "ask the machine's administrator", ErrorKind::not_permitted};
        case CUDA_ERROR_INVALID_VALUE:
            return {"", "the driver does not take one of the call's arguments", kLookFurther, ErrorKind::driver};
        default: return {"", "the driver says no more than its code", kLookFurther, ErrorKind::driver};
    }
}

Finding find_cause(CUresult result, Driver& driver, const CallContext& context) {
    if (context.imported != nullptr) {
        if (context.call == "cuMemImportFromShareableHandle" || context.call == "cuMemMap")
            return find_cause_of_import(result, driver, context);
        if (context.call == "cuMemSetAccess") {
            Finding finding = find_cause_of_import(result, driver, context);
            if (finding.kind == ErrorKind::foreign_domain) return finding;
        }
    }
    if (context.call == "cuMemCreate" || context.call == "cuMemGetAllocationGranularity")
        return find_for_create(result, driver, context);
    if (context.call == "cuMemExportToShareableHandle") return find_for_export(result, driver);
    if (context.call == "cuMemSetAccess") return find_for_set_access(result, driver);
    if (context.call == "cuMemAddressReserve") return find_for_reserve(result, driver, context);
    if (context.call == "cuMemUnmap" || context.call == "cuMemRelease" || context.call == "cuMemAddressFree")
        return find_for_tear_down(result, driver);
    Finding finding = find_cause_by_code(result, driver);
    if (context.call == "cuMemMap" && finding.check.empty()) finding.check = "FM-MEMORY-007";
    return finding;
}

}  // namespace fabricmem::detail
