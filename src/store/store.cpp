// SPDX-License-Identifier: Apache-2.0
// What all engines share, and the URL that names one. Knows no engine's ways.
#include <fabricmem/store.hpp>

#include <charconv>
#include <utility>

#include <fabricmem/error.hpp>

#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

std::uint16_t parse_port(std::string_view digits, std::string_view url) {
    std::uint16_t port = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, port);
    if (error != std::errc() || stop != end || port == 0) {
        detail::refuse(detail::formatted("the store {} has no port from 1 to 65535", url));
    }
    return port;
}

// "host", "host:port", "[::1]:port".
void parse_place(std::string_view place, std::string_view url, RedisStoreOptions& options) {
    std::string_view rest;
    if (!place.empty() && place.front() == '[') {
        const std::size_t bracket = place.find(']');
        if (bracket == std::string_view::npos) detail::refuse(detail::formatted("the store {} lacks a bracket", url));
        options.host = place.substr(1, bracket - 1);
        rest = place.substr(bracket + 1);
    } else {
        const std::size_t colon = std::min(place.find(':'), place.size());
        options.host = place.substr(0, colon);
        rest = place.substr(colon);
    }
    if (rest.empty()) return;
    if (rest.front() != ':') detail::refuse(detail::formatted("the store {} has something behind its host", url));
    options.port = parse_port(rest.substr(1), url);
}

}  // namespace

Store::~Store() = default;

bool Store::can_compare_exchange() const noexcept { return false; }

bool Store::compare_exchange(const std::string& key, std::optional<std::span<const std::byte>>,
                             std::span<const std::byte>) {
    throw Error({.kind = ErrorKind::unsupported,
                 .call = "compare_exchange",
                 .subject = key,
                 .cause = "this store has no such call",
                 .cure = "ask can_compare_exchange() first"});
}

std::shared_ptr<Store> make_store(std::string_view url) {
    constexpr std::string_view kDirectory = "dir:";
    constexpr std::string_view kRedis = "redis://";
    if (url.starts_with(kRedis)) {
        std::string_view rest = url.substr(kRedis.size());
        RedisStoreOptions options;
        if (rest.find('@') != std::string_view::npos) {
            detail::refuse(
                "a store's URL is seen by whoever lists processes: a password belongs into RedisStoreOptions");
        }
        if (const std::size_t slash = rest.find('/'); slash != std::string_view::npos) {
            options.prefix = rest.substr(slash + 1);
            rest = rest.substr(0, slash);
        }
        parse_place(rest, url, options);
        return make_redis_store(std::move(options));
    }
    if (url.find("://") != std::string_view::npos) {
        detail::refuse(
            detail::formatted("the store {} is none of dir:PATH, PATH and redis://HOST[:PORT][/PREFIX]", url));
    }
    if (url.starts_with(kDirectory)) url.remove_prefix(kDirectory.size());
    return make_directory_store(std::string(url));
}

namespace detail {

void check_store_key(std::string_view key) {
    if (key.empty() || key.size() > Store::kKeyBytesMax) {
        refuse(formatted("a store's key of {} bytes, not of 1 to {}", key.size(), Store::kKeyBytesMax));
    }
}

void check_store_value(std::string_view key, std::size_t bytes) {
    if (bytes > Store::kValueBytesMax) {
        refuse(formatted("a value of {} bytes for the store's key {}, beyond {}", bytes, key, Store::kValueBytesMax));
    }
}

void check_stored_value(std::string_view key, std::size_t bytes) {
    if (bytes > Store::kValueBytesMax) {
        throw Error({.kind = ErrorKind::bad_blob,
                     .subject = formatted("the store has more than {} bytes under {}, which is none of ours",
                                          Store::kValueBytesMax, key),
                     .cure = "let no other program use this store, or take another prefix"});
    }
}

}  // namespace detail

}  // namespace fabricmem
