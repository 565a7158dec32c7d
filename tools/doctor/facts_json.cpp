// SPDX-License-Identifier: Apache-2.0
#include "doctor/facts_json.hpp"

#include <charconv>
#include <utility>

#include <nlohmann/json.hpp>

namespace doctor {
namespace {

using fabricmem::FabricInfo;
using fabricmem::HandleReach;
using fabricmem::Id128;
using fabricmem::ImexChannel;
using fabricmem::KernelModule;
using fabricmem::Location;
using fabricmem::NvmlDevice;
using fabricmem::NvmlFacts;
using fabricmem::ProbeStep;
using nlohmann::json;

template <class Value>
json or_null(const std::optional<Value>& value) {
    return value.has_value() ? json(*value) : json();
}

template <class Value>
std::optional<Value> optional_at(const json& in, const char* key) {
    const json& value = in.at(key);
    return value.is_null() ? std::nullopt : std::optional<Value>(value.get<Value>());
}

Id128 id_from(const std::string& text) {
    Id128 id;
    if (text.size() != 2 * id.bytes.size()) return {};
    for (std::size_t i = 0; i < id.bytes.size(); ++i) {
        const char* const digits = text.data() + 2 * i;
        if (std::from_chars(digits, digits + 2, id.bytes[i], 16).ptr != digits + 2) return {};
    }
    return id;
}

json to_json(const Location& place) { return {{"host", place.is_host()}, {"index", place.index()}}; }

Location location_from(const json& in) {
    const int index = in.at("index").get<int>();
    return in.at("host").get<bool>() ? Location::host_numa(index) : Location::device(index);
}

json to_json(const std::optional<FabricInfo>& info) {
    if (!info.has_value()) return {};
    return {{"state", static_cast<int>(info->state)},
            {"status", info->status},
            {"cluster_uuid", to_string(info->cluster_uuid)},
            {"clique", info->clique},
            {"health_mask", or_null(info->health_mask)}};
}

std::optional<FabricInfo> fabric_from(const json& in) {
    if (in.is_null()) return std::nullopt;
    FabricInfo info;
    info.state = static_cast<FabricInfo::State>(in.at("state").get<int>() & 3);
    info.status = in.at("status").get<int>();
    info.cluster_uuid = id_from(in.at("cluster_uuid").get<std::string>());
    info.clique = in.at("clique").get<std::uint32_t>();
    info.health_mask = optional_at<std::uint32_t>(in, "health_mask");
    return info;
}

json to_json(const NvmlDevice& device) {
    return {{"pci_bus_id", device.pci_bus_id},
            {"name", device.name},
            {"uuid", to_string(device.uuid)},
            {"fabric", to_json(device.fabric)},
            {"recovery_action", or_null(device.recovery_action)}};
}

NvmlDevice nvml_device_from(const json& in) {
    return {.pci_bus_id = in.at("pci_bus_id").get<std::string>(),
            .name = in.at("name").get<std::string>(),
            .uuid = id_from(in.at("uuid").get<std::string>()),
            .fabric = fabric_from(in.at("fabric")),
            .recovery_action = optional_at<std::uint32_t>(in, "recovery_action")};
}

json to_json(const std::optional<KernelModule>& module) {
    if (!module.has_value()) return {};
    return {{"version", module->version},
            {"imex_channel_count", or_null(module->imex_channel_count)},
            {"imex_channel_major", or_null(module->imex_channel_major)}};
}

std::optional<KernelModule> module_from(const json& in) {
    if (in.is_null()) return std::nullopt;
    return KernelModule{.version = in.at("version").get<std::string>(),
                        .imex_channel_count = optional_at<std::uint32_t>(in, "imex_channel_count"),
                        .imex_channel_major = optional_at<unsigned int>(in, "imex_channel_major")};
}

json to_json(const ImexChannel& channel) {
    return {{"number", channel.number},
            {"open_errno", channel.open_errno},
            {"major_matches", channel.major_matches},
            {"device_minor", or_null(channel.device_minor)}};
}

ImexChannel channel_from(const json& in) {
    return {.number = in.at("number").get<int>(),
            .open_errno = in.at("open_errno").get<int>(),
            .major_matches = in.at("major_matches").get<bool>(),
            .device_minor = optional_at<std::uint32_t>(in, "device_minor")};
}

json to_json(const DeviceFacts& device) {
    return {{"ordinal", device.ordinal},
            {"name", device.name},
            {"pci_bus_id", device.pci_bus_id},
            {"uuid", to_string(device.uuid)},
            {"fabric_handles", device.fabric_handles},
            {"numa_node", device.numa_node},
            {"host_memory_travels", or_null(device.host_memory_travels)}};
}

DeviceFacts device_from(const json& in) {
    return {.ordinal = in.at("ordinal").get<int>(),
            .name = in.at("name").get<std::string>(),
            .pci_bus_id = in.at("pci_bus_id").get<std::string>(),
            .uuid = id_from(in.at("uuid").get<std::string>()),
            .fabric_handles = in.at("fabric_handles").get<bool>(),
            .numa_node = in.at("numa_node").get<int>(),
            .host_memory_travels = optional_at<bool>(in, "host_memory_travels")};
}

json to_json(const ProbeStep& step) {
    return {{"rung", static_cast<int>(step.rung)},
            {"state", static_cast<int>(step.state)},
            {"facts", step.facts},
            {"check", step.check},
            {"cause", step.cause},
            {"cure", step.cure}};
}

ProbeStep step_from(const json& in) {
    return {.rung = static_cast<fabricmem::ProbeRung>(in.at("rung").get<int>()),
            .state = static_cast<fabricmem::RungState>(in.at("state").get<int>()),
            .facts = in.at("facts").get<std::string>(),
            .check = in.at("check").get<std::string>(),
            .cause = in.at("cause").get<std::string>(),
            .cure = in.at("cure").get<std::string>()};
}

template <class Value>
json list_of(const std::vector<Value>& values) {
    json list = json::array();
    for (const Value& value : values) list.push_back(to_json(value));
    return list;
}

template <class Value>
std::vector<Value> list_from(const json& in, Value (*from)(const json&)) {
    std::vector<Value> values;
    for (const json& value : in) values.push_back(from(value));
    return values;
}

MachineFacts machine_from(const json& in) {
    return {.host_id = in.at("host_id").get<std::string>(),
            .boot_id = in.at("boot_id").get<std::string>(),
            .kernel_module = module_from(in.at("kernel_module")),
            .channels = list_from(in.at("channels"), channel_from),
            .channels_errno = in.at("channels_errno").get<int>(),
            .visible_devices = optional_at<std::string>(in, "visible_devices"),
            .gpu_on_pci = optional_at<bool>(in, "gpu_on_pci")};
}

std::optional<NvmlFacts> nvml_from(const json& in) {
    if (in.is_null()) return std::nullopt;
    return NvmlFacts{.driver_version = in.at("driver_version").get<std::string>(),
                     .devices = list_from(in.at("devices"), nvml_device_from)};
}

std::optional<Failure> failure_from(const json& in) {
    if (in.is_null()) return std::nullopt;
    return Failure{.kind = in.at("kind").get<std::string>(),
                   .code = in.at("code").get<int>(),
                   .text = in.at("text").get<std::string>(),
                   .cause = in.at("cause").get<std::string>(),
                   .cure = in.at("cure").get<std::string>(),
                   .check = in.at("check").get<std::string>()};
}

DriverFacts driver_from(const json& in) {
    return {.place = in.at("place").get<std::string>(),
            .cuda_version = in.at("cuda_version").get<int>(),
            .why_not = failure_from(in.at("why_not"))};
}

PlaceFacts place_from(const json& in) {
    return {.place = location_from(in.at("place")),
            .reach = static_cast<HandleReach>(in.at("reach").get<int>()),
            .kinds = in.at("kinds").get<std::string>(),
            .steps = list_from(in.at("steps"), step_from)};
}

bool take(const json& line, Facts& facts) {
    if (line.contains("machine")) {
        facts.machine = machine_from(line["machine"]);
    } else if (line.contains("nvml")) {
        facts.nvml = nvml_from(line["nvml"]);
        facts.nvml_asked = true;
    } else if (line.contains("driver")) {
        facts.driver = driver_from(line["driver"]);
    } else if (line.contains("devices")) {
        facts.devices = list_from(line["devices"], device_from);
        facts.to_try = list_from(line.at("to_try"), location_from);
    } else if (line.contains("probe")) {
        facts.places.push_back(place_from(line["probe"]));
    }
    return line.contains("end");
}

// What a driver says need not be UTF-8.
std::string line_of(const char* key, json value) {
    const json line{{key, std::move(value)}};
    return line.dump(-1, ' ', true, json::error_handler_t::replace);
}

}  // namespace

std::string begin_line(const std::string& step) { return line_of("begin", step); }

std::string machine_line(const MachineFacts& machine) {
    return line_of("machine", {{"host_id", machine.host_id},
                               {"boot_id", machine.boot_id},
                               {"kernel_module", to_json(machine.kernel_module)},
                               {"channels", list_of(machine.channels)},
                               {"channels_errno", machine.channels_errno},
                               {"visible_devices", or_null(machine.visible_devices)},
                               {"gpu_on_pci", or_null(machine.gpu_on_pci)}});
}

std::string nvml_line(const std::optional<NvmlFacts>& nvml) {
    if (!nvml.has_value()) return line_of("nvml", nullptr);
    return line_of("nvml", {{"driver_version", nvml->driver_version}, {"devices", list_of(nvml->devices)}});
}

std::string driver_line(const DriverFacts& driver) {
    json why_not;
    if (const auto& failure = driver.why_not; failure.has_value()) {
        why_not = {{"kind", failure->kind},   {"code", failure->code}, {"text", failure->text},
                   {"cause", failure->cause}, {"cure", failure->cure}, {"check", failure->check}};
    }
    return line_of("driver", {{"place", driver.place}, {"cuda_version", driver.cuda_version}, {"why_not", why_not}});
}

std::string devices_line(const std::vector<DeviceFacts>& devices, const std::vector<Location>& to_try) {
    const json line{{"devices", list_of(devices)}, {"to_try", list_of(to_try)}};
    return line.dump(-1, ' ', true, json::error_handler_t::replace);
}

std::string place_line(const PlaceFacts& place) {
    return line_of("probe", {{"place", to_json(place.place)},
                             {"reach", static_cast<int>(place.reach)},
                             {"kinds", place.kinds},
                             {"steps", list_of(place.steps)}});
}

std::string end_line() { return line_of("end", true); }

std::string begun_step(const std::string& line) {
    const json parsed = json::parse(line, nullptr, false);
    if (!parsed.is_object() || !parsed.contains("begin") || !parsed["begin"].is_string()) return {};
    return parsed["begin"].get<std::string>();
}

bool take_line(const std::string& line, Facts& facts) {
    try {
        const json parsed = json::parse(line, nullptr, false);
        return parsed.is_object() && take(parsed, facts);
    } catch (const json::exception&) {
        return false;
    }
}

}  // namespace doctor
