// SPDX-License-Identifier: Apache-2.0
// Makes emulated drivers, counts what they hold, and ends them.
#include "emulated/emulated_driver.hpp"

#include <atomic>
#include <utility>

#include <fabricmem/error.hpp>

#include "emulated/numbers.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem {

namespace detail::emulated {

namespace {

constexpr int kMaxNumaNodes = 1024;
constexpr int kMaxChannels = 65536;
constexpr std::size_t kMaxNodeName = 4096;

// What forked children can't end: kept reachable, so that a leak checker in the child knows it is meant.
constinit std::atomic<World*> g_abandoned{nullptr};

void abandon(World* world) noexcept {
    world->next_abandoned = g_abandoned.load(std::memory_order_relaxed);
    while (!g_abandoned.compare_exchange_weak(world->next_abandoned, world, std::memory_order_release)) {
    }
}

void check(const EmulatedOptions& options) {
    if (options.devices < 0 || options.devices > kMaxDevices) {
        refuse("EmulatedOptions::devices is " + std::to_string(options.devices) + ", not 0 to 64");
    }
    if (options.numa_nodes < 1 || options.numa_nodes > kMaxNumaNodes) {
        refuse("EmulatedOptions::numa_nodes is " + std::to_string(options.numa_nodes) + ", not 1 to 1024");
    }
    if (options.device_memory_bytes > kAddressLimit || options.numa_node_memory_bytes > kAddressLimit) {
        refuse("EmulatedOptions: more than 2^47 bytes of memory");
    }
    if (options.imex_channel && (*options.imex_channel < 0 || *options.imex_channel >= kMaxChannels)) {
        refuse("EmulatedOptions::imex_channel is " + std::to_string(*options.imex_channel) + ", not 0 to 65535");
    }
    if (options.imex_channel_errno < 0) refuse("EmulatedOptions::imex_channel_errno is negative");
    if (options.node.size() > kMaxNodeName) refuse("EmulatedOptions::node is longer than 4096 bytes");
}

std::vector<std::shared_ptr<Budget>> device_budgets_of(const Membership& fabric) {
    std::vector<std::shared_ptr<Budget>> budgets;
    budgets.reserve(static_cast<std::size_t>(fabric.device_count()));
    for (int i = 0; i < fabric.device_count(); ++i) {
        budgets.push_back(std::make_shared<Budget>(fabric.device(i).memory_bytes));
    }
    return budgets;
}

std::vector<std::shared_ptr<Budget>> node_budgets_of(const Membership& fabric) {
    std::vector<std::shared_ptr<Budget>> budgets;
    for (const std::uint64_t bytes : fabric.node().numa_node_bytes) budgets.push_back(std::make_shared<Budget>(bytes));
    return budgets;
}

Contexts make_contexts(int count) {
    Contexts contexts;
    contexts.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        contexts.push_back(std::make_unique<Context>(i));
        contexts.back()->id = contexts.size();
    }
    return contexts;
}

}  // namespace

World::World(std::shared_ptr<EmulatedFabric> joined, const EmulatedProcess& process)
    : fabric(std::move(joined), process),
      device_budgets(device_budgets_of(fabric)),
      node_budgets(node_budgets_of(fabric)),
      contexts(make_contexts(fabric.device_count())),
      memories(Backings::of_this_process(), ledger),
      space(fabric, ledger),
      streams(space, contexts, fabric) {
    for (int i = 0; i < fabric.device_count(); ++i) {
        uuids.push_back(device_uuid_of(fabric.identity(), fabric.number_of(i)));
    }
    exporter.process_id = memories.backings().process_id();
    exporter.process_start = memories.backings().process_start();
    exporter.node = fabric.identity().number;
    exporter.imex_channel = fabric.channel().value_or(-1);
}

bool World::has_fabric(int location_kind, int location_id) const noexcept {
    return location_kind == kLocationDevice ? fabric.has_fabric(location_id) : fabric.has_fabric();
}

const std::shared_ptr<Budget>& World::budget(int location_kind, int location_id) const noexcept {
    if (location_kind == kLocationDevice) return device_budgets[static_cast<std::size_t>(location_id)];
    // invented: memory of location HOST is taken from node 0.
    return node_budgets[location_kind == kLocationHostNuma ? static_cast<std::size_t>(location_id) : 0];
}

EmulatedDriver::EmulatedDriver(std::shared_ptr<EmulatedFabric> fabric, const EmulatedProcess& process)
    : born_in_(fork_epoch()),
      world_(std::make_unique<World>(std::move(fabric), process)),
      platform_(world_->fabric.core(), world_->fabric.node_index(), world_->fabric.identity()) {}

EmulatedDriver::~EmulatedDriver() {
    if (forked()) abandon(world_.release());
}

std::string_view EmulatedDriver::name() const noexcept { return "emulated"; }
const Platform& EmulatedDriver::platform() const noexcept { return platform_; }

std::string EmulatedDriver::place() const {
    const FabricCore& core = world_->fabric.core();
    if (!core.is_scenario()) return {};
    return formatted("scenario {}, node {}", core.scenario().name, world_->fabric.node().name);
}

EmulatedCounts EmulatedDriver::counts() const {
    if (forked()) return {};
    const AddressSpace::Counts space = world_->space.counts();
    EmulatedCounts counts;
    counts.allocations = world_->ledger->allocations;
    counts.handles = space.handles;
    counts.ranges = space.ranges;
    counts.mappings = space.mappings;
    counts.descriptors = world_->ledger->descriptors;
    counts.aliases = world_->ledger->aliases;
    counts.streams = world_->streams.stream_count();
    for (const auto& context : world_->contexts) {
        if (context->active()) ++counts.primary_contexts;
    }
    return counts;
}

}  // namespace detail::emulated

std::shared_ptr<Driver> make_emulated_driver(const EmulatedOptions& options) {
    using detail::emulated::FabricCore;
    detail::emulated::check(options);
    return make_emulated_driver(std::make_shared<EmulatedFabric>(FabricCore::of_one_node(options)));
}

std::shared_ptr<Driver> make_emulated_driver(std::shared_ptr<EmulatedFabric> fabric, const EmulatedProcess& process) {
    if (fabric == nullptr) throw Error({.kind = ErrorKind::bad_argument, .subject = "the emulated fabric is null"});
    return std::make_shared<detail::emulated::EmulatedDriver>(std::move(fabric), process);
}

std::string emulated_place(const Driver& driver) {
    const auto* const emulated = dynamic_cast<const detail::emulated::EmulatedDriver*>(&driver);
    return emulated == nullptr ? std::string() : emulated->place();
}

EmulatedCounts emulated_counts(const Driver& driver) {
    const auto* const emulated = dynamic_cast<const detail::emulated::EmulatedDriver*>(&driver);
    if (emulated == nullptr) {
        throw Error({.kind = ErrorKind::bad_argument,
                     .subject = "emulated_counts: the driver was not made by make_emulated_driver"});
    }
    return emulated->counts();
}

}  // namespace fabricmem
