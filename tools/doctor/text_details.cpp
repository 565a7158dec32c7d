// SPDX-License-Identifier: Apache-2.0
// What -v adds: every check, every step, the machine.
#include <string>

#include "common/text.hpp"
#include "doctor/report.hpp"
#include "doctor/words.hpp"

namespace doctor {
namespace {

using examples::formatted;

std::string text_of_checks(const Report& report, const Layout& layout) {
    std::string text = "\nchecks:\n";
    for (const Finding& finding : report.findings) {
        const std::string subject = finding.subject();
        const std::string where = subject.empty() ? std::string() : formatted(" [{}]", subject);
        const std::string facts = finding.facts.empty() ? std::string() : formatted(" ({})", finding.facts);
        text += wrapped(formatted("  {:<8} {} ", to_string(finding.state), finding.check->id),
                        formatted("{}{}{}", finding.check->statement, where, facts), 11, layout.width);
    }
    return text;
}

std::string text_of_places(const Facts& facts, const Layout& layout) {
    std::string text;
    for (const PlaceFacts& place : facts.places) {
        text += wrapped("", formatted("{}: {}, {}", to_string(place.place), to_string(place.reach), place.kinds), 2,
                        layout.width);
        for (const fabricmem::ProbeStep& step : place.steps)
            text += wrapped(formatted("  {:<8} {:<14} ", to_string(step.state), to_string(step.rung)), step.facts, 26,
                            layout.width);
    }
    return text.empty() ? text : "\nsteps:\n" + text;
}

std::string or_unknown(const std::string& text) { return text.empty() ? std::string("not known") : text; }

std::string text_of_machine(const MachineFacts& machine, const Layout& layout) {
    std::string text = wrapped(
        "  ", formatted("host {}, boot {}", or_unknown(machine.host_id), or_unknown(machine.boot_id)), 4, layout.width);
    if (const auto& module = machine.kernel_module; module.has_value()) {
        const auto number = [](const auto& value) {
            return value.has_value() ? std::to_string(*value) : std::string("not known");
        };
        text += wrapped(
            "  ",
            formatted("kernel module {}, ImexChannelCount {}, major number of channels {}", or_unknown(module->version),
                      number(module->imex_channel_count), number(module->imex_channel_major)),
            4, layout.width);
    }
    if (machine.channels_errno != 0) {
        text +=
            wrapped("  ", formatted("IMEX channels: their folder can't be listed (errno {})", machine.channels_errno),
                    4, layout.width);
    }
    for (const fabricmem::ImexChannel& channel : machine.channels) {
        const std::string named =
            channel.channel() == channel.number
                ? std::string()
                : formatted(" (the node is channel{}, and its minor number counts)", channel.number);
        const char* const major = channel.major_matches ? "" : ", with another major number than the driver's";
        text += wrapped("  ",
                        formatted("IMEX channel {}{}: {}{}", channel.channel(), named,
                                  channel.open_errno == 0 ? std::string("can be opened")
                                                          : formatted("errno {}", channel.open_errno),
                                  major),
                        4, layout.width);
    }
    return text;
}

std::string text_of_nvml(const fabricmem::NvmlFacts& nvml, const Layout& layout) {
    std::string text = wrapped("  ", formatted("NVML of driver {}", or_unknown(nvml.driver_version)), 4, layout.width);
    for (const fabricmem::NvmlDevice& device : nvml.devices) {
        std::string line = formatted("{} {}", device.pci_bus_id, device.name);
        if (device.fabric.has_value()) line += ", " + describe_fabric(*device.fabric);
        if (device.recovery_action.has_value())
            line += formatted(", recovery action: {}", describe_recovery(*device.recovery_action));
        text += wrapped("  GPU ", line, 4, layout.width);
    }
    return text;
}

std::string text_of_imex(const ImexFacts& imex, const Layout& layout) {
    if (imex.answer != ImexFacts::Answer::understood)
        return wrapped("  nvidia-imex-ctl: ", imex.detail, 4, layout.width);
    std::string text = wrapped("  ",
                               formatted("IMEX domain {}, this node's daemon {}", or_unknown(imex.domain),
                                         imex.daemon.empty() ? "not asked" : imex.daemon),
                               4, layout.width);
    for (const ImexFacts::Node& node : imex.nodes)
        text += wrapped("  IMEX node ", formatted("{}: {}", node.name, node.state), 4, layout.width);
    return text;
}

}  // namespace

std::string text_of_all(const Report& report, const Layout& layout) {
    const Facts& facts = report.facts;
    std::string text = text_of_checks(report, layout) + text_of_places(facts, layout) + "\nmachine:\n";
    if (facts.machine.has_value()) text += text_of_machine(*facts.machine, layout);
    if (facts.driver.has_value() && facts.driver->cuda_version != 0)
        text += formatted("  {}\n", describe_cuda(facts.driver->cuda_version));
    if (facts.nvml.has_value()) text += text_of_nvml(*facts.nvml, layout);
    text += text_of_imex(facts.imex, layout);
    if (!facts.said.empty()) text += "\nsaid by libraries on stderr:\n" + facts.said;
    if (text.back() != '\n') text += '\n';
    return text;
}

}  // namespace doctor
