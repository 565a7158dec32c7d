// SPDX-License-Identifier: Apache-2.0
// Any type with the calls of PyTorch's c10d::Store (TCPStore, FileStore, PrefixStore) as a Store. Header-only: it
// includes nothing of PyTorch's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

namespace fabricmem {

namespace detail {

template <typename C10dStore>
class AdaptedC10dStore final : public Store {
public:
    explicit AdaptedC10dStore(std::shared_ptr<C10dStore> store) : store_(std::move(store)) {
        if (store_ == nullptr) throw Error({.kind = ErrorKind::bad_argument, .subject = "no c10d store was given"});
    }

    void set(const std::string& key, std::span<const std::byte> value) override {
        check_store_key(key);
        check_store_value(key, value.size());
        called("c10d set", key, [&] { store_->set(key, to_c10d(value)); });
    }

    std::optional<std::vector<std::byte>> try_get(const std::string& key) override {
        check_store_key(key);
        // get() waits for a key that is not there.
        if (!is_there(key)) return std::nullopt;
        const std::vector<std::uint8_t> value = called("c10d get", key, [&] { return store_->get(key); });
        check_stored_value(key, value.size());
        const auto bytes = std::as_bytes(std::span(value));
        return std::vector<std::byte>(bytes.begin(), bytes.end());
    }

    bool wait(const std::string& key, std::chrono::steady_clock::time_point deadline) override {
        check_store_key(key);
        std::chrono::steady_clock::duration pause = std::chrono::milliseconds(10);
        constexpr std::chrono::steady_clock::duration kLongest = std::chrono::milliseconds(500);
        for (;;) {
            if (is_there(key)) return true;
            const auto left = deadline - std::chrono::steady_clock::now();
            if (left <= left.zero()) return false;
            // Not c10d's wait(): TCPStore's client is locked for as long as that lasts, so that what another thread
            // wants to set, which may be what somebody waits for, is not set before.
            std::this_thread::sleep_for(std::min(left, pause));
            pause = std::min(2 * pause, kLongest);
        }
    }

    bool remove(const std::string& key) override {
        check_store_key(key);
        return called("c10d deleteKey", key, [&] { return store_->deleteKey(key); });
    }

    [[nodiscard]] bool can_compare_exchange() const noexcept override { return kHasCompareSet; }

    bool compare_exchange(const std::string& key, std::optional<std::span<const std::byte>> expected,
                          std::span<const std::byte> desired) override {
        if constexpr (kHasCompareSet) {
            check_store_key(key);
            check_store_value(key, desired.size());
            // c10d says "nothing is there" with an empty value, so that neither can be told from the other.
            if (desired.empty() || (expected.has_value() && expected->empty())) {
                throw Error(
                    {.kind = ErrorKind::unsupported, .call = "c10d compareSet", .subject = "an empty value of " + key});
            }
            // It would answer with what was expected where nothing is there.
            if (expected.has_value() &&
                std::equal(expected->begin(), expected->end(), desired.begin(), desired.end())) {
                const auto there = try_get(key);
                return there.has_value() && std::equal(there->begin(), there->end(), desired.begin(), desired.end());
            }
            const std::vector<std::uint8_t> before =
                expected.has_value() ? to_c10d(*expected) : std::vector<std::uint8_t>{};
            const std::vector<std::uint8_t> after = to_c10d(desired);
            return called("c10d compareSet", key, [&] { return store_->compareSet(key, before, after); }) == after;
        } else {
            return Store::compare_exchange(key, expected, desired);
        }
    }

private:
    static constexpr bool kHasCompareSet =
        requires(C10dStore & store, const std::string& key, const std::vector<std::uint8_t>& value) {
        std::vector<std::uint8_t>(store.compareSet(key, value, value));
    };

    static std::vector<std::uint8_t> to_c10d(std::span<const std::byte> value) {
        std::vector<std::uint8_t> bytes(value.size());
        std::transform(value.begin(), value.end(), bytes.begin(), [](std::byte b) { return std::uint8_t(b); });
        return bytes;
    }

    static Error failed(const char* call, const std::string& key, const std::exception& error) {
        return Error({.kind = ErrorKind::system, .call = call, .subject = key, .cause = error.what()});
    }

    template <typename Call>
    static auto called(const char* call, const std::string& key, Call&& work) {
        try {
            return work();
        } catch (const std::exception& error) {
            throw failed(call, key, error);
        }
    }

    bool is_there(const std::string& key) {
        return called("c10d check", key, [&] { return store_->check(std::vector<std::string>{key}); });
    }

    std::shared_ptr<C10dStore> store_;
};

}  // namespace detail

/// Shares the store. Its calls are made by whatever thread makes ours, and take as long as c10d's own timeout
/// (300 s unless told otherwise: a get() whose key is removed just before it waits for so long). Its exceptions are
/// Error{system} with their text. compare_exchange is there where the type has compareSet, and not for empty values,
/// which c10d can't tell from none (Error{unsupported}). Throws Error{bad_argument} for null.
template <typename C10dStore>
[[nodiscard]] std::shared_ptr<Store> adapt_c10d_store(std::shared_ptr<C10dStore> store) {
    return std::make_shared<detail::AdaptedC10dStore<C10dStore>>(std::move(store));
}

}  // namespace fabricmem
