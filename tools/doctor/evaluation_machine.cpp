// SPDX-License-Identifier: Apache-2.0
// What was only looked at: libcuda, the channel nodes, NVML.
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <utility>

#include "common/text.hpp"
#include "doctor/findings.hpp"
#include "doctor/words.hpp"

namespace doctor {
namespace {

using examples::formatted;
using fabricmem::ImexChannel;
using fabricmem::KernelModule;
using fabricmem::NvmlDevice;

bool opens(const ImexChannel& channel) noexcept { return channel.open_errno == 0 && channel.major_matches; }

struct ChannelTrouble {
    std::string_view check;
    std::string cause;
};

ChannelTrouble trouble_of(const ImexChannel& channel, const std::optional<KernelModule>& module) {
    if (!channel.major_matches)
        return {"FM-CHANNEL-004",
                "its major number is not the one in /proc/devices: it is of an earlier boot, or of "
                "another host"};
    if (channel.open_errno == EACCES) return {"FM-CHANNEL-002", "its mode or owner keeps this user from opening it"};
    if (channel.open_errno == EPERM)
        return {"FM-CHANNEL-003", "likely a device cgroup keeps this container from opening it"};
    const auto count = module.has_value() ? module->imex_channel_count : std::nullopt;
    const std::string limit = count.has_value() ? formatted(", which is {}", *count) : std::string();
    return {"FM-CHANNEL-005", formatted("likely its number is beyond ImexChannelCount{}", limit)};
}

std::string describe(const ImexChannel& channel) {
    if (opens(channel)) {
        if (channel.channel() == channel.number) return formatted("channel {} can be opened", channel.number);
        return formatted("channel {} can be opened, by a node named channel{}", channel.channel(), channel.number);
    }
    if (!channel.major_matches) return formatted("channel {} has another major number", channel.number);
    return formatted("channel {}: {}", channel.number, ::strerror(channel.open_errno));
}

std::string describe_channels(const std::vector<ImexChannel>& channels) {
    constexpr std::size_t kMost = 4;
    std::string text;
    for (std::size_t i = 0; i < std::min(channels.size(), kMost); ++i)
        text += (text.empty() ? "" : "; ") + describe(channels[i]);
    if (channels.size() > kMost) text += formatted("; and {} more", channels.size() - kMost);
    return text;
}

// How grave it is that no channel opens: what was done has told already whether it stands in the way.
CheckState without_channel(const Facts& facts) noexcept {
    return driver_made(facts) && facts.places.empty() ? CheckState::failed : CheckState::warning;
}

bool has_fabric_handles(const Facts& facts) noexcept {
    return !driver_made(facts) || std::any_of(facts.devices.begin(), facts.devices.end(),
                                              [](const DeviceFacts& device) { return device.fabric_handles; });
}

}  // namespace

bool any_channel_opens(const MachineFacts& machine) noexcept {
    return std::any_of(machine.channels.begin(), machine.channels.end(), opens);
}

const NvmlDevice* nvml_device(const Facts& facts, const DeviceFacts& device) noexcept {
    if (!facts.nvml.has_value()) return nullptr;
    const auto& all = facts.nvml->devices;
    const auto found = std::find_if(all.begin(), all.end(), [&](const NvmlDevice& other) {
        return device.pci_bus_id.empty() ? !device.uuid.is_zero() && other.uuid == device.uuid
                                         : other.pci_bus_id == device.pci_bus_id;
    });
    return found == all.end() ? nullptr : &*found;
}

const DeviceFacts* cuda_device(const Facts& facts, const NvmlDevice& device) noexcept {
    const auto found = std::find_if(facts.devices.begin(), facts.devices.end(),
                                    [&](const DeviceFacts& seen) { return nvml_device(facts, seen) == &device; });
    return found == facts.devices.end() ? nullptr : &*found;
}

void judge_driver(const Facts& facts, Findings& findings) {
    if (facts.driver.has_value() && facts.driver->why_not.has_value()) {
        const Failure& failure = *facts.driver->why_not;
        findings.add(check_of(failure), CheckState::failed, {.facts = failure.text, .cause = failure.cause});
    }
    if (!facts.machine.has_value() || !facts.nvml.has_value()) return;
    const auto& module = facts.machine->kernel_module;
    const std::string& user = facts.nvml->driver_version;
    if (!module.has_value() || module->version.empty() || user.empty() || module->version == user) return;
    const std::string versions = formatted("NVML is of {}, the kernel module of {}", user, module->version);
    if (findings.add_facts("FM-DRIVER-005", versions)) return;
    findings.add("FM-DRIVER-005", CheckState::warning,
                 {.facts = versions, .cause = "the libraries and the kernel module are of different versions"});
}

void judge_channels(const Facts& facts, Findings& findings) {
    if (!facts.machine.has_value()) return;
    const MachineFacts& machine = *facts.machine;
    const std::string seen = describe_channels(machine.channels);
    if (any_channel_opens(machine)) {
        for (const ImexChannel& channel : machine.channels) {
            if (opens(channel) && channel.channel() != channel.number) {
                findings.add(
                    "FM-CHANNEL-009", CheckState::warning,
                    {.about = formatted("channel {}", channel.number),
                     .facts = seen,
                     .cause = formatted("the node channel{} is of minor number {}: by such a node memory can be "
                                        "exported, and none imported",
                                        channel.number, channel.channel())});
            }
            if (channel.major_matches) continue;
            findings.add("FM-CHANNEL-004", CheckState::warning,
                         {.about = formatted("channel {}", channel.number),
                          .facts = seen,
                          .cause = trouble_of(channel, machine.kernel_module).cause});
        }
        (void)findings.add_facts("FM-CHANNEL-008", seen);
        return;
    }
    // Without a driver, and for devices that have no fabric handles, a channel would not help.
    if (!has_fabric_handles(facts) || (!driver_made(facts) && !machine.kernel_module.has_value())) return;
    if (!machine.channels.empty()) {
        const ImexChannel& first = machine.channels.front();
        ChannelTrouble trouble = trouble_of(first, machine.kernel_module);
        if (findings.add_facts(trouble.check, seen)) return;
        findings.add(
            trouble.check, without_channel(facts),
            {.about = formatted("channel {}", first.number), .facts = seen, .cause = std::move(trouble.cause)});
        return;
    }
    const bool none_at_all = machine.kernel_module.has_value() && machine.kernel_module->imex_channel_count == 0U;
    const bool hidden = !none_at_all && (machine.channels_errno == EACCES || machine.channels_errno == EPERM);
    const std::string_view check = none_at_all ? "FM-CHANNEL-006" : hidden ? "FM-CHANNEL-002" : "FM-CHANNEL-001";
    std::string folder;
    if (machine.channels_errno != 0 && machine.channels_errno != ENOENT)
        folder = formatted("the channel nodes' folder: {}", ::strerror(machine.channels_errno));
    if (findings.has("FM-CHANNEL-006") || (folder.empty() ? findings.has(check) : findings.add_facts(check, folder)))
        return;
    findings.add(check, without_channel(facts),
                 {.facts = folder,
                  .cause = none_at_all ? "ImexChannelCount is 0"
                           : hidden    ? "the mode of the channel nodes' folder keeps this user from seeing any"
                                       : "this process sees no IMEX channel node"});
}

void judge_nvml(const Facts& facts, Findings& findings) {
    const bool on_a_machine_of_nvidias =
        driver_made(facts) || (facts.machine.has_value() && facts.machine->kernel_module);
    if (facts.nvml_asked && !facts.nvml.has_value() && on_a_machine_of_nvidias) {
        findings.add("FM-NVML-001", CheckState::warning,
                     {.cause = "libnvidia-ml.so.1 can't be loaded, or does not answer: the state of the NVLink fabric "
                               "is not known"});
    }
    if (!facts.nvml.has_value() || !driver_made(facts)) return;
    std::string hidden;
    std::size_t count = 0;
    for (const NvmlDevice& device : facts.nvml->devices) {
        if (cuda_device(facts, device) != nullptr) continue;
        hidden += (hidden.empty() ? "" : ", ") + device.pci_bus_id;
        ++count;
    }
    const std::string seen =
        formatted("CUDA sees {} of {} GPUs", facts.nvml->devices.size() - count, facts.nvml->devices.size());
    const auto& visible = facts.machine.has_value() ? facts.machine->visible_devices : std::nullopt;
    if (count == 0) {
        findings.add("FM-NVML-002", CheckState::ok, {.facts = seen});
    } else if (visible.has_value()) {
        const char* const variable = facts.emulated ? "FABRICMEM_EMULATOR_DEVICES" : "CUDA_VISIBLE_DEVICES";
        findings.add("FM-NVML-002", CheckState::ok,
                     {.facts = formatted("{}: {}=\"{}\" hides {}", seen, variable, *visible, hidden)});
    } else {
        findings.add(
            "FM-NVML-002", CheckState::warning,
            {.facts = seen, .cause = formatted("CUDA does not see {}, and CUDA_VISIBLE_DEVICES is not set", hidden)});
    }
}

}  // namespace doctor
