// SPDX-License-Identifier: Apache-2.0
// Small values that every layer shares: 128-bit ids, locations, handle kinds, access. No CUDA, no driver, no I/O.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include <fabricmem/export.hpp>

namespace fabricmem {

/// 128 bits that name something (a host, a boot, a device, an allocation), in the byte order in which they are printed.
struct Id128 {
    std::array<std::uint8_t, 16> bytes{};

    [[nodiscard]] constexpr bool is_zero() const noexcept {
        for (const std::uint8_t byte : bytes) {
            if (byte != 0) return false;
        }
        return true;
    }
    friend constexpr bool operator==(const Id128&, const Id128&) noexcept = default;
    friend constexpr auto operator<=>(const Id128&, const Id128&) noexcept = default;
};

/// 32 lower-case hexadecimal digits, no dashes.
[[nodiscard]] FABRICMEM_API std::string to_string(const Id128& id);

enum class LocationKind : std::uint8_t {
    device = 1,        ///< memory of a GPU
    host_numa = 2,     ///< memory of a host NUMA node
    host_nearest = 3,  ///< memory of the host NUMA node nearest to a GPU; only asked for, never an answer
};

/// Where memory is, or is asked for. Devices are CUDA ordinals of this process (they follow CUDA_VISIBLE_DEVICES): an
/// ordinal means nothing in another process, the device's UUID does.
class Location {
public:
    [[nodiscard]] static constexpr Location device(int ordinal) noexcept { return {LocationKind::device, ordinal}; }
    [[nodiscard]] static constexpr Location host_numa(int node) noexcept { return {LocationKind::host_numa, node}; }
    [[nodiscard]] static constexpr Location host_nearest(int ordinal) noexcept {
        return {LocationKind::host_nearest, ordinal};
    }

    [[nodiscard]] constexpr LocationKind kind() const noexcept { return kind_; }
    /// The CUDA ordinal (device, host_nearest) or the NUMA node (host_numa); -1 where it is not known here, as for a
    /// device that this process does not see, and for imported memory of another node's host.
    [[nodiscard]] constexpr int index() const noexcept { return index_; }
    [[nodiscard]] constexpr bool is_host() const noexcept { return kind_ != LocationKind::device; }

    friend constexpr bool operator==(const Location&, const Location&) noexcept = default;

private:
    constexpr Location(LocationKind kind, int index) noexcept : kind_(kind), index_(index) {}

    LocationKind kind_;
    int index_;
};

/// "device 0", "host NUMA node 1", "the host NUMA node nearest to device 0".
[[nodiscard]] FABRICMEM_API std::string to_string(const Location& location);

/// One way in which memory travels to another process. The values are the bits of the blob's `kinds` field.
enum class HandleKind : std::uint32_t {
    fabric = 1,    ///< CU_MEM_HANDLE_TYPE_FABRIC: 64 bytes, across nodes of one NVLink domain and within a node
    posix_fd = 2,  ///< CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR: within a node
    cuda_ipc = 4,  ///< cudaIpcMemHandle_t of cudaMalloc memory: within a node
};

/// A set of HandleKind. Bits that this version does not know are kept and ignored.
class HandleKinds {
public:
    constexpr HandleKinds() noexcept = default;
    constexpr HandleKinds(HandleKind kind) noexcept
        : bits_(static_cast<std::uint32_t>(kind)) {}  // NOLINT(google-explicit-constructor)
    constexpr HandleKinds(std::initializer_list<HandleKind> kinds) noexcept {
        for (const HandleKind kind : kinds) bits_ |= static_cast<std::uint32_t>(kind);
    }
    [[nodiscard]] static constexpr HandleKinds from_bits(std::uint32_t bits) noexcept {
        HandleKinds kinds;
        kinds.bits_ = bits;
        return kinds;
    }
    [[nodiscard]] constexpr std::uint32_t bits() const noexcept { return bits_; }
    [[nodiscard]] constexpr bool has(HandleKind kind) const noexcept {
        return (bits_ & static_cast<std::uint32_t>(kind)) != 0;
    }
    [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }

    friend constexpr HandleKinds operator|(HandleKinds a, HandleKinds b) noexcept {
        return from_bits(a.bits_ | b.bits_);
    }
    friend constexpr bool operator==(HandleKinds, HandleKinds) noexcept = default;

private:
    std::uint32_t bits_ = 0;
};

/// "fabric", "fabric+posix_fd", "none".
[[nodiscard]] FABRICMEM_API std::string to_string(HandleKinds kinds);

enum class Permission : std::uint8_t { read_only = 1, read_write = 3 };

/// Who may touch a mapping, as the driver granted it.
struct Access {
    std::vector<int> devices{};  ///< CUDA ordinals, ascending
    bool host = false;           ///< whether the CPU may load (and, with read_write, store) through the address
    Permission permission = Permission::read_write;

    [[nodiscard]] bool empty() const noexcept { return devices.empty() && !host; }
    friend bool operator==(const Access&, const Access&) = default;
};

/// "read-write by devices 0,1 and the host".
[[nodiscard]] FABRICMEM_API std::string to_string(const Access& access);

}  // namespace fabricmem
