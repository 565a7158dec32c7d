// SPDX-License-Identifier: Apache-2.0
// What numbers of NVML's and CUDA's mean.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <fabricmem/platform.hpp>

#include "doctor/facts.hpp"

namespace doctor {

/// "not_supported", "in_progress": the enumerator's name.
[[nodiscard]] std::string_view name_of(fabricmem::FabricInfo::State state) noexcept;
/// "completed, status 0, cluster 0102.., clique 7, health 0xaa: healthy"
[[nodiscard]] std::string describe_fabric(const fabricmem::FabricInfo& info);
/// NVML's field 230: "reset the GPU".
[[nodiscard]] std::string_view describe_recovery(std::uint32_t action) noexcept;
/// Of a driver that could not be made: the check that its error names, else that of its code.
[[nodiscard]] std::string_view check_of(const Failure& failure) noexcept;
/// "CUDA 13.0"; empty for 0.
[[nodiscard]] std::string describe_cuda(int version);

}  // namespace doctor
