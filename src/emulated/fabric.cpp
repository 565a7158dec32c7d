// SPDX-License-Identifier: Apache-2.0
// What a scenario and its switches say of a node.
#include "emulated/fabric.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include <fabricmem/error.hpp>

#include "emulated/numbers.hpp"
#include "text/text.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr std::uint32_t kNodeBits = 10;
constexpr std::uint32_t kNodeMask = (1U << kNodeBits) - 1;

Scenario scenario_of(const EmulatedOptions& options) {
    ScenarioNode node;
    node.name = options.node;
    node.numa_node_bytes.assign(static_cast<std::size_t>(options.numa_nodes), options.numa_node_memory_bytes);
    if (options.imex_channel.has_value()) {
        node.channels = {ImexChannel{.number = *options.imex_channel, .open_errno = options.imex_channel_errno}};
    }
    for (int i = 0; i < options.devices; ++i) {
        ScenarioDevice device;
        device.memory_bytes = options.device_memory_bytes;
        device.fabric = options.fabric;
        device.numa_node = i % options.numa_nodes;
        if (options.fabric == FabricAttribute::supported) {
            device.cluster = "emulated";
            device.clique = 1;
            device.fabric_state = FabricInfo::State::completed;
        }
        node.devices.push_back(device);
    }
    Scenario scenario;
    scenario.nodes = {std::move(node)};
    return scenario;
}

std::uint64_t hash_of(Scenario scenario) {
    scenario.switches.clear();  // the file's place says nothing of the nodes
    return hash(scenario.to_json());
}

Switches switches_of(const Scenario& scenario, std::uint64_t id, FabricCore::Sharing sharing) {
    if (!scenario.switches.empty()) return Switches::in_file(scenario.switches, scenario.nodes.size(), id);
    if (sharing == FabricCore::Sharing::by_descriptor) return Switches::shared(scenario.nodes.size(), id);
    return Switches(scenario.nodes.size(), id);
}

}  // namespace

FabricCore::FabricCore(Kind kind, Scenario scenario, Switches switches, std::uint64_t id)
    : kind_(kind), scenario_(std::move(scenario)), switches_(std::move(switches)), id_(id) {}

std::unique_ptr<FabricCore> FabricCore::of_one_node(const EmulatedOptions& options) {
    return std::unique_ptr<FabricCore>(new FabricCore(Kind::one_node, scenario_of(options), Switches(1, 0), 0));
}

std::unique_ptr<FabricCore> FabricCore::of_scenario(Scenario scenario, Sharing sharing) {
    scenario.validate();
    const std::uint64_t content = hash_of(scenario);
    Switches switches = switches_of(scenario, content, sharing);
    const std::uint64_t id = mix(content ^ switches.instance());
    return std::unique_ptr<FabricCore>(new FabricCore(Kind::scenario, std::move(scenario), std::move(switches), id));
}

std::size_t FabricCore::node_named(std::string_view name) const {
    if (name.empty()) return 0;
    const auto found = std::find_if(scenario_.nodes.begin(), scenario_.nodes.end(),
                                    [&](const ScenarioNode& node) { return node.name == name; });
    if (found != scenario_.nodes.end()) return static_cast<std::size_t>(found - scenario_.nodes.begin());
    throw Error({.kind = ErrorKind::bad_argument,
                 .subject = formatted("the scenario \"{}\" has no node \"{}\"; its first is \"{}\"", scenario_.name,
                                      name, scenario_.nodes.front().name)});
}

NodeIdentity FabricCore::identify(std::size_t index) const {
    if (!is_scenario()) return identify_node(scenario_.nodes.front().name);
    const std::uint32_t boots = switches_.incarnation(index).losses;
    NodeIdentity identity = identify_node_of(id_, scenario_.nodes[index].name, boots);
    identity.number = (static_cast<std::uint32_t>(id_ >> 32) & ~kNodeMask) | static_cast<std::uint32_t>(index);
    return identity;
}

std::optional<std::size_t> FabricCore::node_of(std::uint32_t number) const noexcept {
    const std::uint32_t index = number & kNodeMask;
    if ((number & ~kNodeMask) != (static_cast<std::uint32_t>(id_ >> 32) & ~kNodeMask)) return std::nullopt;
    if (index >= scenario_.nodes.size()) return std::nullopt;
    return index;
}

FabricInfo FabricCore::fabric_info(std::size_t index, std::size_t device) const {
    const ScenarioDevice& said = scenario_.nodes[index].devices[device];
    FabricInfo info;
    info.state = said.fabric_state;
    info.status = said.fabric_status;
    info.health_mask = said.health_mask;
    const std::uint64_t state = switches_.value(index, Switch::fabric_state);
    if (state != 0) info.state = static_cast<FabricInfo::State>(state - 1);
    const std::uint64_t health = switches_.value(index, Switch::health_mask);
    if (health != 0) info.health_mask = static_cast<std::uint32_t>(health - 1);
    if (info.state != FabricInfo::State::completed) return info;
    const Domain place = domain(index, device);
    info.cluster_uuid = cluster_uuid_of(place.cluster);
    info.clique = place.clique;
    return info;
}

std::optional<std::uint32_t> FabricCore::recovery_action(std::size_t index, std::size_t device) const noexcept {
    const std::uint64_t action = switches_.value(index, Switch::recovery_action);
    if (action != 0) return static_cast<std::uint32_t>(action - 1);
    return scenario_.nodes[index].devices[device].recovery_action;
}

Domain FabricCore::domain(std::size_t index, std::size_t device) const noexcept {
    const ScenarioNode& node = scenario_.nodes[index];
    Domain domain{node.devices[device].cluster, node.devices[device].clique, node.imex_domain};
    const std::uint64_t clique = switches_.value(index, Switch::clique);
    if (clique != 0) domain.clique = static_cast<std::uint32_t>(clique - 1);
    return domain;
}

ImexDaemon FabricCore::daemon(std::size_t index) const noexcept {
    const auto said = static_cast<ImexDaemon>(switches_.value(index, Switch::imex_daemon));
    const bool there_is_one = !scenario_.nodes[index].imex_domain.empty();
    return said == ImexDaemon::ready && !there_is_one ? ImexDaemon::down : said;
}

bool FabricCore::lost(std::size_t index) const noexcept {
    return switches_.value(index, Switch::node) == static_cast<std::uint64_t>(NodeLife::lost);
}

bool FabricCore::hangs(std::size_t index, Switch which) const noexcept {
    return switches_.value(index, which) == static_cast<std::uint64_t>(RemoteCalls::hang);
}

std::vector<ImexChannel> FabricCore::channels(std::size_t index) const {
    if (switches_.value(index, Switch::channels) == static_cast<std::uint64_t>(ChannelNodes::absent)) return {};
    std::vector<ImexChannel> channels = scenario_.nodes[index].channels;
    std::sort(channels.begin(), channels.end(),
              [](const ImexChannel& a, const ImexChannel& b) { return a.number < b.number; });
    for (ImexChannel& channel : channels) {
        // A node beyond the count gives no fabric memory: measured. invented: the errno.
        const bool exists = static_cast<std::uint32_t>(channel.number) < scenario_.nodes[index].imex_channel_count;
        if (!exists) channel.open_errno = ENXIO;
    }
    return channels;
}

double FabricCore::latency_factor(std::size_t index) const noexcept {
    const std::uint64_t set = switches_.value(index, Switch::latency);
    if (set != 0) return static_cast<double>(set - 1) / 1000;
    return scenario_.latency == CallLatency::measured ? scenario_.latency_factor : 0;
}

std::string FabricCore::path() const {
    const std::lock_guard lock(json_mutex_);
    if (!json_.valid()) {
        Scenario shared = scenario_;
        if (switches_.descriptor() >= 0) {
            shared.switches = formatted("/proc/{}/fd/{}", ::getpid(), switches_.descriptor());
        } else if (!shared.switches.empty() && shared.switches.front() != '/') {
            const std::unique_ptr<char, void (*)(void*)> here(::realpath(shared.switches.c_str(), nullptr), std::free);
            if (here) shared.switches = here.get();
        }
        const std::string text = shared.to_json();
        FileDescriptor file(::memfd_create("fabricmem-scenario", MFD_CLOEXEC));
        if (!file.valid() || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
            throw Error({.kind = ErrorKind::system,
                         .call = "memfd_create",
                         .subject = "the emulator's scenario for other processes",
                         .cause = std::strerror(errno)});
        }
        json_ = std::move(file);
    }
    return formatted("/proc/{}/fd/{}", ::getpid(), json_.get());
}

}  // namespace fabricmem::detail::emulated
