// SPDX-License-Identifier: Apache-2.0
// A process's place in a fabric: the devices that it sees, its channel, what it may import, and whether it has been cut
// off. Knows no address.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include <cuda.h>

#include "emulated/fabric.hpp"
#include "emulated/fabric_handle.hpp"
#include "emulated/node.hpp"

namespace fabricmem::detail::emulated {

/// NVLINK_UNCORRECTABLE: what every call of a process that was cut off answers.
inline constexpr CUresult kCutOff = CUDA_ERROR_NVLINK_UNCORRECTABLE;

class Membership;

/// Memory of another node, for as long as this process has it imported.
class RemoteImport {
public:
    struct Source {
        std::size_t node = 0;
        Incarnation theirs;  // as of before the import was decided
        Incarnation ours;
        std::size_t device = 0;  // whose place in the NVLink fabric counts

        [[nodiscard]] auto key() const noexcept {
            return std::make_tuple(node, theirs.daemon_kills, theirs.losses, ours.daemon_kills);
        }
    };

    RemoteImport(Membership& importer, const Source& source);
    RemoteImport(const RemoteImport&) = delete;
    RemoteImport& operator=(const RemoteImport&) = delete;
    ~RemoteImport();

    /// What a map of it answers.
    [[nodiscard]] CUresult may_map() const noexcept;
    /// What access by the device with this ordinal answers.
    [[nodiscard]] CUresult may_access(int ordinal) const noexcept;

private:
    Membership& importer_;
    const Source source_;
};

class Membership {
public:
    /// Throws as make_emulated_driver does.
    Membership(std::shared_ptr<EmulatedFabric> fabric, const EmulatedProcess& process);
    Membership(const Membership&) = delete;
    Membership& operator=(const Membership&) = delete;

    [[nodiscard]] const FabricCore& core() const noexcept { return core_; }
    [[nodiscard]] std::size_t node_index() const noexcept { return index_; }
    [[nodiscard]] const ScenarioNode& node() const noexcept { return core_.node(index_); }
    [[nodiscard]] const NodeIdentity& identity() const noexcept { return identity_; }
    [[nodiscard]] std::optional<int> channel() const noexcept { return channel_; }

    // Devices: ordinals are this process's, numbers the node's.
    [[nodiscard]] int device_count() const noexcept { return static_cast<int>(visible_.size()); }
    [[nodiscard]] int number_of(int ordinal) const noexcept { return visible_[static_cast<std::size_t>(ordinal)]; }
    /// -1 for one that the process does not see.
    [[nodiscard]] int ordinal_of(int number) const noexcept;
    [[nodiscard]] const ScenarioDevice& device(int ordinal) const noexcept {
        return node().devices[static_cast<std::size_t>(number_of(ordinal))];
    }
    [[nodiscard]] bool has_fabric(int ordinal) const noexcept {
        return device(ordinal).fabric == FabricAttribute::supported;
    }
    /// Of any device that the process sees.
    [[nodiscard]] bool has_fabric() const noexcept;
    [[nodiscard]] bool can_access(int ordinal, int number) const noexcept;

    /// kCutOff once something has happened that this process does not outlive. One load and a comparison where nothing
    /// was switched.
    [[nodiscard]] CUresult look() noexcept {
        if (core_.switches().changes() == seen_.load(std::memory_order_acquire)) [[likely]]
            return cut_off_.load(std::memory_order_relaxed) ? kCutOff : CUDA_SUCCESS;
        return look_closely();
    }

    /// Whether memory with a fabric handle can be made; `ordinal`: the device, -1 for host memory.
    [[nodiscard]] CUresult may_create(int ordinal) const;
    [[nodiscard]] HandleFabric handle_fabric() const noexcept;
    /// What is wrong with importing the handle's memory before anybody looks for it; may wait for the switch that lets
    /// imports hang. `source`: set where the memory is another node's.
    CUresult admit(const FabricHandle& handle, std::optional<RemoteImport::Source>* source);

    [[nodiscard]] bool releases_hang() const noexcept { return core_.hangs(index_, Switch::releases); }
    CUresult wait_for(Switch which);
    [[nodiscard]] double latency_factor() const noexcept { return core_.latency_factor(index_); }

private:
    friend class RemoteImport;
    using Key = decltype(RemoteImport::Source{}.key());

    void choose_devices(const EmulatedProcess& process);
    void choose_channel(const EmulatedProcess& process);
    void check_devices() const;
    [[nodiscard]] bool is_ready(int ordinal) const;

    CUresult admit_remote(const FabricHandle& handle, std::size_t node, RemoteImport::Source* source);
    [[nodiscard]] CUresult domain_answer(const RemoteImport::Source& source) const noexcept;
    [[nodiscard]] bool shares_clique(int ordinal, const RemoteImport::Source& source) const noexcept;

    CUresult look_closely() noexcept;
    void enter(const RemoteImport::Source& source);
    void leave(const RemoteImport::Source& source) noexcept;
    // With mutex_ held.
    [[nodiscard]] bool outlived(const Key& key) const noexcept;

    const std::shared_ptr<EmulatedFabric> fabric_;
    FabricCore& core_;
    const std::size_t index_;
    const Incarnation born_in_;
    const NodeIdentity identity_;
    std::vector<int> visible_;
    std::vector<int> ordinals_;  // by number
    std::optional<int> channel_;

    std::atomic<std::uint32_t> seen_;  // Switches::changes() when cut_off_ was decided last
    std::atomic<bool> cut_off_{false};
    std::mutex mutex_;
    std::map<Key, std::size_t> imports_;  // alive, by what has to stay as it was
};

}  // namespace fabricmem::detail::emulated
