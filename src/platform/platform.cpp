// SPDX-License-Identifier: Apache-2.0
// The seam's defaults: nothing is known.
#include <fabricmem/platform.hpp>

namespace fabricmem {

Platform::~Platform() = default;

std::optional<Id128> Platform::host_id() const { return std::nullopt; }
std::optional<Id128> Platform::boot_id() const { return std::nullopt; }
std::optional<std::uint32_t> Platform::process_id() const { return std::nullopt; }
std::optional<std::uint64_t> Platform::pid_namespace() const { return std::nullopt; }
std::optional<std::uint64_t> Platform::process_start() const { return std::nullopt; }
ProcessState Platform::process_state(std::uint32_t, std::uint64_t) const { return ProcessState::unknown; }
std::vector<ImexChannel> Platform::imex_channels() const { return {}; }
int Platform::imex_channels_errno() const { return 0; }
std::optional<FabricInfo> Platform::fabric_info(std::string_view) const { return std::nullopt; }
std::optional<KernelModule> Platform::kernel_module() const { return std::nullopt; }
std::optional<NvmlFacts> Platform::nvml() const { return std::nullopt; }

}  // namespace fabricmem
