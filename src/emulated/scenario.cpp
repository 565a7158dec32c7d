// SPDX-License-Identifier: Apache-2.0
// What is wrong with a scenario, by JSON path. Knows no JSON library.
#include <algorithm>
#include <cmath>
#include <set>

#include <fabricmem/emulated_scenario.hpp>
#include <fabricmem/error.hpp>

#include "emulated/numbers.hpp"
#include "emulated/scenario_limits.hpp"
#include "text/text.hpp"

namespace fabricmem {

namespace {

using detail::formatted;
using detail::emulated::kAddressLimit;
using detail::emulated::kMaxDevices;
using detail::emulated::refuse_scenario;
namespace limits = detail::emulated::limits;

void check_range(const std::string& path, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value < least || value > most) refuse_scenario(path, formatted("is {}, not {} to {}", value, least, most));
}

void check_count(const std::string& path, std::size_t count, std::size_t least, std::size_t most) {
    if (count < least || count > most)
        refuse_scenario(path, formatted("has {} entries, not {} to {}", count, least, most));
}

void check_memory(const std::string& path, std::uint64_t bytes) {
    if (bytes > kAddressLimit) refuse_scenario(path, formatted("is {}, more than 2^47 bytes", bytes));
}

void check_name(const std::string& path, const std::string& name) {
    if (name.size() > limits::kNameBytes)
        refuse_scenario(path, formatted("is longer than {} bytes", limits::kNameBytes));
    const bool printable = std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < '\x7f'; });
    if (!printable) refuse_scenario(path, "has a blank, a control character or one that is not ASCII");
}

// Unlike a name that is typed, it may have blanks.
void check_device_name(const std::string& path, const std::string& name) {
    if (name.size() > limits::kNameBytes)
        refuse_scenario(path, formatted("is longer than {} bytes", limits::kNameBytes));
    const bool printable = std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c < '\x7f'; });
    if (!printable) refuse_scenario(path, "has a control character or one that is not ASCII");
}

void check_device(const std::string& path, const ScenarioDevice& device, std::size_t numa_nodes) {
    check_memory(path + "/memory_bytes", device.memory_bytes);
    check_name(path + "/cluster", device.cluster);
    check_range(path + "/numa_node", device.numa_node, 0, static_cast<std::int64_t>(numa_nodes) - 1);
    check_range(path + "/fabric_status", device.fabric_status, 0, limits::kNvmlReturn);
    check_device_name(path + "/name", device.name);
}

void check_channels(const std::string& path, const std::vector<ImexChannel>& channels) {
    check_count(path, channels.size(), 0, limits::kChannels);
    std::set<int> seen;
    for (std::size_t i = 0; i < channels.size(); ++i) {
        const std::string here = formatted("{}/{}", path, i);
        check_range(here + "/number", channels[i].number, 0, static_cast<std::int64_t>(limits::kChannels) - 1);
        check_range(here + "/open_errno", channels[i].open_errno, 0, limits::kErrno);
        if (!seen.insert(channels[i].number).second) refuse_scenario(here + "/number", "is there twice");
    }
}

void check_p2p(const std::string& path, const std::vector<DevicePair>& pairs, std::size_t devices) {
    const auto last = static_cast<std::int64_t>(devices) - 1;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        check_range(formatted("{}/{}/0", path, i), pairs[i].first, 0, last);
        check_range(formatted("{}/{}/1", path, i), pairs[i].second, 0, last);
    }
}

void check_node(const std::string& path, const ScenarioNode& node) {
    if (node.name.empty()) refuse_scenario(path + "/name", "is empty");
    check_name(path + "/name", node.name);
    check_name(path + "/driver_version", node.driver_version);
    check_name(path + "/imex_domain", node.imex_domain);
    check_range(path + "/imex_channel_count", node.imex_channel_count, 0, static_cast<std::int64_t>(limits::kChannels));
    check_channels(path + "/channels", node.channels);
    check_count(path + "/devices", node.devices.size(), 0, static_cast<std::size_t>(kMaxDevices));
    check_count(path + "/numa_node_bytes", node.numa_node_bytes.size(), 1, limits::kNumaNodes);
    for (std::size_t i = 0; i < node.numa_node_bytes.size(); ++i) {
        check_memory(formatted("{}/numa_node_bytes/{}", path, i), node.numa_node_bytes[i]);
    }
    for (std::size_t i = 0; i < node.devices.size(); ++i) {
        check_device(formatted("{}/devices/{}", path, i), node.devices[i], node.numa_node_bytes.size());
    }
    if (node.p2p.has_value()) check_p2p(path + "/p2p", *node.p2p, node.devices.size());
}

}  // namespace

bool operator==(const ScenarioNode& a, const ScenarioNode& b) {
    const auto same_channel = [](const ImexChannel& one, const ImexChannel& other) {
        return one.number == other.number && one.open_errno == other.open_errno &&
               one.major_matches == other.major_matches;
    };
    return a.name == b.name && a.devices == b.devices && a.numa_node_bytes == b.numa_node_bytes &&
           a.imex_domain == b.imex_domain && a.coherence == b.coherence && a.host_memory == b.host_memory &&
           a.p2p == b.p2p && a.driver_version == b.driver_version && a.imex_channel_count == b.imex_channel_count &&
           a.nvml == b.nvml &&
           std::equal(a.channels.begin(), a.channels.end(), b.channels.begin(), b.channels.end(), same_channel);
}

void Scenario::validate() const {
    check_name("/name", name);
    if (!std::isfinite(latency_factor) || latency_factor < 0 || latency_factor > limits::kLatencyFactor) {
        refuse_scenario("/latency_factor", formatted("is not 0 to {}", limits::kLatencyFactor));
    }
    check_count("/nodes", nodes.size(), 1, limits::kNodes);
    std::set<std::string> names;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        const std::string path = formatted("/nodes/{}", i);
        check_node(path, nodes[i]);
        if (!names.insert(nodes[i].name).second) {
            refuse_scenario(path + "/name", formatted("is \"{}\", as another node's", nodes[i].name));
        }
    }
}

namespace detail::emulated {

void refuse_scenario(const std::string& path, const std::string& what) {
    throw Error({.kind = ErrorKind::bad_argument, .subject = formatted("the scenario's {} {}", path, what)});
}

}  // namespace detail::emulated

}  // namespace fabricmem
