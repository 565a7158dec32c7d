// SPDX-License-Identifier: Apache-2.0
// The run's place to meet: whose keys are whose, a directory of its own where no store was named, what is left in it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fabricmem/store.hpp>
#include <fabricmem/types.hpp>

namespace warmup {

/// Of all keys of a run.
[[nodiscard]] std::string prefix_of(const fabricmem::Id128& job);
/// Where StoreExchange puts a rank's hello.
[[nodiscard]] std::string hello_key(const fabricmem::Id128& job, std::uint32_t rank);

/// Another one for every run.
[[nodiscard]] fabricmem::Id128 new_job();

/// An empty directory that goes with the object, whatever is in it by then.
class TemporaryDirectory {
public:
    /// In TMPDIR, or /tmp. Throws std::system_error.
    TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory();

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    std::string path_;
};

/// What is still in the store, as a sentence for each: keys of those of whom `expected_to_clean` says that they removed
/// their own, and why the store can't be asked. Removes all of the run's keys. Takes no longer than `patience`: a store
/// that hangs then is left to a thread that nobody waits for.
[[nodiscard]] std::vector<std::string> clean(const std::string& store, const fabricmem::Id128& job,
                                             const std::vector<bool>& expected_to_clean,
                                             std::chrono::milliseconds patience);

/// A store that tells when it has taken a key's value for the first time.
class WatchedStore final : public fabricmem::Store {
public:
    /// `on_set` is called by the thread that set the key.
    WatchedStore(std::shared_ptr<fabricmem::Store> store, std::string key, std::function<void()> on_set);

    void set(const std::string& key, std::span<const std::byte> value) override;
    [[nodiscard]] std::optional<std::vector<std::byte>> try_get(const std::string& key) override;
    [[nodiscard]] bool wait(const std::string& key, std::chrono::steady_clock::time_point deadline) override;
    bool remove(const std::string& key) override;
    [[nodiscard]] bool can_compare_exchange() const noexcept override;
    [[nodiscard]] bool compare_exchange(const std::string& key, std::optional<std::span<const std::byte>> expected,
                                        std::span<const std::byte> desired) override;

private:
    void note(const std::string& key);

    const std::shared_ptr<fabricmem::Store> store_;
    const std::string key_;
    std::function<void()> on_set_;  // empty once it was called
};

}  // namespace warmup
