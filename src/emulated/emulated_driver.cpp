// SPDX-License-Identifier: Apache-2.0
// Makes emulated drivers, counts what they hold, and ends them.
#include "emulated/emulated_driver.hpp"

#include <atomic>
#include <cerrno>

#include <fabricmem/error.hpp>

#include "emulated/numbers.hpp"

namespace fabricmem {

namespace detail::emulated {

namespace {

constexpr int kMaxNumaNodes = 1024;
constexpr int kMaxChannels = 65536;
constexpr std::size_t kMaxNodeName = 4096;
constexpr int kChannelCount = 2048;  // ImexChannelCount of /proc/driver/nvidia/params where nobody set it

// What forked children can't end: kept reachable, so that a leak checker in the child knows it is meant.
constinit std::atomic<World*> g_abandoned{nullptr};

void abandon(World* world) noexcept {
    world->next_abandoned = g_abandoned.load(std::memory_order_relaxed);
    while (!g_abandoned.compare_exchange_weak(world->next_abandoned, world, std::memory_order_release)) {
    }
}

[[noreturn]] void refuse(std::string statement) {
    throw Error({.kind = ErrorKind::bad_argument, .subject = std::move(statement)});
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
    if (options.devices == 0) {
        throw Error({.kind = ErrorKind::unsupported,
                     .code = CUDA_ERROR_NO_DEVICE,
                     .call = "cuInit",
                     .subject = "the emulated driver",
                     .cause = "EmulatedOptions::devices is 0",
                     .cure = "ask for at least one device"});
    }
}

// A node beyond the count gives no fabric memory: measured. invented: the errno.
int channel_errno(const EmulatedOptions& options) {
    return options.imex_channel.value_or(0) >= kChannelCount ? ENXIO : options.imex_channel_errno;
}

std::optional<ImexChannel> channel_of(const EmulatedOptions& options) {
    if (!options.imex_channel) return std::nullopt;
    return ImexChannel{.number = *options.imex_channel, .open_errno = channel_errno(options)};
}

std::vector<std::shared_ptr<Budget>> make_budgets(int count, std::uint64_t bytes) {
    std::vector<std::shared_ptr<Budget>> budgets;
    budgets.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) budgets.push_back(std::make_shared<Budget>(bytes));
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

World::World(const EmulatedOptions& wanted)
    : options(wanted),
      node(identify_node(wanted.node)),
      channel(channel_errno(wanted) == 0 ? wanted.imex_channel : std::nullopt),
      device_budgets(make_budgets(wanted.devices, wanted.device_memory_bytes)),
      node_budgets(make_budgets(wanted.numa_nodes, wanted.numa_node_memory_bytes)),
      contexts(make_contexts(wanted.devices)),
      memories(Backings::of_this_process(), ledger),
      space(wanted.devices, wanted.numa_nodes, ledger),
      streams(space, contexts) {
    for (int i = 0; i < wanted.devices; ++i) uuids.push_back(derive_id(node, "device", static_cast<std::uint64_t>(i)));
    exporter.process_id = memories.backings().process_id();
    exporter.process_start = memories.backings().process_start();
    exporter.node = node.number;
    exporter.imex_channel = channel.value_or(-1);
}

const std::shared_ptr<Budget>& World::budget(int location_kind, int location_id) const noexcept {
    if (location_kind == kLocationDevice) return device_budgets[static_cast<std::size_t>(location_id)];
    // invented: memory of location HOST is taken from node 0.
    return node_budgets[location_kind == kLocationHostNuma ? static_cast<std::size_t>(location_id) : 0];
}

EmulatedDriver::EmulatedDriver(const EmulatedOptions& options)
    : born_in_(fork_epoch()),
      world_(std::make_unique<World>(options)),
      platform_(world_->node, options.devices, channel_of(options),
                world_->has_fabric() ? EmulatedPlatform::Fabric::completed : EmulatedPlatform::Fabric::none) {}

EmulatedDriver::~EmulatedDriver() {
    if (forked()) abandon(world_.release());
}

std::string_view EmulatedDriver::name() const noexcept { return "emulated"; }
const Platform& EmulatedDriver::platform() const noexcept { return platform_; }

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
    detail::emulated::check(options);
    return std::make_shared<detail::emulated::EmulatedDriver>(options);
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
