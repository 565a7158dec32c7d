// SPDX-License-Identifier: Apache-2.0
// What both sides of a soak write into memory and look for, and what a process uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

namespace fabricmem::soak {

inline constexpr std::uint64_t kBytes = 2 << 20;
inline constexpr std::uint64_t kPatternSlot = 0;  ///< the exporter's, written before the blob travels
inline constexpr std::uint64_t kWordSlot = 1;     ///< the importer's
inline constexpr std::uint64_t kOwnSlot = 2;      ///< the exporter's, written again and again
inline constexpr std::uint64_t kLastSlot = kBytes / sizeof(std::uint64_t) - 1;  ///< the exporter's pattern again

/// Something is not as it has to be; what() says what.
struct Broken : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// One word of a buffer: by the CPU where it may, else by a copy, for which a context has to be current.
void store(Driver& driver, const MappedBuffer& buffer, std::uint64_t slot, std::uint64_t value);
[[nodiscard]] std::uint64_t load(Driver& driver, const MappedBuffer& buffer, std::uint64_t slot);

void store_pattern(Driver& driver, const MappedBuffer& buffer, std::uint64_t pattern);
/// Throws Broken where it is not there.
void check_pattern(Driver& driver, const MappedBuffer& buffer, std::uint64_t pattern);

struct Usage {
    std::size_t descriptors = 0;
    std::size_t held = 0;      ///< sum of emulated_counts(); 0 for the real driver
    std::size_t mappings = 0;  ///< kernel mappings of emulated memory
    std::size_t shared_kib = 0;
    std::size_t private_kib = 0;
};
[[nodiscard]] Usage usage_of_this_process(const Driver& driver);

/// The largest allocation of device 0 that cuMemCreate grants now, to 64 MiB. Nothing is kept and nothing touched.
[[nodiscard]] std::uint64_t room_on_device(Driver& driver);

}  // namespace fabricmem::soak
