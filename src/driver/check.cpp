// SPDX-License-Identifier: Apache-2.0
// Composes the Error of a failed driver call: the cause from the table (causes.cpp), and who the two sides are.
#include "driver/check.hpp"

#include <string>
#include <utility>

#include <fabricmem/checks.hpp>
#include <fabricmem/platform.hpp>

#include "driver/causes.hpp"
#include "driver/driver_state.hpp"
#include "error/cures.hpp"
#include "error/result_name.hpp"
#include "log/log.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

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
    Finding finding = find_cause(result, driver, context);
    const Check* const check = find_check(finding.check);
    if (check != nullptr) details.kind = check->kind;
    if (finding.kind.has_value()) details.kind = *finding.kind;
    details.check = std::string(finding.check);
    details.cause = std::move(finding.cause);
    details.cure = finding.cure.empty() && check != nullptr ? in_words(check->cures) : std::move(finding.cure);
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
