// SPDX-License-Identifier: Apache-2.0
#include "platform/random_id.hpp"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <fabricmem/error.hpp>

#include "platform/fork_epoch.hpp"

namespace fabricmem::detail {
namespace {

void fill_random(std::byte* bytes, std::size_t count) {
    std::size_t have = 0;
    while (have < count) {
        const ssize_t got = ::getrandom(bytes + have, count - have, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error({.kind = ErrorKind::system, .call = "getrandom", .subject = std::strerror(errno)});
        have += static_cast<std::size_t>(got);
    }
}

// A system call for each would be a good part of what making a buffer costs beside the driver. Each thread has its own:
// a lock could be held for ever in a forked child.
struct Stock {
    std::uint64_t epoch = 0;  // a child must not hand out what its parent does
    std::size_t left = 0;
    std::array<Id128, 16> ids{};  // 256 bytes, which the kernel gives whole
};

}  // namespace

Id128 random_id() {
    thread_local Stock stock;
    if (const std::uint64_t epoch = fork_epoch(); stock.left == 0 || stock.epoch != epoch) {
        stock.left = 0;  // for the case that it throws
        fill_random(reinterpret_cast<std::byte*>(stock.ids.data()), sizeof(stock.ids));
        stock.left = stock.ids.size();
        stock.epoch = epoch;
    }
    return stock.ids[--stock.left];
}

}  // namespace fabricmem::detail
