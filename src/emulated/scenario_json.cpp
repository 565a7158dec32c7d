// SPDX-License-Identifier: Apache-2.0
// The scenario's JSON spelling; docs/emulator.md is the format. The one file here that knows the JSON library, none of
// whose exceptions leaves it: it is asked for types before values.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <utility>

#include <fabricmem/emulated_scenario.hpp>
#include <fabricmem/error.hpp>
#include <nlohmann/json.hpp>

#include "emulated/scenario_limits.hpp"
#include "text/text.hpp"

namespace fabricmem {

namespace {

using detail::formatted;
using detail::emulated::refuse_scenario;
using Writing = nlohmann::ordered_json;  // people read it: the order is ours
using Reading = nlohmann::json;

struct ErrnoName {
    int number;
    const char* name;
};
constexpr ErrnoName kErrnoNames[] = {{EPERM, "EPERM"},   {ENOENT, "ENOENT"}, {EIO, "EIO"},       {ENXIO, "ENXIO"},
                                     {EACCES, "EACCES"}, {EBUSY, "EBUSY"},   {ENODEV, "ENODEV"}, {EINVAL, "EINVAL"}};

constexpr std::pair<FabricInfo::State, const char*> kStates[] = {
    {FabricInfo::State::not_supported, "not_supported"},
    {FabricInfo::State::not_started, "not_started"},
    {FabricInfo::State::in_progress, "in_progress"},
    {FabricInfo::State::completed, "completed"},
};

// Writing

Writing to_writing(const ScenarioDevice& device) {
    Writing object = Writing::object();
    object["name"] = device.name;
    object["memory_bytes"] = device.memory_bytes;
    object["fabric"] = device.fabric == FabricAttribute::supported;
    object["cluster"] = device.cluster;
    object["clique"] = device.clique;
    object["numa_node"] = device.numa_node;
    for (const auto& [state, name] : kStates) {
        if (state == device.fabric_state) object["fabric_state"] = name;
    }
    object["fabric_status"] = device.fabric_status;
    if (device.health_mask.has_value()) object["health_mask"] = *device.health_mask;
    if (device.recovery_action.has_value()) object["recovery_action"] = *device.recovery_action;
    return object;
}

Writing to_writing(const ImexChannel& channel) {
    Writing object = Writing::object();
    object["number"] = channel.number;
    object["open_errno"] = channel.open_errno;
    for (const ErrnoName& known : kErrnoNames) {
        if (known.number == channel.open_errno) object["open_errno"] = known.name;
    }
    object["major_matches"] = channel.major_matches;
    return object;
}

Writing to_writing(const ScenarioNode& node) {
    Writing object = Writing::object();
    object["name"] = node.name;
    object["driver_version"] = node.driver_version;
    object["nvml"] = node.nvml == NvmlLibrary::present ? "present" : "absent";
    object["imex_domain"] = node.imex_domain;
    object["imex_channel_count"] = node.imex_channel_count;
    object["channels"] = Writing::array();
    for (const ImexChannel& channel : node.channels) object["channels"].push_back(to_writing(channel));
    object["coherent"] = node.coherence == Coherence::cpu_and_gpu;
    object["host_memory_across_nodes"] = node.host_memory == HostMemoryReach::fabric;
    if (node.p2p.has_value() && !node.p2p->empty()) {
        object["p2p"] = Writing::array();
        for (const DevicePair& pair : *node.p2p) object["p2p"].push_back({pair.first, pair.second});
    } else {
        object["p2p"] = node.p2p.has_value() ? "none" : "all";
    }
    object["numa_node_bytes"] = node.numa_node_bytes;
    object["devices"] = Writing::array();
    for (const ScenarioDevice& device : node.devices) object["devices"].push_back(to_writing(device));
    return object;
}

// Reading

/// A value and where it stands.
class Field {
public:
    Field(const Reading& value, std::string path) : value_(value), path_(std::move(path)) {}

    [[noreturn]] void refuse(const std::string& what) const {
        refuse_scenario(path_.empty() ? std::string("text") : path_, what);
    }

    /// An object with these fields at most.
    void require_object(std::initializer_list<const char*> known) const {
        if (!value_.is_object()) refuse("is not an object");
        for (auto entry = value_.begin(); entry != value_.end(); ++entry) {
            bool found = false;
            for (const char* const name : known) found = found || entry.key() == name;
            if (!found) Field(entry.value(), path_ + "/" + entry.key()).refuse("is not a known field");
        }
    }
    [[nodiscard]] std::optional<Field> find(const char* name) const {
        const auto found = value_.find(name);
        if (found == value_.end()) return std::nullopt;
        return Field(*found, formatted("{}/{}", path_, name));
    }
    [[nodiscard]] Field require(const char* name) const {
        std::optional<Field> found = find(name);
        if (!found) refuse_scenario(formatted("{}/{}", path_, name), "is missing");
        return *std::move(found);
    }

    [[nodiscard]] std::vector<Field> elements() const {
        if (!value_.is_array()) refuse("is not an array");
        std::vector<Field> all;
        all.reserve(value_.size());
        for (std::size_t i = 0; i < value_.size(); ++i) all.emplace_back(value_[i], formatted("{}/{}", path_, i));
        return all;
    }
    [[nodiscard]] bool is_text() const { return value_.is_string(); }
    [[nodiscard]] std::string text() const {
        const auto* const text = value_.get_ptr<const std::string*>();
        if (text == nullptr) refuse("is not a string");
        return *text;
    }
    template <typename Number>
    [[nodiscard]] Number number() const {
        constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<Number>::max());
        if (!value_.is_number_unsigned()) refuse("is not a whole number from 0");
        const auto number = value_.get<std::uint64_t>();
        if (number > kMost) refuse(formatted("is {}, more than {}", number, kMost));
        return static_cast<Number>(number);
    }
    [[nodiscard]] double real() const {
        if (!value_.is_number()) refuse("is not a number");
        return value_.get<double>();
    }
    [[nodiscard]] bool truth() const {
        if (!value_.is_boolean()) refuse("is not true or false");
        return value_.get<bool>();
    }

private:
    const Reading& value_;
    std::string path_;
};

void read(const Field& object, const char* name, std::string& out) {
    if (const auto field = object.find(name)) out = field->text();
}
template <typename Number>
void read(const Field& object, const char* name, Number& out) {
    if (const auto field = object.find(name)) out = field->number<Number>();
}
template <typename Choice>
void read(const Field& object, const char* name, Choice& out, Choice if_true, Choice if_false) {
    if (const auto field = object.find(name)) out = field->truth() ? if_true : if_false;
}

FabricInfo::State state_in(const Field& field) {
    const std::string text = field.text();
    for (const auto& [state, name] : kStates) {
        if (text == name) return state;
    }
    field.refuse("is none of not_supported, not_started, in_progress, completed");
}

int errno_in(const Field& field) {
    if (!field.is_text()) return field.number<int>();
    const std::string text = field.text();
    for (const ErrnoName& known : kErrnoNames) {
        if (text == known.name) return known.number;
    }
    field.refuse("is neither an errno's number nor EPERM, ENOENT, EIO, ENXIO, EACCES, EBUSY, ENODEV or EINVAL");
}

ScenarioDevice device_in(const Field& object) {
    object.require_object({"name", "memory_bytes", "fabric", "cluster", "clique", "numa_node", "fabric_state",
                           "fabric_status", "health_mask", "recovery_action"});
    ScenarioDevice device;
    read(object, "name", device.name);
    read(object, "memory_bytes", device.memory_bytes);
    read(object, "fabric", device.fabric, FabricAttribute::supported, FabricAttribute::unsupported);
    read(object, "cluster", device.cluster);
    read(object, "clique", device.clique);
    read(object, "numa_node", device.numa_node);
    if (const auto field = object.find("fabric_state")) device.fabric_state = state_in(*field);
    read(object, "fabric_status", device.fabric_status);
    if (const auto field = object.find("health_mask")) device.health_mask = field->number<std::uint32_t>();
    if (const auto field = object.find("recovery_action")) device.recovery_action = field->number<std::uint32_t>();
    return device;
}

ImexChannel channel_in(const Field& object) {
    object.require_object({"number", "open_errno", "major_matches"});
    ImexChannel channel;
    channel.number = object.require("number").number<int>();
    if (const auto field = object.find("open_errno")) channel.open_errno = errno_in(*field);
    if (const auto field = object.find("major_matches")) channel.major_matches = field->truth();
    return channel;
}

std::optional<std::vector<DevicePair>> p2p_in(const Field& field) {
    if (field.is_text()) {
        const std::string text = field.text();
        if (text == "all") return std::nullopt;
        if (text == "none") return std::vector<DevicePair>();
        field.refuse("is neither \"all\", \"none\" nor a list of pairs");
    }
    std::vector<DevicePair> pairs;
    for (const Field& entry : field.elements()) {
        const std::vector<Field> both = entry.elements();
        if (both.size() != 2) entry.refuse("is not a pair of devices");
        pairs.push_back({both[0].number<int>(), both[1].number<int>()});
    }
    return pairs;
}

NvmlLibrary nvml_in(const Field& field) {
    const std::string text = field.text();
    if (text == "present") return NvmlLibrary::present;
    if (text == "absent") return NvmlLibrary::absent;
    field.refuse("is neither \"present\" nor \"absent\"");
}

ScenarioNode node_in(const Field& object) {
    object.require_object({"name", "driver_version", "nvml", "imex_domain", "imex_channel_count", "channels",
                           "coherent", "host_memory_across_nodes", "p2p", "numa_node_bytes", "devices"});
    ScenarioNode node;
    node.name = object.require("name").text();
    read(object, "driver_version", node.driver_version);
    if (const auto field = object.find("nvml")) node.nvml = nvml_in(*field);
    read(object, "imex_domain", node.imex_domain);
    read(object, "imex_channel_count", node.imex_channel_count);
    if (const auto field = object.find("channels")) {
        for (const Field& entry : field->elements()) node.channels.push_back(channel_in(entry));
    }
    read(object, "coherent", node.coherence, Coherence::cpu_and_gpu, Coherence::none);
    read(object, "host_memory_across_nodes", node.host_memory, HostMemoryReach::fabric, HostMemoryReach::node);
    if (const auto field = object.find("p2p")) node.p2p = p2p_in(*field);
    if (const auto field = object.find("numa_node_bytes")) {
        node.numa_node_bytes.clear();
        for (const Field& entry : field->elements()) node.numa_node_bytes.push_back(entry.number<std::uint64_t>());
    }
    for (const Field& entry : object.require("devices").elements()) node.devices.push_back(device_in(entry));
    return node;
}

CallLatency latency_in(const Field& field) {
    const std::string text = field.text();
    if (text == "none") return CallLatency::none;
    if (text == "measured") return CallLatency::measured;
    field.refuse("is neither \"none\" nor \"measured\"");
}

}  // namespace

std::string Scenario::to_json() const {
    validate();
    Writing root = Writing::object();
    root["name"] = name;
    root["latency"] = latency == CallLatency::measured ? "measured" : "none";
    root["latency_factor"] = latency_factor;
    if (!switches.empty()) root["switches"] = switches;
    root["nodes"] = Writing::array();
    for (const ScenarioNode& node : nodes) root["nodes"].push_back(to_writing(node));
    try {
        return root.dump(2) + "\n";
    } catch (const Writing::exception&) {  // names are ASCII
        refuse_scenario("/switches", "is no UTF-8, which a JSON text has to be");
    }
}

Scenario Scenario::from_json(std::string_view text) {
    if (text.size() > detail::emulated::limits::kJsonBytes) refuse_scenario("text", "is longer than 4 MiB");
    // The parser takes a NUL for the end and would not see what follows it.
    if (text.find('\0') != std::string_view::npos) refuse_scenario("text", "has a NUL byte");
    const Reading tree = Reading::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
    if (tree.is_discarded()) refuse_scenario("text", "is not JSON");
    const Field root(tree, "");
    root.require_object({"name", "latency", "latency_factor", "switches", "nodes"});
    Scenario scenario;
    read(root, "name", scenario.name);
    if (const auto field = root.find("latency")) scenario.latency = latency_in(*field);
    if (const auto field = root.find("latency_factor")) scenario.latency_factor = field->real();
    read(root, "switches", scenario.switches);
    for (const Field& entry : root.require("nodes").elements()) scenario.nodes.push_back(node_in(entry));
    scenario.validate();
    return scenario;
}

Scenario Scenario::from_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text(detail::emulated::limits::kJsonBytes + 1, '\0');  // one byte too many is refused below
    if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (!file.is_open() || file.bad()) {
        throw Error({.kind = ErrorKind::system,
                     .call = "open",
                     .subject = formatted("the scenario {}", path),
                     .cause = std::strerror(errno),
                     .cure = formatted("name a file that can be read, or one of {}",
                                       detail::joined(ready_made_names(), ", "))});
    }
    text.resize(static_cast<std::size_t>(file.gcount()));
    Scenario scenario = from_json(text);
    if (!scenario.switches.empty() && scenario.switches.front() != '/') {
        const std::size_t slash = path.rfind('/');
        if (slash != std::string::npos) scenario.switches.insert(0, path, 0, slash + 1);
    }
    return scenario;
}

}  // namespace fabricmem
