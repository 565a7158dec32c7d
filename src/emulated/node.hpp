// SPDX-License-Identifier: Apache-2.0
// The emulated node: ids that drivers of one node share and different nodes do not, and its Platform.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/platform.hpp>

namespace fabricmem::detail::emulated {

class FabricCore;

/// A real node for the empty name; otherwise its ids are made from the real ones and the name, so that processes which
/// use one name agree.
struct NodeIdentity {
    Id128 host_id{};
    Id128 boot_id{};
    std::uint32_t number = 0;  ///< what a fabric handle calls the node
};

[[nodiscard]] NodeIdentity identify_node(const std::string& name);

/// A node of a scenario: its ids follow from the machine, the fabric, the name and how often the node was lost. Its
/// number is the fabric's to give.
[[nodiscard]] NodeIdentity identify_node_of(std::uint64_t fabric, std::string_view name, std::uint32_t boots);

/// All zero for the empty name.
[[nodiscard]] Id128 cluster_uuid_of(std::string_view cluster);

/// Of the device with this number on the node, for CUDA and NVML. It follows from the host alone: it outlives a boot.
[[nodiscard]] Id128 device_uuid_of(const NodeIdentity& node, int device);

/// "0000:01:00.0" for device 0, in capitals as CUDA writes it.
[[nodiscard]] std::string pci_bus_id_of(int device);

/// A node as NVML and /dev show it to its processes: all its devices, whatever CUDA_VISIBLE_DEVICES says.
class EmulatedPlatform final : public Platform {
public:
    /// `fabric` outlives it.
    EmulatedPlatform(const FabricCore& fabric, std::size_t node, const NodeIdentity& identity);

    [[nodiscard]] std::optional<Id128> host_id() const override;
    [[nodiscard]] std::optional<Id128> boot_id() const override;
    [[nodiscard]] std::optional<std::uint32_t> process_id() const override;
    [[nodiscard]] std::optional<std::uint64_t> pid_namespace() const override;
    [[nodiscard]] std::optional<std::uint64_t> process_start() const override;
    [[nodiscard]] ProcessState process_state(std::uint32_t process_id, std::uint64_t process_start) const override;
    [[nodiscard]] std::vector<ImexChannel> imex_channels() const override;
    [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view pci_bus_id) const override;
    [[nodiscard]] std::optional<KernelModule> kernel_module() const override;
    [[nodiscard]] std::optional<NvmlFacts> nvml() const override;

private:
    const FabricCore& fabric_;
    const std::size_t index_;
    const NodeIdentity node_;
};

}  // namespace fabricmem::detail::emulated
