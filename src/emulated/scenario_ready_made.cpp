// SPDX-License-Identifier: Apache-2.0
// The scenarios that have a name.
#include <string>

#include <fabricmem/emulated_scenario.hpp>
#include <fabricmem/error.hpp>

#include "text/text.hpp"

namespace fabricmem {

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint32_t kHealthy = 0xaa;
constexpr std::uint32_t kDefaultClique = 32766;  // of racks whose partitions nobody has named

std::vector<ImexChannel> one_channel() { return {ImexChannel{}}; }

// As measured: NVML tells fabric state 0 and an all-zero UUID, attribute 128 is 1 all the same.
Scenario single_h100(std::vector<ImexChannel> channels) {
    ScenarioNode node;
    node.name = "node0";
    node.devices = {ScenarioDevice{}};
    node.channels = std::move(channels);
    Scenario scenario;
    scenario.nodes = {std::move(node)};
    return scenario;
}

Scenario single_h100_no_channel() { return single_h100({}); }
Scenario single_h100_with_channel() { return single_h100(one_channel()); }

// The fabric's probe is complete there, and the cluster UUID is all zero: no multi-node fabric.
Scenario hgx_h100() {
    ScenarioNode node;
    node.name = "node0";
    node.numa_node_bytes = {1024 * kGiB, 1024 * kGiB};
    node.channels = one_channel();
    for (int i = 0; i < 8; ++i) {
        ScenarioDevice device;
        device.numa_node = i / 4;
        device.fabric_state = FabricInfo::State::completed;
        device.health_mask = kHealthy;
        node.devices.push_back(device);
    }
    Scenario scenario;
    scenario.nodes = {std::move(node)};
    return scenario;
}

ScenarioNode grace_node(std::string name, const std::string& rack) {
    ScenarioNode node;
    node.name = std::move(name);
    node.numa_node_bytes = {480 * kGiB, 480 * kGiB};
    node.imex_domain = rack;
    node.channels = one_channel();
    node.coherence = Coherence::cpu_and_gpu;
    node.host_memory = HostMemoryReach::fabric;
    for (int i = 0; i < 4; ++i) {
        ScenarioDevice device;
        device.memory_bytes = 186 * kGiB;
        device.cluster = rack;
        device.clique = kDefaultClique;
        device.numa_node = i / 2;
        device.fabric_state = FabricInfo::State::completed;
        device.health_mask = kHealthy;
        node.devices.push_back(device);
    }
    return node;
}

Scenario gb200_nvl72() {
    Scenario scenario;
    for (int i = 0; i < 18; ++i) scenario.nodes.push_back(grace_node(detail::formatted("node{}", i), "rack0"));
    return scenario;
}

Scenario two_racks() {
    Scenario scenario;
    for (int i = 0; i < 4; ++i) {
        const std::string rack = detail::formatted("rack{}", i / 2);
        scenario.nodes.push_back(grace_node(detail::formatted("{}-node{}", rack, i % 2), rack));
    }
    return scenario;
}

// Three GPUs with fabric handles that reach each other, one of another make that does neither.
Scenario mixed_box() {
    Scenario scenario = single_h100(one_channel());
    ScenarioNode& node = scenario.nodes.front();
    node.devices.assign(4, ScenarioDevice{});
    node.devices.back().fabric = FabricAttribute::unsupported;
    node.p2p = {{0, 1}, {0, 2}, {1, 2}};
    return scenario;
}

struct ReadyMade {
    const char* name;
    Scenario (*make)();
};

constexpr ReadyMade kReadyMade[] = {
    {"single-h100-no-channel", single_h100_no_channel},
    {"single-h100", single_h100_with_channel},
    {"hgx-h100", hgx_h100},
    {"gb200-nvl72", gb200_nvl72},
    {"two-racks", two_racks},
    {"mixed-box", mixed_box},
};

}  // namespace

const std::vector<std::string>& Scenario::ready_made_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const ReadyMade& entry : kReadyMade) all.emplace_back(entry.name);
        return all;
    }();
    return names;
}

Scenario Scenario::ready_made(std::string_view name) {
    for (const ReadyMade& entry : kReadyMade) {
        if (name != entry.name) continue;
        Scenario scenario = entry.make();
        scenario.name = entry.name;
        return scenario;
    }
    throw Error({.kind = ErrorKind::bad_argument,
                 .subject = detail::formatted("there is no ready-made scenario \"{}\"; there are {}", name,
                                              detail::joined(ready_made_names(), ", "))});
}

}  // namespace fabricmem
