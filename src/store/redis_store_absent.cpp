// SPDX-License-Identifier: Apache-2.0
// Compiled where hiredis was not found, or not wanted.
#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

#include "text/text.hpp"

namespace fabricmem {

std::shared_ptr<Store> make_redis_store(RedisStoreOptions options) {  // NOLINT(performance-unnecessary-value-param)
    throw Error({.kind = ErrorKind::unsupported,
                 .subject = detail::formatted("Redis at {}:{}: this build of fabricmem has no Redis", options.host,
                                              options.port),
                 .cure = "build it with FABRICMEM_WITH_REDIS=AUTO where hiredis is installed (libhiredis-dev)"});
}

}  // namespace fabricmem
