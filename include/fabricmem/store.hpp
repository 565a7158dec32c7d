// SPDX-License-Identifier: Apache-2.0
// Where ranks leave bytes for each other under keys: a directory, Redis, or what a caller adapts. Knows no handshake
// and no CUDA; no third-party type shows through.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/export.hpp>

namespace fabricmem {

/// Bytes under keys, which the processes of a job share. Keys are 1 to kKeyBytesMax bytes of any value, values 0 to
/// kValueBytesMax. A value is seen whole or not at all. Calls may block for as long as the engine does: StoreExchange
/// makes them on a thread of its own.
///
/// Threads: engines of this library may be used by many threads; an engine of a caller's needs that only where the
/// caller does it too. Engines throw Error: bad_argument (key or value beyond the limits), bad_blob (what is stored is
/// no value of this engine's, or too large), timed_out, not_permitted, system, unsupported (in a forked child).
class FABRICMEM_API Store {
public:
    static constexpr std::size_t kKeyBytesMax = 200;
    static constexpr std::size_t kValueBytesMax = std::size_t{1} << 20;

    Store() = default;
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    virtual ~Store();

    /// Replaces what is there.
    virtual void set(const std::string& key, std::span<const std::byte> value) = 0;
    /// nullopt where there is no such key: that is no error. Does not wait for one.
    [[nodiscard]] virtual std::optional<std::vector<std::byte>> try_get(const std::string& key) = 0;
    /// Waits until the key is there; false where it is not at the deadline.
    [[nodiscard]] virtual bool wait(const std::string& key, std::chrono::steady_clock::time_point deadline) = 0;
    /// Whether there was something to remove.
    virtual bool remove(const std::string& key) = 0;

    /// Whether compare_exchange() is there. False, unless the engine overrides both.
    [[nodiscard]] virtual bool can_compare_exchange() const noexcept;
    /// Puts `desired` where `expected` is (nullopt: where nothing is), in one step that no other call comes between.
    /// Returns whether `desired` is there afterwards: also where it was there before. Throws Error{unsupported} where
    /// the engine has none.
    [[nodiscard]] virtual bool compare_exchange(const std::string& key,
                                                std::optional<std::span<const std::byte>> expected,
                                                std::span<const std::byte> desired);
};

/// A directory that all ranks see, a file a key; made (mode 0700, the last name of the path alone) where it is not
/// there. A value is written beside and renamed into its place. Files have mode 0600: whoever can read a hello can map
/// the memory. What a killed writer left behind is removed by the next set() or remove() of that key. wait() is woken
/// by inotify, and looks by itself too, after 10 ms and up to every 500 ms, since changes of other machines wake
/// nobody. No compare_exchange (docs/stores.md says why, and what NFS does). Throws Error{bad_argument} for an empty
/// path, and system or not_permitted where the directory can't be used.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Store> make_directory_store(const std::string& path);

struct RedisStoreOptions {
    std::string host = "127.0.0.1";
    std::uint16_t port = 6379;
    std::string prefix{};    ///< keys are "<prefix>/<key>"; empty: the key alone
    std::string password{};  ///< empty: no AUTH
    /// How long a call waits to connect, and for each next piece of an answer. The look-up of a host's name is the
    /// resolver's time, and comes on top.
    std::chrono::milliseconds timeout{5'000};
};
/// A Redis server, over one connection that is made by the first call, and anew after a failure; calls take turns.
/// wait() asks after 10 ms and up to every 500 ms. Throws Error{unsupported} where the library was built without
/// hiredis, bad_argument for a host or timeout that can't be.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Store> make_redis_store(RedisStoreOptions options);

/// "dir:/path" or a path without "://"; "redis://host[:port][/prefix]", an IPv6 address in brackets. For programs with
/// a --store option. Throws Error{bad_argument} for another scheme, and as the engines' own functions.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Store> make_store(std::string_view url);

namespace detail {

/// Throw Error{bad_argument}. For engines.
FABRICMEM_API void check_store_key(std::string_view key);
FABRICMEM_API void check_store_value(std::string_view key, std::size_t bytes);
/// Throws Error{bad_blob} for a stored value beyond the limit.
FABRICMEM_API void check_stored_value(std::string_view key, std::size_t bytes);

}  // namespace detail

}  // namespace fabricmem
