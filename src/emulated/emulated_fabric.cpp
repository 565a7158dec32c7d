// SPDX-License-Identifier: Apache-2.0
// EmulatedFabric: its switches by type and by text.
#include <fabricmem/emulated_fabric.hpp>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <utility>

#include <fabricmem/error.hpp>

#include "emulated/fabric.hpp"
#include "emulated/scenario_limits.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem {

namespace {

using detail::formatted;
using detail::refuse;
using detail::emulated::Switch;

// A switch, and the words for its values from 0 up. `rest`: what may be given besides them.
struct Row {
    Switch which;
    const char* name;
    std::vector<std::string> words;
    const char* rest = nullptr;
};

const std::vector<Row>& rows() {
    static const std::vector<Row> all{
        {Switch::imex_daemon, "imex_daemon", {"ready", "down", "killed"}},
        {Switch::node, "node", {"up", "lost"}},
        {Switch::imports, "imports", {"answer", "hang"}},
        {Switch::releases, "releases", {"answer", "hang"}},
        {Switch::channels, "channels", {"present", "absent"}},
        {Switch::fabric_state,
         "fabric_state",
         {"scenario", "not_supported", "not_started", "in_progress", "completed"}},
        {Switch::health_mask, "health_mask", {"scenario"}, "a number"},
        {Switch::clique, "clique", {"scenario"}, "a number"},
        {Switch::latency, "latency", {"scenario"}, "a factor from 0 to 1000000"},
        {Switch::recovery_action, "recovery_action", {"scenario"}, "a number"},
    };
    return all;
}

const Row& row_named(std::string_view name) {
    for (const Row& row : rows()) {
        if (name == row.name) return row;
    }
    refuse(formatted("there is no switch \"{}\"; there are {}", name,
                     detail::joined(EmulatedFabric::switch_names(), ", ")));
}

std::optional<std::uint64_t> thousandths(double factor) {
    if (!std::isfinite(factor) || factor < 0 || factor > detail::emulated::limits::kLatencyFactor) return std::nullopt;
    return static_cast<std::uint64_t>(std::llround(factor * 1000));
}

std::optional<std::uint64_t> value_in(const Row& row, std::string_view text) {
    for (std::size_t i = 0; i < row.words.size(); ++i) {
        if (text == row.words[i]) return i;
    }
    if (row.rest == nullptr) return std::nullopt;
    if (row.which == Switch::latency) {
        // std::from_chars of a double is not everywhere yet.
        const std::string copy(text);
        char* end = nullptr;
        const double factor = std::strtod(copy.c_str(), &end);
        if (copy.empty() || end != copy.c_str() + copy.size()) return std::nullopt;
        const auto value = thousandths(factor);
        return value.has_value() ? std::optional(*value + 1) : std::nullopt;
    }
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return std::uint64_t{number} + 1;
}

std::string text_of(const Row& row, std::uint64_t value) {
    if (value < row.words.size()) return row.words[value];
    if (row.which == Switch::latency) return formatted("{}", static_cast<double>(value - 1) / 1000);
    return formatted("{}", value - 1);
}

template <typename Number>
std::uint64_t plus_one(const std::optional<Number>& number) {
    return number.has_value() ? static_cast<std::uint64_t>(*number) + 1 : 0;
}

void set_switch(detail::emulated::FabricCore& core, std::string_view node, Switch which, std::uint64_t value) {
    core.switches().set(core.node_named(node), which, value);
}

}  // namespace

EmulatedFabric::EmulatedFabric(std::unique_ptr<detail::emulated::FabricCore> core) noexcept : core_(std::move(core)) {}
EmulatedFabric::~EmulatedFabric() = default;

const Scenario& EmulatedFabric::scenario() const noexcept { return core_->scenario(); }

void EmulatedFabric::set_imex_daemon(std::string_view node, ImexDaemon daemon) {
    set_switch(*core_, node, Switch::imex_daemon, static_cast<std::uint64_t>(daemon));
}
void EmulatedFabric::set_node(std::string_view node, NodeLife life) {
    set_switch(*core_, node, Switch::node, static_cast<std::uint64_t>(life));
}
void EmulatedFabric::set_imports(std::string_view node, RemoteCalls calls) {
    set_switch(*core_, node, Switch::imports, static_cast<std::uint64_t>(calls));
}
void EmulatedFabric::set_releases(std::string_view node, RemoteCalls calls) {
    set_switch(*core_, node, Switch::releases, static_cast<std::uint64_t>(calls));
}
void EmulatedFabric::set_channels(std::string_view node, ChannelNodes channels) {
    set_switch(*core_, node, Switch::channels, static_cast<std::uint64_t>(channels));
}
void EmulatedFabric::set_fabric_state(std::string_view node, std::optional<FabricInfo::State> state) {
    set_switch(*core_, node, Switch::fabric_state, plus_one(state));
}
void EmulatedFabric::set_health_mask(std::string_view node, std::optional<std::uint32_t> mask) {
    set_switch(*core_, node, Switch::health_mask, plus_one(mask));
}
void EmulatedFabric::set_clique(std::string_view node, std::optional<std::uint32_t> clique) {
    set_switch(*core_, node, Switch::clique, plus_one(clique));
}
void EmulatedFabric::set_recovery_action(std::string_view node, std::optional<std::uint32_t> action) {
    set_switch(*core_, node, Switch::recovery_action, plus_one(action));
}
void EmulatedFabric::set_latency(std::string_view node, std::optional<double> factor) {
    std::optional<std::uint64_t> value;
    if (factor.has_value()) {
        value = thousandths(*factor);
        if (!value.has_value()) refuse("a latency factor that is not 0 to 1000000");
    }
    set_switch(*core_, node, Switch::latency, plus_one(value));
}

const std::vector<std::string>& EmulatedFabric::switch_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const Row& row : rows()) all.emplace_back(row.name);
        return all;
    }();
    return names;
}

void EmulatedFabric::set(std::string_view node, std::string_view name, std::string_view value) {
    const Row& row = row_named(name);
    const std::optional<std::uint64_t> number = value_in(row, value);
    if (!number.has_value()) {
        refuse(formatted("the switch \"{}\" can't be \"{}\"; it can be {}{}{}", name, value,
                         detail::joined(row.words, ", "), row.rest == nullptr ? "" : ", ",
                         row.rest == nullptr ? "" : row.rest));
    }
    set_switch(*core_, node, row.which, *number);
}

std::string EmulatedFabric::get(std::string_view node, std::string_view name) const {
    const Row& row = row_named(name);
    return text_of(row, core_->switches().value(core_->node_named(node), row.which));
}

std::map<std::string, std::string> EmulatedFabric::environment(std::string_view node) const {
    const std::size_t index = core_->node_named(node);
    return {{"FABRICMEM_EMULATOR", core_->path()}, {"FABRICMEM_EMULATOR_NODE", core_->node(index).name}};
}

void EmulatedFabric::end() noexcept { core_->switches().end(); }

std::shared_ptr<EmulatedFabric> make_emulated_fabric(const Scenario& scenario) {
    using detail::emulated::FabricCore;
    return std::make_shared<EmulatedFabric>(FabricCore::of_scenario(scenario, FabricCore::Sharing::by_descriptor));
}

}  // namespace fabricmem
