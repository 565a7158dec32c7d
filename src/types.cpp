// SPDX-License-Identifier: Apache-2.0
// Words for the small values.
#include <fabricmem/types.hpp>

#include <fabricmem/version.hpp>

#include "blob/hex.hpp"
#include "text/text.hpp"

namespace fabricmem {

Version library_version() noexcept { return kHeaderVersion; }

std::string to_string(const Id128& id) { return detail::to_hex(id.bytes); }

std::string to_string(const Location& location) {
    switch (location.kind()) {
        case LocationKind::device:
            return location.index() < 0 ? "a device that this process does not see"
                                        : detail::formatted("device {}", location.index());
        case LocationKind::host_numa:
            return location.index() < 0 ? "a host NUMA node that is not known"
                                        : detail::formatted("host NUMA node {}", location.index());
        case LocationKind::host_nearest:
            return detail::formatted("the host NUMA node nearest to device {}", location.index());
    }
    return "an unknown kind of location";
}

std::string to_string(HandleKinds kinds) {
    std::string text;
    const auto add = [&](HandleKind kind, const char* name) {
        if (!kinds.has(kind)) return;
        if (!text.empty()) text += '+';
        text += name;
    };
    add(HandleKind::fabric, "fabric");
    add(HandleKind::posix_fd, "posix_fd");
    add(HandleKind::cuda_ipc, "cuda_ipc");
    if (!text.empty()) return text;
    return kinds.empty() ? "none" : "unknown";
}

std::string to_string(const Access& access) {
    if (access.empty()) return "nobody";
    std::string text = access.permission == Permission::read_only ? "read-only by" : "read-write by";
    if (!access.devices.empty()) {
        text += detail::formatted(" device{} {}", access.devices.size() == 1 ? "" : "s",
                                  detail::joined(access.devices, ","));
    }
    if (access.host) text += access.devices.empty() ? " the host" : " and the host";
    return text;
}

}  // namespace fabricmem
