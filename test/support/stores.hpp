// SPDX-License-Identifier: Apache-2.0
// Stores for tests: one in memory that lies, fails, hangs and dies as it is told, and a folder that is gone at the end.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/store.hpp>

#include "support/test.hpp"

namespace fabricmem::test {

using Bytes = std::vector<std::byte>;

inline Bytes bytes_of(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    return Bytes(bytes.begin(), bytes.end());
}
inline std::string text_of(std::span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "fabricmem-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::size_t files() const {
        return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
    }

private:
    std::filesystem::path path_;
};

/// What several MemoryStores share, and outlives them.
class MemoryServer {
public:
    /// Called with "set", "try_get", "remove" and the key before a call is answered, without a lock; may throw.
    void on_call(std::function<void(const std::string&, const std::string&)> hook) {
        const std::lock_guard lock(mutex_);
        hook_ = std::move(hook);
    }
    void called(const std::string& name, const std::string& key) {
        std::function<void(const std::string&, const std::string&)> hook;
        {
            const std::lock_guard lock(mutex_);
            hook = hook_;
        }
        if (hook) hook(name, key);
        std::unique_lock lock(mutex_);
        if (!hanging_) return;
        ++hung_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return !hanging_; });
        --hung_;
    }
    void hang() {
        const std::lock_guard lock(mutex_);
        hanging_ = true;
    }
    void go_on() {
        const std::lock_guard lock(mutex_);
        hanging_ = false;
        changed_.notify_all();
    }
    [[nodiscard]] bool wait_until_hung(std::chrono::seconds patience) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, patience, [&] { return hung_ != 0; });
    }

    void put(const std::string& key, Bytes value) {
        const std::lock_guard lock(mutex_);
        values_[key] = std::move(value);
        changed_.notify_all();
    }
    [[nodiscard]] std::optional<Bytes> get(const std::string& key) {
        const std::lock_guard lock(mutex_);
        const auto place = values_.find(key);
        return place == values_.end() ? std::nullopt : std::optional(place->second);
    }
    bool remove(const std::string& key) {
        const std::lock_guard lock(mutex_);
        return values_.erase(key) != 0;
    }
    bool exchange(const std::string& key, const std::optional<Bytes>& expected, Bytes desired) {
        const std::lock_guard lock(mutex_);
        const auto place = values_.find(key);
        const std::optional<Bytes> there = place == values_.end() ? std::nullopt : std::optional(place->second);
        if (there == expected) values_[key] = desired;
        return there == expected || there == desired;
    }
    [[nodiscard]] std::size_t size() {
        const std::lock_guard lock(mutex_);
        return values_.size();
    }

    void store_made() {
        const std::lock_guard lock(mutex_);
        ++stores_;
    }
    void store_gone() {
        const std::lock_guard lock(mutex_);
        --stores_;
        changed_.notify_all();
    }
    /// False where some MemoryStore still lives after so long.
    [[nodiscard]] bool wait_until_unused(std::chrono::seconds patience) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, patience, [&] { return stores_ == 0; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Bytes> values_;
    std::function<void(const std::string&, const std::string&)> hook_;
    bool hanging_ = false;
    std::size_t hung_ = 0;
    std::size_t stores_ = 0;
};

class MemoryStore : public Store {
public:
    explicit MemoryStore(std::shared_ptr<MemoryServer> server) : server_(std::move(server)) { server_->store_made(); }
    ~MemoryStore() override { server_->store_gone(); }

    void set(const std::string& key, std::span<const std::byte> value) override {
        server_->called("set", key);
        server_->put(key, Bytes(value.begin(), value.end()));
    }
    std::optional<Bytes> try_get(const std::string& key) override {
        server_->called("try_get", key);
        return server_->get(key);
    }
    bool wait(const std::string&, std::chrono::steady_clock::time_point) override {
        throw std::logic_error("an exchange does not wait in a store");
    }
    bool remove(const std::string& key) override {
        server_->called("remove", key);
        return server_->remove(key);
    }

protected:
    [[nodiscard]] MemoryServer& server() const { return *server_; }

private:
    std::shared_ptr<MemoryServer> server_;
};

class ComparingMemoryStore final : public MemoryStore {
public:
    using MemoryStore::MemoryStore;
    [[nodiscard]] bool can_compare_exchange() const noexcept override { return true; }
    bool compare_exchange(const std::string& key, std::optional<std::span<const std::byte>> expected,
                          std::span<const std::byte> desired) override {
        server().called("compare_exchange", key);
        std::optional<Bytes> before;
        if (expected.has_value()) before.emplace(expected->begin(), expected->end());
        return server().exchange(key, before, Bytes(desired.begin(), desired.end()));
    }
};

}  // namespace fabricmem::test
