// SPDX-License-Identifier: Apache-2.0
#include "warmup/keys.hpp"

#include <errno.h>
#include <stdlib.h>

#include <cstring>
#include <exception>
#include <filesystem>
#include <future>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "common/text.hpp"

namespace warmup {
namespace {

using examples::formatted;

std::vector<std::string> clean_all(const std::string& url, const fabricmem::Id128& job,
                                   const std::vector<bool>& expected_to_clean) {
    std::vector<std::string> left;
    const std::shared_ptr<fabricmem::Store> store = fabricmem::make_store(url);
    for (std::uint32_t rank = 0; rank < expected_to_clean.size(); ++rank) {
        const std::string key = hello_key(job, rank);
        if (store->remove(key) && expected_to_clean[rank])
            left.push_back(formatted("rank {} left its key {} in the store", rank, key));
    }
    return left;
}

}  // namespace

std::string prefix_of(const fabricmem::Id128& job) { return "fabricmem-warmup/" + fabricmem::to_string(job); }

std::string hello_key(const fabricmem::Id128& job, std::uint32_t rank) {
    return formatted("{}/hello/{}", prefix_of(job), rank);
}

fabricmem::Id128 new_job() {
    fabricmem::Id128 job;
    std::random_device random;
    for (std::uint8_t& byte : job.bytes) byte = static_cast<std::uint8_t>(random());
    return job;
}

TemporaryDirectory::TemporaryDirectory()
    : path_((std::filesystem::temp_directory_path() / "fabricmem-warmup-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::system_error(errno, std::generic_category(), "mkdtemp " + path_);
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
    if (error) examples::print(stderr, "fabricmem-warmup: {} stays behind: {}\n", path_, error.message());
}

std::vector<std::string> clean(const std::string& store, const fabricmem::Id128& job,
                               const std::vector<bool>& expected_to_clean, std::chrono::milliseconds patience) {
    std::packaged_task<std::vector<std::string>()> task(
        [store, job, expected_to_clean] { return clean_all(store, job, expected_to_clean); });
    std::future<std::vector<std::string>> cleaned = task.get_future();
    std::thread(std::move(task)).detach();
    if (cleaned.wait_for(patience) != std::future_status::ready)
        return {formatted("the store did not answer within {} ms", patience.count())};
    try {
        return cleaned.get();
    } catch (const std::exception& error) {
        return {formatted("the store can't be asked: {}", error.what())};
    }
}

WatchedStore::WatchedStore(std::shared_ptr<fabricmem::Store> store, std::string key, std::function<void()> on_set)
    : store_(std::move(store)), key_(std::move(key)), on_set_(std::move(on_set)) {}

// The exchange's one thread is the only one that sets.
void WatchedStore::note(const std::string& key) {
    if (on_set_ && key == key_) std::exchange(on_set_, {})();
}

void WatchedStore::set(const std::string& key, std::span<const std::byte> value) {
    store_->set(key, value);
    note(key);
}

std::optional<std::vector<std::byte>> WatchedStore::try_get(const std::string& key) { return store_->try_get(key); }

bool WatchedStore::wait(const std::string& key, std::chrono::steady_clock::time_point deadline) {
    return store_->wait(key, deadline);
}

bool WatchedStore::remove(const std::string& key) { return store_->remove(key); }

bool WatchedStore::can_compare_exchange() const noexcept { return store_->can_compare_exchange(); }

bool WatchedStore::compare_exchange(const std::string& key, std::optional<std::span<const std::byte>> expected,
                                    std::span<const std::byte> desired) {
    const bool there = store_->compare_exchange(key, expected, desired);
    if (there) note(key);
    return there;
}

}  // namespace warmup
