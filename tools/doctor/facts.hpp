// SPDX-License-Identifier: Apache-2.0
// What was seen and tried, without a judgement. Plain values: the child finds them, the parent and tests judge them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/platform.hpp>
#include <fabricmem/probe.hpp>
#include <fabricmem/types.hpp>

#include "doctor/peers.hpp"

namespace doctor {

/// Why there is no driver: an Error's parts.
struct Failure {
    std::string kind{};  ///< to_string(ErrorKind)
    int code = 0;
    std::string text{};  ///< the call and what it said, without cause and cure
    std::string cause{};
    std::string cure{};
    std::string check{};
};

struct DriverFacts {
    std::string place{};   ///< of an emulated fabric: "scenario two-racks, node rack0-node1"
    int cuda_version = 0;  ///< 13000: CUDA 13.0; 0: not known
    std::optional<Failure> why_not{};
};

/// A device that CUDA sees.
struct DeviceFacts {
    int ordinal = 0;
    std::string name{};
    std::string pci_bus_id{};
    fabricmem::Id128 uuid{};
    bool fabric_handles = false;                ///< attribute 128
    int numa_node = 0;                          ///< the nearest one
    std::optional<bool> host_memory_travels{};  ///< attribute 143
};

/// What the probe of a place came to.
struct PlaceFacts {
    fabricmem::Location place = fabricmem::Location::device(0);
    fabricmem::HandleReach reach = fabricmem::HandleReach::none;
    std::string kinds{};
    std::vector<fabricmem::ProbeStep> steps{};
};

struct MachineFacts {
    std::string host_id{};  ///< 32 digits; empty: not known
    std::string boot_id{};
    std::optional<fabricmem::KernelModule> kernel_module{};
    std::vector<fabricmem::ImexChannel> channels{};
    int channels_errno = 0;                        ///< of listing their folder
    std::optional<std::string> visible_devices{};  ///< CUDA_VISIBLE_DEVICES; nullopt: not set
    /// A PCI device of NVIDIA's; nullopt: can't be told.
    std::optional<bool> gpu_on_pci{};
};

/// A step that did not come to its end.
struct Stuck {
    enum class How : std::uint8_t {
        late,    ///< killed when its time was up
        signal,  ///< died of signal `number`
        exit,    ///< ended by itself with exit code `number`
    };
    std::string step{};  ///< its id: "driver", "device 0"
    How how = How::late;
    int number = 0;
    std::chrono::milliseconds after{0};
};

/// What nvidia-imex-ctl says of the node's IMEX domain.
struct ImexFacts {
    enum class Answer : std::uint8_t {
        not_asked,
        absent,    ///< there is no nvidia-imex-ctl
        late,      ///< killed when its time was up
        failed,    ///< ended with another exit code than 0, or by a signal
        nonsense,  ///< said what is not understood
        understood,
    };
    struct Node {
        std::string name{};
        std::string state{};  ///< "READY"
    };
    Answer answer = Answer::not_asked;
    std::string detail{};  ///< why it was not asked, or how it failed
    std::string domain{};  ///< "UP", "DEGRADED", "DOWN"; empty: not known
    std::string daemon{};  ///< of this node: "READY"; empty: not asked, or not known
    std::vector<Node> nodes{};
};

struct Facts {
    bool emulated = false;
    std::optional<MachineFacts> machine{};  ///< nullopt: could not be found out
    std::optional<DriverFacts> driver{};    ///< nullopt: it did not come to an answer
    bool nvml_asked = false;                ///< false: it did not come to that
    std::optional<fabricmem::NvmlFacts> nvml{};
    std::vector<DeviceFacts> devices{};
    std::vector<fabricmem::Location> to_try{};  ///< places; those without PlaceFacts are not known
    std::vector<PlaceFacts> places{};
    std::vector<Stuck> stuck{};
    bool out_of_time = false;
    ImexFacts imex{};
    std::optional<Meeting> meeting{};  ///< with other processes, where there was one
    std::string said{};                ///< on stderr by the children

    [[nodiscard]] const PlaceFacts* at(const fabricmem::Location& place) const noexcept;
};

/// Whether memory there can be fabric memory.
[[nodiscard]] bool works(const PlaceFacts& place) noexcept;

/// An Error's text up to its cause, cure and check, which stand beside it.
[[nodiscard]] std::string without_cause(const std::string& text);

/// "devices 0-3 and 5", "device 0 and host NUMA nodes 0-1".
[[nodiscard]] std::string name_places(const std::vector<fabricmem::Location>& places);

/// "is in a multi-node domain" of NVML's words: a cluster UUID, and joining or joined.
[[nodiscard]] bool in_domain(const fabricmem::FabricInfo& info) noexcept;

/// Whether any GPU of the machine is part of a multi-node NVLink domain, as far as NVML tells.
[[nodiscard]] bool has_multinode_domain(const Facts& facts) noexcept;

}  // namespace doctor
