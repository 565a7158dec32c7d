// SPDX-License-Identifier: Apache-2.0
// The report as docs/doctor.schema.json has it: change both, and kSchemaVersion where a reader could stumble.
#include <string>
#include <utility>

#include <fabricmem/checks.hpp>
#include <nlohmann/json.hpp>

#include "common/text.hpp"
#include "doctor/report.hpp"
#include "doctor/version.hpp"
#include "doctor/words.hpp"

namespace doctor {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSchemaVersion = 1;

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

template <class Value>
Json value_or_null(const std::optional<Value>& value) {
    return value.has_value() ? Json(*value) : Json();
}

Json id_or_null(const fabricmem::Id128& id) { return id.is_zero() ? Json() : Json(to_string(id)); }

Json json_of_driver(const Facts& facts) {
    const bool answered = facts.driver.has_value();
    Json driver{{"name", facts.emulated ? "emulated" : "cuda"},
                {"place", text_or_null(answered ? facts.driver->place : std::string())},
                {"made", answered && !facts.driver->why_not.has_value()},
                {"cuda_version", Json()},
                {"why_not", Json()}};
    if (answered && facts.driver->cuda_version != 0)
        driver["cuda_version"] = describe_cuda(facts.driver->cuda_version).substr(5);
    if (answered && facts.driver->why_not.has_value()) {
        const Failure& failure = *facts.driver->why_not;
        driver["why_not"] = {{"kind", failure.kind},
                             {"code", failure.code},
                             {"text", failure.text},
                             {"cause", text_or_null(failure.cause)},
                             {"cure", text_or_null(failure.cure)},
                             {"check", text_or_null(failure.check)}};
    }
    return driver;
}

Json json_of_fabric(const std::optional<fabricmem::FabricInfo>& info) {
    if (!info.has_value()) return {};
    return {{"state", name_of(info->state)},
            {"status", info->status},
            {"cluster_uuid", to_string(info->cluster_uuid)},
            {"clique", info->clique},
            {"health_mask", value_or_null(info->health_mask)},
            {"health",
             info->health_mask.has_value() ? Json(fabricmem::describe_fabric_health(*info->health_mask)) : Json()}};
}

Json json_of_nvml(const std::optional<fabricmem::NvmlFacts>& nvml) {
    if (!nvml.has_value()) return {};
    Json devices = Json::array();
    for (const fabricmem::NvmlDevice& device : nvml->devices) {
        const auto& action = device.recovery_action;
        devices.push_back({{"pci_bus_id", device.pci_bus_id},
                           {"name", text_or_null(device.name)},
                           {"uuid", id_or_null(device.uuid)},
                           {"fabric", json_of_fabric(device.fabric)},
                           {"recovery_action", value_or_null(action)},
                           {"recovery", action.has_value() ? Json(describe_recovery(*action)) : Json()}});
    }
    return {{"driver_version", text_or_null(nvml->driver_version)}, {"devices", devices}};
}

std::string_view word_of(ImexFacts::Answer answer) noexcept {
    switch (answer) {
        case ImexFacts::Answer::not_asked: return "not_asked";
        case ImexFacts::Answer::absent: return "absent";
        case ImexFacts::Answer::late: return "late";
        case ImexFacts::Answer::failed: return "failed";
        case ImexFacts::Answer::nonsense: return "nonsense";
        case ImexFacts::Answer::understood: return "understood";
    }
    return "unknown";
}

Json json_of_imex(const ImexFacts& imex) {
    Json nodes = Json::array();
    for (const ImexFacts::Node& node : imex.nodes) nodes.push_back({{"name", node.name}, {"state", node.state}});
    return {{"answer", word_of(imex.answer)},
            {"detail", text_or_null(imex.detail)},
            {"domain", text_or_null(imex.domain)},
            {"daemon", text_or_null(imex.daemon)},
            {"nodes", nodes}};
}

Json json_of_machine(const Facts& facts) {
    const MachineFacts machine = facts.machine.value_or(MachineFacts{});
    Json module;
    if (const auto& known = machine.kernel_module; known.has_value()) {
        module = {{"version", text_or_null(known->version)},
                  {"imex_channel_count", value_or_null(known->imex_channel_count)},
                  {"imex_channel_major", value_or_null(known->imex_channel_major)}};
    }
    Json channels = Json::array();
    for (const fabricmem::ImexChannel& channel : machine.channels) {
        channels.push_back({{"number", channel.number},
                            {"open_errno", channel.open_errno},
                            {"major_matches", channel.major_matches},
                            {"device_minor", value_or_null(channel.device_minor)}});
    }
    return {{"host_id", text_or_null(machine.host_id)},
            {"boot_id", text_or_null(machine.boot_id)},
            {"kernel_module", module},
            {"channels", channels},
            {"channels_errno", machine.channels_errno},
            {"visible_devices", value_or_null(machine.visible_devices)},
            {"nvml", json_of_nvml(facts.nvml)},
            {"imex", json_of_imex(facts.imex)}};
}

Json json_of_devices(const Facts& facts) {
    Json devices = Json::array();
    for (const DeviceFacts& device : facts.devices) {
        devices.push_back({{"ordinal", device.ordinal},
                           {"name", text_or_null(device.name)},
                           {"pci_bus_id", text_or_null(device.pci_bus_id)},
                           {"uuid", id_or_null(device.uuid)},
                           {"fabric_handles", device.fabric_handles},
                           {"numa_node", device.numa_node}});
    }
    return devices;
}

Json json_of_place(const fabricmem::Location& place, const PlaceFacts* facts) {
    Json steps = Json::array();
    if (facts != nullptr) {
        for (const fabricmem::ProbeStep& step : facts->steps) {
            steps.push_back({{"rung", to_string(step.rung)},
                             {"state", to_string(step.state)},
                             {"facts", text_or_null(step.facts)},
                             {"check", text_or_null(step.check)},
                             {"cause", text_or_null(step.cause)},
                             {"cure", text_or_null(step.cure)}});
        }
    }
    return {{"place", to_string(place)},
            {"reach", facts == nullptr ? Json("unknown") : Json(to_string(facts->reach))},
            {"kinds", facts == nullptr ? Json() : Json(facts->kinds)},
            {"steps", steps}};
}

Json json_of_finding(const Finding& finding) {
    const fabricmem::Check& check = *finding.check;
    const auto cure = [](std::string_view text) { return text_or_null(std::string(text)); };
    return {{"id", check.id},
            {"statement", check.statement},
            {"state", to_string(finding.state)},
            {"subject", text_or_null(finding.subject())},
            {"facts", text_or_null(finding.facts)},
            {"cause", text_or_null(finding.cause)},
            {"cures",
             {{"user", cure(check.cures.user)},
              {"bare_metal", cure(check.cures.bare_metal)},
              {"container", cure(check.cures.container)},
              {"kubernetes", cure(check.cures.kubernetes)}}},
            {"side", to_string(check.side)}};
}

Json json_of_peers(const std::optional<Meeting>& meeting) {
    Json peers = Json::array();
    if (!meeting.has_value()) return peers;
    for (const Cell& cell : meeting->cells) {
        peers.push_back({{"exporter", cell.exporter},
                         {"importer", cell.importer},
                         {"place", cell.place},
                         {"state", to_string(cell.state)},
                         {"check", text_or_null(cell.check)},
                         {"cause", text_or_null(cell.cause)},
                         {"cure", text_or_null(cell.cure)},
                         {"side", cell.side},
                         {"peer", text_or_null(cell.peer)}});
    }
    return peers;
}

}  // namespace

std::string json_of(const Report& report) {
    const Facts& facts = report.facts;
    Json places = Json::array();
    for (const fabricmem::Location& place : facts.to_try) places.push_back(json_of_place(place, facts.at(place)));
    Json checks = Json::array();
    for (const Finding& finding : report.findings) checks.push_back(json_of_finding(finding));
    const Json document{{"schema_version", kSchemaVersion},
                        {"doctor_version", version_text()},
                        {"verdict", report.verdict.sentence},
                        {"exit_code", report.verdict.exit_code()},
                        {"expected", to_string(report.verdict.expected)},
                        {"reach", to_string(report.verdict.reach)},
                        {"driver", json_of_driver(facts)},
                        {"machine", json_of_machine(facts)},
                        {"devices", json_of_devices(facts)},
                        {"places", places},
                        {"checks", checks},
                        {"peers", json_of_peers(facts.meeting)}};
    return document.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

}  // namespace doctor
