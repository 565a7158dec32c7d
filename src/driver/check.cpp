// SPDX-License-Identifier: Apache-2.0
// The table of causes. Each row's source is docs/driver-notes.md (seen on a GPU) or reports from the field: what is
// inferred is worded as likely. A failing driver is not called again to explain it, and NVML is not started: what they
// say is used where the driver's state has it at hand. Asked anew are /proc (who we are, whether the exporter lives)
// and the channel nodes in /dev, which are opened once more.
#include "driver/check.hpp"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/platform.hpp>

#include "driver/driver_state.hpp"
#include "error/result_name.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

struct Finding {
    ErrorKind kind = ErrorKind::driver;
    std::string cause;
    std::string cure;
};

constexpr const char* kMakeChannel =
    "as administrator make the node (mkdir -p /dev/nvidia-caps-imex-channels; mknod "
    "/dev/nvidia-caps-imex-channels/channel0 c $(awk '$2==\"nvidia-caps-imex-channels\"{print $1}' /proc/devices) 0) "
    "or "
    "load the nvidia module with NVreg_CreateImexChannel0=1; pass the node into the container; in Kubernetes claim a "
    "ComputeDomain";

Finding channel_not_openable(const ImexChannel& channel) {
    const std::string node = formatted("/dev/nvidia-caps-imex-channels/channel{}", channel.number);
    Finding finding{ErrorKind::not_permitted, {}, {}};
    if (!channel.major_matches) {
        finding.cause = formatted(
            "{} has a stale major number: it differs from the one in /proc/devices, which changes "
            "from node to node and boot to boot",
            node);
        finding.cure = "as administrator remove the node and make it again with the number in /proc/devices";
    } else if (channel.open_errno == EACCES) {
        finding.cause = formatted("{} is there, but its mode or owner keeps this user from opening it", node);
        finding.cure = formatted("as administrator: chmod 0666 {}", node);
    } else if (channel.open_errno == EPERM) {
        finding.cause = formatted("{} is there, but likely a device cgroup keeps this container from opening it", node);
        finding.cure = "give the container a device rule for it (docker run --device, or a ComputeDomain claim)";
    } else {
        finding.cause = formatted(
            "{} can't be opened (errno {}): likely its minor number is beyond the driver's "
            "ImexChannelCount (/proc/driver/nvidia/params)",
            node, channel.open_errno);
        finding.cure = "use a channel number below ImexChannelCount, or raise NVreg_ImexChannelCount";
    }
    return finding;
}

// No permission for a fabric handle: the channel nodes tell why.
Finding explain_channel(Driver& driver) {
    const std::vector<ImexChannel> channels = driver.platform().imex_channels();
    if (channels.empty()) {
        return {ErrorKind::not_permitted,
                "this process sees no IMEX channel node (/dev/nvidia-caps-imex-channels/channelN)", kMakeChannel};
    }
    for (const ImexChannel& channel : channels) {
        if (channel.open_errno == 0 && channel.major_matches) {
            return {ErrorKind::not_permitted,
                    formatted("the driver refuses, although IMEX channel {} can be opened: likely the node's number is "
                              "beyond the driver's ImexChannelCount (/proc/driver/nvidia/params), or it appeared after "
                              "this process had started CUDA",
                              channel.number),
                    "check the node's minor number against ImexChannelCount, and start the process again"};
        }
    }
    return channel_not_openable(channels.front());
}

constexpr const char* kLookFurther =
    "look for an Xid in the kernel's log (dmesg), and for the code in the documentation of this driver's version";

Finding explain_any(CUresult result, Driver& driver) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_OUT_OF_MEMORY:
            return {ErrorKind::out_of_memory, "the driver, or the system under it, has no more to give",
                    "free memory, or ask for less"};
        case CUDA_ERROR_NOT_INITIALIZED:
            if (DriverState::of(driver).forked()) {
                return {ErrorKind::unsupported,
                        "this process was forked after CUDA was initialised, and CUDA does not survive fork()",
                        "start the child with exec, and make its driver there"};
            }
            return {ErrorKind::driver, "cuInit was not called, or failed", "make the driver with make_cuda_driver()"};
        case CUDA_ERROR_DEINITIALIZED:
            return {ErrorKind::closed, "the CUDA driver has shut down: the process is exiting",
                    "make no call after main has returned"};
        case CUDA_ERROR_NO_DEVICE:
            return {ErrorKind::unsupported, "CUDA sees no device: there is none, or CUDA_VISIBLE_DEVICES hides all",
                    "look at nvidia-smi and at CUDA_VISIBLE_DEVICES, and give the container its devices"};
        case CUDA_ERROR_SYSTEM_NOT_READY:
            return {ErrorKind::system, "likely the Fabric Manager is not running or of another version than the driver",
                    "HGX: start nvidia-fabricmanager; GB200, GB300: look at the rack's partition"};
        case CUDA_ERROR_INVALID_CONTEXT:
            return {ErrorKind::driver, "no CUDA context is current in this thread",
                    "make one current (cuCtxSetCurrent, cudaSetDevice) before the call"};
        case CUDA_ERROR_ILLEGAL_ADDRESS:
        case CUDA_ERROR_LAUNCH_FAILED:
            return {ErrorKind::driver,
                    "work on the GPU failed and the context is lost; likely memory was unmapped while work on it was "
                    "queued",
                    "let the memory be idle before it is destroyed, and end the process"};
        case 220:
        case 226: return {ErrorKind::driver, "an NVLink peer is gone; the error is sticky", "end the process"};
        case CUDA_ERROR_NOT_SUPPORTED:
            return {ErrorKind::unsupported, "this driver, or this device, does not do it", kLookFurther};
        case CUDA_ERROR_NOT_PERMITTED:
            return {ErrorKind::not_permitted, "this process may not do it", "ask the machine's administrator"};
        case CUDA_ERROR_INVALID_VALUE:
            return {ErrorKind::driver, "the driver does not take one of the call's arguments", kLookFurther};
        default: return {ErrorKind::driver, "the driver says no more than its code", kLookFurther};
    }
}

const DeviceFacts* device_at(const std::optional<Location>& location, const Topology& topology) {
    if (!location.has_value() || location->kind() != LocationKind::device) return nullptr;
    const auto index = static_cast<std::size_t>(location->index());
    return location->index() >= 0 && index < topology.devices.size() ? &topology.devices[index] : nullptr;
}

// Whether the device there says that it has fabric handles, or, without a device there, any of this process's does.
bool has_fabric(Driver& driver, const std::optional<Location>& location) {
    const auto topology = DriverState::of(driver).known_topology();
    if (topology == nullptr) return true;  // it is not blamed on what is not known
    if (const DeviceFacts* const device = device_at(location, *topology); device != nullptr)
        return device->fabric_attribute;
    return std::any_of(topology->devices.begin(), topology->devices.end(),
                       [](const DeviceFacts& device) { return device.fabric_attribute; });
}

bool fabric_is_probing(Driver& driver, const CallContext& context) {
    DriverState& state = DriverState::of(driver);
    const auto topology = state.known_topology();
    const DeviceFacts* const device = topology == nullptr ? nullptr : device_at(context.location, *topology);
    return device != nullptr && state.was_probing(*device);
}

Finding explain_create(CUresult result, Driver& driver, const CallContext& context) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_NOT_PERMITTED: return explain_channel(driver);
        case CUDA_ERROR_OUT_OF_MEMORY:
        case CUDA_ERROR_NOT_INITIALIZED:
        case CUDA_ERROR_DEINITIALIZED: return explain_any(result, driver);
        case CUDA_ERROR_NOT_SUPPORTED:
            if (!has_fabric(driver, context.location)) {
                return {ErrorKind::unsupported, "this device has no fabric handles (attribute 128 is 0)",
                        "use another kind of memory"};
            }
            return {ErrorKind::unsupported,
                    "likely ImexChannelCount is 0 (/proc/driver/nvidia/params), or the device has no fabric support",
                    "load the nvidia module with NVreg_ImexChannelCount above 0"};
        case CUDA_ERROR_INVALID_VALUE:
            if (context.location.has_value() && context.location->is_host()) {
                return {ErrorKind::bad_argument, formatted("likely there is no {}", to_string(*context.location)),
                        "name a NUMA node that the machine has"};
            }
            if (!has_fabric(driver, context.location)) {
                return {ErrorKind::unsupported,
                        "likely the driver is older than fabric handles, or the device has none (attribute 128)",
                        "use a driver of CUDA 12.3 or newer, or another kind of memory"};
            }
            return {ErrorKind::bad_argument,
                    "the driver takes none of: an unaligned size, an unknown location, this handle type there",
                    "look at the size, the location and the handle types"};
        case CUDA_ERROR_INVALID_DEVICE:
            return {ErrorKind::bad_argument, "there is no such device",
                    "name a device that this process sees (CUDA_VISIBLE_DEVICES)"};
        default: break;
    }
    if (fabric_is_probing(driver, context)) {
        return {ErrorKind::system, "likely the GPU has not finished joining the NVLink fabric (NVML's fabric state)",
                "wait for it, or look at the Fabric Manager's log"};
    }
    if (result == CUDA_ERROR_SYSTEM_NOT_READY) {
        return {
            ErrorKind::system,
            "likely this node's IMEX daemon died while other nodes had its memory, which keeps fabric memory off "
            "until it is back; or the Fabric Manager is not running",
            "as administrator start nvidia-imex, and look at nvidia-fabricmanager (HGX) or at the rack's partition"};
    }
    return explain_any(result, driver);
}

Finding explain_export(CUresult result, Driver& driver) {
    if (result == CUDA_ERROR_INVALID_VALUE) {
        return {ErrorKind::unsupported,
                "the memory was not created for fabric handles, or the device silently granted none",
                "use another handle kind on this device"};
    }
    return explain_any(result, driver);
}

// Whether the fabric places of exporter and importer are both known and differ.
bool foreign(const HandleBlob& blob, Driver& driver) {
    if (!blob.fabric.has_value()) return false;
    DriverState& state = DriverState::of(driver);
    const auto topology = state.known_topology();
    if (topology == nullptr) return false;
    for (const DeviceFacts& device : topology->devices) {
        const std::optional<FabricPlace> place = state.known_fabric_place(device);
        if (!place.has_value() || *place == *blob.fabric) return false;
    }
    return true;
}

constexpr const char* kOneDomain = "run both sides in one NVLink domain, partition and IMEX domain";

Finding explain_gone(const HandleBlob& blob, Driver& driver) {
    const auto self = DriverState::of(driver).identity();
    const bool same_node = DriverState::of(driver).is_this_node(blob);
    constexpr const char* kAskAgain = "ask the exporter for a new blob";
    if (!blob.allocation_id.has_value()) {
        return {ErrorKind::peer_gone,
                "the exporter has released the memory or is gone, or these bytes are no fabric handle", kAskAgain};
    }
    if (same_node && blob.process_id.has_value() && blob.process_start.has_value() &&
        blob.pid_namespace == self->pid_namespace) {
        switch (driver.platform().process_state(*blob.process_id, *blob.process_start)) {
            case ProcessState::gone:
                return {ErrorKind::peer_gone, formatted("the exporting process {} has ended", *blob.process_id),
                        kAskAgain};
            case ProcessState::alive:
                return {ErrorKind::peer_gone,
                        formatted("the exporting process {} lives, but has released the memory", *blob.process_id),
                        kAskAgain};
            case ProcessState::unknown: break;
        }
    }
    // Equal host ids and different boot ids: either a boot in between, or two machines made from one image.
    if (!same_node && blob.host_id.has_value() && blob.host_id == self->host_id) {
        return {
            ErrorKind::peer_gone,
            "likely this host was booted after the blob was made (or the exporter's machine has the same machine-id, "
            "and has released the memory)",
            kAskAgain};
    }
    if (same_node) return {ErrorKind::peer_gone, "the exporter has released the memory or has ended", kAskAgain};
    return {ErrorKind::peer_gone,
            "the exporter has released the memory or is gone; or, likely, its IMEX daemon was down when it exported: "
            "such a "
            "handle works on its own node alone, for ever",
            "ask the exporter for a new blob (export_again() makes one), once its nvidia-imex is READY"};
}

Finding explain_import_channel(const HandleBlob& blob, Driver& driver) {
    const std::optional<std::int32_t> own = DriverState::of(driver).imex_channel();
    if (!own.has_value()) return explain_channel(driver);
    if (blob.imex_channel.has_value() && *blob.imex_channel != *own) {
        return {ErrorKind::not_permitted,
                formatted("the exporter holds IMEX channel {}, this process {}: a process has one channel for life, "
                          "the first that it can open",
                          *blob.imex_channel, *own),
                "give both processes the same channel"};
    }
    return {
        ErrorKind::not_permitted,
        formatted("likely the exporter holds another IMEX channel than this process ({}): a process keeps the first "
                  "that it could open when it started",
                  *own),
        "give both processes the same channel"};
}

Finding explain_import(CUresult result, Driver& driver, const HandleBlob& blob) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_NOT_PERMITTED: return explain_import_channel(blob, driver);
        case CUDA_ERROR_NOT_SUPPORTED:
            if (!has_fabric(driver, std::nullopt)) {
                return {ErrorKind::unsupported, "no device of this process has fabric handles (attribute 128 is 0)",
                        "use another kind of memory"};
            }
            return explain_gone(blob, driver);
        case CUDA_ERROR_NOT_READY:
            return {ErrorKind::system,
                    "the IMEX daemon of this node is not running (or the handle names a node that does not exist)",
                    "as administrator start nvidia-imex, then try again"};
        case CUDA_ERROR_INVALID_HANDLE:
            if (foreign(blob, driver))
                return {ErrorKind::foreign_domain, "exporter and importer are in different NVLink domains or cliques",
                        kOneDomain};
            return {ErrorKind::foreign_domain,
                    "likely another IMEX domain, or an exporter that is gone, or an IMEX daemon that is not well",
                    kOneDomain};
        case CUDA_ERROR_INVALID_DEVICE:
            return {ErrorKind::unsupported, "this process does not see the exporter's GPU",
                    "make the GPUs of one node visible to all its processes (CUDA_VISIBLE_DEVICES, the container's "
                    "devices)"};
        case CUDA_ERROR_INVALID_VALUE:
            return {ErrorKind::bad_blob, "the bytes are no fabric handle, or were damaged on their way",
                    "ask the exporter for a new blob"};
        default: return explain_any(result, driver);
    }
}

Finding explain_import_mapping(CUresult result, Driver& driver, const CallContext& context) {
    const int code = static_cast<int>(result);
    if (code == CUDA_ERROR_INVALID_VALUE || code == CUDA_ERROR_NOT_SUPPORTED) {
        if (foreign(*context.imported, driver))
            return {ErrorKind::foreign_domain, "exporter and importer are in different NVLink domains or cliques",
                    kOneDomain};
        if (context.call == "cuMemMap") {
            return {ErrorKind::bad_blob,
                    formatted("the allocation does not have {} bytes, as the blob says; or, likely on another node, "
                              "the two sides' cliques differ",
                              context.bytes),
                    "ask the exporter for a new blob, with the whole allocation's size"};
        }
        if (code == CUDA_ERROR_INVALID_VALUE && !DriverState::of(driver).is_this_node(*context.imported)) {
            return {ErrorKind::foreign_domain, "likely the two sides' nodes are in two IMEX domains on one clique",
                    kOneDomain};
        }
    }
    return explain_any(result, driver);
}

Finding explain_set_access(CUresult result, Driver& driver) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_PEER_ACCESS_UNSUPPORTED:
            return {ErrorKind::unsupported, "the devices asked for have no P2P access to this memory",
                    "ask for access by the memory's own device, or by its P2P peers"};
        case CUDA_ERROR_INVALID_DEVICE:
            return {ErrorKind::bad_argument, "the access list names a device that this process does not see",
                    "name devices that it sees (CUDA_VISIBLE_DEVICES)"};
        case CUDA_ERROR_NOT_SUPPORTED:
            return {ErrorKind::unsupported,
                    "none of those asked for can access this memory (the CPU can't access device memory here)",
                    "ask for access by the memory's own device"};
        case CUDA_ERROR_INVALID_VALUE:
            return {ErrorKind::driver,
                    "the driver knows no such access to this memory, or somebody has unmapped it; of an import, likely "
                    "the two sides' cliques, NVLink bandwidth modes or IMEX domains differ",
                    "ask for access by the memory's own device alone, and let nobody else unmap it"};
        default: return explain_any(result, driver);
    }
}

Finding explain_reserve(CUresult result, Driver& driver, const CallContext& context) {
    if (result == CUDA_ERROR_INVALID_VALUE) {
        return {ErrorKind::driver, "the driver takes neither a size nor an alignment below its granularity",
                "ask for no alignment, and for sizes that are multiples of the granularity"};
    }
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        return {ErrorKind::out_of_memory,
                formatted("this process has no free range of {} bytes of addresses{}", context.bytes,
                          context.imported == nullptr ? "" : ", or the blob's size is not the allocation's"),
                "unmap what is not needed, ask for less or for a smaller alignment, or raise ulimit -v"};
    }
    return explain_any(result, driver);
}

Finding explain_tear_down(CUresult result, Driver& driver) {
    if (result == CUDA_ERROR_INVALID_VALUE) {
        return {ErrorKind::driver, "somebody else has unmapped, released or freed it, or mapped something there",
                "let the buffer alone take down what it made; who keeps its handle has to retain it first"};
    }
    return explain_any(result, driver);
}

Finding find(CUresult result, Driver& driver, const CallContext& context) {
    if (context.call == "cuMemImportFromShareableHandle" && context.imported != nullptr)
        return explain_import(result, driver, *context.imported);
    if (context.imported != nullptr && (context.call == "cuMemMap" || context.call == "cuMemSetAccess")) {
        Finding finding = explain_import_mapping(result, driver, context);
        if (finding.kind == ErrorKind::foreign_domain || context.call == "cuMemMap") return finding;
    }
    if (context.call == "cuMemCreate" || context.call == "cuMemGetAllocationGranularity")
        return explain_create(result, driver, context);
    if (context.call == "cuMemExportToShareableHandle") return explain_export(result, driver);
    if (context.call == "cuMemSetAccess") return explain_set_access(result, driver);
    if (context.call == "cuMemAddressReserve") return explain_reserve(result, driver, context);
    if (context.call == "cuMemUnmap" || context.call == "cuMemRelease" || context.call == "cuMemAddressFree")
        return explain_tear_down(result, driver);
    return explain_any(result, driver);
}

std::string describe(const ProcessIdentity& who) {
    const auto id = [](const std::optional<Id128>& value) {
        return value.has_value() ? to_string(*value) : std::string("unknown");
    };
    std::string text = formatted("host {}, boot {}", id(who.host_id), id(who.boot_id));
    if (who.process_id.has_value()) text += formatted(", process {}", *who.process_id);
    if (who.pid_namespace.has_value()) text += formatted(" (pid namespace {})", *who.pid_namespace);
    return text;
}

std::string describe(const std::optional<FabricPlace>& place) {
    if (!place.has_value()) return ", no NVLink fabric known";
    return formatted(", cluster {} clique {}", to_string(place->cluster_uuid), place->clique);
}

std::string describe_channel(const std::optional<std::int32_t>& channel) {
    return channel.has_value() ? formatted(", IMEX channel {}", *channel) : std::string(", no IMEX channel known");
}

}  // namespace

Location location_of(const CUmemAllocationProp& properties) noexcept {
    return properties.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? Location::device(properties.location.id)
                                                                   : Location::host_numa(properties.location.id);
}

std::string describe_exporter(const HandleBlob& blob) {
    if (!blob.allocation_id.has_value()) return "unknown (a bare handle)";
    std::string text = describe({blob.host_id, blob.boot_id, blob.process_id, blob.pid_namespace, blob.process_start});
    if (blob.device_uuid.has_value()) text += formatted(", device {}", to_string(*blob.device_uuid));
    if (blob.numa_node.has_value()) text += formatted(", host NUMA node {}", *blob.numa_node);
    text += formatted(", allocation {}", to_string(*blob.allocation_id));
    if (!blob.peer.is_zero()) text += formatted(", peer {} generation {}", to_string(blob.peer), blob.generation);
    return text + describe(blob.fabric) + describe_channel(blob.imex_channel);
}

std::string describe_importer(Driver& driver) {
    DriverState& state = DriverState::of(driver);
    std::string text = describe(*state.identity());
    if (const auto topology = state.known_topology(); topology != nullptr) {
        for (const DeviceFacts& device : topology->devices) {
            text += formatted(", device {}{}", to_string(device.uuid), describe(state.known_fabric_place(device)));
        }
    }
    return text + describe_channel(state.imex_channel());
}

std::string describe_known_importer(const Driver& driver) {
    const KnownFacts known = DriverState::of(driver).known();
    std::string text = known.identity == nullptr ? "not known" : describe(*known.identity);
    if (known.topology == nullptr) return text;
    for (const DeviceFacts& device : known.topology->devices) {
        text += formatted(", device {}", to_string(device.uuid));
        const auto place = known.fabric_places.find(device.pci_bus_id);
        if (place != known.fabric_places.end()) text += describe(place->second);
    }
    return text + describe_channel(known.imex_channel);
}

Error explain(CUresult result, Driver& driver, const CallContext& context) {
    ErrorDetails details{.kind = ErrorKind::driver,
                         .code = static_cast<int>(result),
                         .call = std::string(context.call),
                         .bytes = context.bytes};
    if (context.location.has_value()) details.subject = to_string(*context.location);
    Finding finding = find(result, driver, context);
    details.kind = finding.kind;
    details.cause = std::move(finding.cause);
    details.cure = std::move(finding.cure);
    if (context.imported != nullptr) {
        details.identity =
            formatted("Exporter: {}. Importer: {}", describe_exporter(*context.imported), describe_importer(driver));
    }
    return Error(std::move(details));
}

void raise(CUresult result, Driver& driver, const CallContext& context) { throw explain(result, driver, context); }

void log_failure(std::string_view call, std::uint64_t bytes, CUresult result) noexcept {
    const int code = static_cast<int>(result);
    const bool of_memory = call.substr(0, 5) == "cuMem";
    const char* const left = of_memory ? "the memory or its addresses may stay in use" : "what it gives back may stay";
    if (bytes == 0) {
        log(LogLevel::error, "{} failed: {} ({}); {} until the process ends", call, result_name(code), code, left);
    } else {
        log(LogLevel::error, "{} of {} bytes failed: {} ({}); {} until the process ends", call, bytes,
            result_name(code), code, left);
    }
}

}  // namespace fabricmem::detail
