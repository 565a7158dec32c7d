// SPDX-License-Identifier: Apache-2.0
// Reads the machine's ids and derives an emulated node's from them.
#include "emulated/node.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <fstream>

#include "emulated/fabric.hpp"
#include "emulated/numbers.hpp"
#include "emulated/process.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr unsigned int kChannelMajor = 234;

int hex_digit(char digit) noexcept {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    return -1;
}

// 32 hexadecimal digits, with or without dashes.
std::optional<Id128> read_id(const char* path) {
    std::ifstream file(path);
    std::string line;
    if (!std::getline(file, line)) return std::nullopt;
    Id128 id;
    std::size_t digits = 0;
    for (const char character : line) {
        if (character == '-') continue;
        const int digit = hex_digit(character);
        if (digit < 0 || digits == 32) return std::nullopt;
        std::uint8_t& byte = id.bytes[digits / 2];
        byte = static_cast<std::uint8_t>((byte << 4) | digit);
        ++digits;
    }
    return digits == 32 ? std::optional<Id128>(id) : std::nullopt;
}

// NVML takes small letters for capitals.
bool is_same_bus_id(std::string_view asked, std::string_view own) {
    const auto upper = [](char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c; };
    return std::equal(asked.begin(), asked.end(), own.begin(), own.end(),
                      [&](char a, char b) { return upper(a) == b; });
}

std::string_view as_text(const Id128& id) noexcept {
    return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

Id128 hash_to_id(std::string_view text) {
    const std::uint64_t halves[] = {hash(text, 1), hash(text, 2)};
    Id128 id;
    for (std::size_t i = 0; i < id.bytes.size(); ++i) {
        id.bytes[i] = static_cast<std::uint8_t>(halves[i / 8] >> (8 * (i % 8)));
    }
    return id;
}

Id128 derive(const Id128& from, std::string_view purpose, std::string_view name) {
    std::string text(as_text(from));
    text.append(purpose).append(1, '\0').append(name);
    return hash_to_id(text);
}

}  // namespace

NodeIdentity identify_node(const std::string& name) {
    NodeIdentity node;
    // A zero id would mean "unknown" where it is written down: a machine that tells neither gets a fixed one.
    node.boot_id = read_id("/proc/sys/kernel/random/boot_id").value_or(hash_to_id("no boot id"));
    // Slim containers have no machine id.
    node.host_id = read_id("/etc/machine-id").value_or(derive(node.boot_id, "host", ""));
    if (!name.empty()) {
        node.host_id = derive(node.host_id, "host", name);
        node.boot_id = derive(node.boot_id, "boot", name);
    }
    node.number = static_cast<std::uint32_t>(hash(as_text(node.host_id), hash(as_text(node.boot_id))));
    return node;
}

NodeIdentity identify_node_of(std::uint64_t fabric, std::string_view name, std::uint32_t boots) {
    NodeIdentity node = identify_node("");
    const std::string full = std::to_string(fabric).append(1, '/').append(name);
    node.host_id = derive(node.host_id, "host of a fabric", full);
    node.boot_id = derive(node.boot_id, "boot of a fabric", full + "/" + std::to_string(boots));
    return node;
}

Id128 cluster_uuid_of(std::string_view cluster) {
    return cluster.empty() ? Id128{} : hash_to_id(std::string("the NVLink domain ").append(cluster));
}

Id128 device_uuid_of(const NodeIdentity& node, int device) {
    return derive(derive(node.host_id, "device", ""), "number", std::to_string(device));
}

std::string pci_bus_id_of(int device) {
    char text[16];
    std::snprintf(text, sizeof text, "0000:%02X:00.0", static_cast<unsigned int>(kFirstPciBus + device) & 0xffU);
    return text;
}

EmulatedPlatform::EmulatedPlatform(const FabricCore& fabric, std::size_t node, const NodeIdentity& identity)
    : fabric_(fabric), index_(node), node_(identity) {}

std::optional<Id128> EmulatedPlatform::host_id() const { return node_.host_id; }
std::optional<Id128> EmulatedPlatform::boot_id() const { return node_.boot_id; }

std::optional<std::uint32_t> EmulatedPlatform::process_id() const { return static_cast<std::uint32_t>(::getpid()); }

std::optional<std::uint64_t> EmulatedPlatform::pid_namespace() const {
    struct stat status {};
    if (::stat("/proc/self/ns/pid", &status) != 0) return std::nullopt;
    return status.st_ino;
}

std::optional<std::uint64_t> EmulatedPlatform::process_start() const {
    const ProcessStat stat = read_process_stat(static_cast<std::uint32_t>(::getpid()));
    if (stat.found != ProcessStat::Found::yes) return std::nullopt;
    return stat.start;
}

ProcessState EmulatedPlatform::process_state(std::uint32_t process_id, std::uint64_t process_start) const {
    const ProcessStat stat = read_process_stat(process_id);
    if (stat.found == ProcessStat::Found::unknown) return ProcessState::unknown;
    if (stat.found == ProcessStat::Found::no || stat.ended || stat.start != process_start) return ProcessState::gone;
    return ProcessState::alive;
}

std::vector<ImexChannel> EmulatedPlatform::imex_channels() const { return fabric_.channels(index_); }

std::optional<FabricInfo> EmulatedPlatform::fabric_info(std::string_view pci_bus_id) const {
    if (fabric_.node(index_).nvml == NvmlLibrary::absent) return std::nullopt;
    const std::size_t devices = fabric_.node(index_).devices.size();
    for (std::size_t device = 0; device < devices; ++device) {
        if (is_same_bus_id(pci_bus_id, pci_bus_id_of(static_cast<int>(device))))
            return fabric_.fabric_info(index_, device);
    }
    return std::nullopt;
}

std::optional<KernelModule> EmulatedPlatform::kernel_module() const {
    const ScenarioNode& node = fabric_.node(index_);
    KernelModule module{.version = node.driver_version, .imex_channel_count = node.imex_channel_count};
    // The module asks for no major number where it has no channels: read in its sources. invented: the number.
    if (node.imex_channel_count > 0) module.imex_channel_major = kChannelMajor;
    return module;
}

std::optional<NvmlFacts> EmulatedPlatform::nvml() const {
    const ScenarioNode& node = fabric_.node(index_);
    if (node.nvml == NvmlLibrary::absent) return std::nullopt;
    NvmlFacts facts{.driver_version = node.driver_version};
    for (std::size_t device = 0; device < node.devices.size(); ++device) {
        const auto number = static_cast<int>(device);
        facts.devices.push_back({.pci_bus_id = pci_bus_id_of(number),
                                 .name = node.devices[device].name,
                                 .uuid = device_uuid_of(node_, number),
                                 .fabric = fabric_.fabric_info(index_, device),
                                 .recovery_action = fabric_.recovery_action(index_, device)});
    }
    return facts;
}

}  // namespace fabricmem::detail::emulated
