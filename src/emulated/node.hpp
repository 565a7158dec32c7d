// SPDX-License-Identifier: Apache-2.0
// The emulated node: ids that drivers of one node share and different nodes do not, and its Platform.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/platform.hpp>

namespace fabricmem::detail::emulated {

/// A real node for the empty name; otherwise its ids are made from the real ones and the name, so that processes which
/// use one name agree.
struct NodeIdentity {
    Id128 host_id{};
    Id128 boot_id{};
    std::uint32_t number = 0;  ///< what a fabric handle calls the node
};

[[nodiscard]] NodeIdentity identify_node(const std::string& name);

/// 128 bits that follow from a node, a purpose and a number alone.
[[nodiscard]] Id128 derive_id(const NodeIdentity& node, std::string_view purpose, std::uint64_t number);

/// "0000:01:00.0" for device 0.
[[nodiscard]] std::string pci_bus_id_of(int device);

class EmulatedPlatform final : public Platform {
public:
    enum class Fabric : std::uint8_t { none, completed };
    EmulatedPlatform(const NodeIdentity& node, int devices, std::optional<ImexChannel> imex_channel, Fabric fabric);

    [[nodiscard]] std::optional<Id128> host_id() const override;
    [[nodiscard]] std::optional<Id128> boot_id() const override;
    [[nodiscard]] std::optional<std::uint32_t> process_id() const override;
    [[nodiscard]] std::optional<std::uint64_t> pid_namespace() const override;
    [[nodiscard]] std::optional<std::uint64_t> process_start() const override;
    [[nodiscard]] ProcessState process_state(std::uint32_t process_id, std::uint64_t process_start) const override;
    [[nodiscard]] std::vector<ImexChannel> imex_channels() const override;
    [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view pci_bus_id) const override;

private:
    NodeIdentity node_;
    int devices_;
    std::optional<ImexChannel> imex_channel_;
    Fabric fabric_;
};

}  // namespace fabricmem::detail::emulated
