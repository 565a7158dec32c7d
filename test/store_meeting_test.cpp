// SPDX-License-Identifier: Apache-2.0
// Real handshakes through a real store: a directory.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fabricmem/handshake.hpp>
#include <fabricmem/store.hpp>
#include <fabricmem/store_exchange.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/meeting.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::chrono::seconds kPatience{60};

class Directory {
public:
    Directory() {
        std::string name = "/tmp/fabricmem-meeting-XXXXXX";
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Directory() { std::filesystem::remove_all(path); }
    [[nodiscard]] std::size_t files() const {
        std::size_t count = 0;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) count += entry.is_regular_file();
        return count;
    }
    std::string path;
};

struct Rank {
    Rank(const std::shared_ptr<Driver>& driver, const std::string& path, std::uint32_t number, std::uint32_t count)
        : handshake(std::make_shared<Handshake>(driver, HandshakeOptions{.rank = number, .world_size = count})),
          exchange(make_directory_store(path), handshake, {.prefix = "job"}) {}

    std::shared_ptr<Handshake> handshake;
    StoreExchange exchange;
};

}  // namespace

TEST_CASE("Ranks meet through a directory, one comes back, and no key is left", "[store][handshake][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Directory directory;
    constexpr std::uint32_t kRanks = 4;
    std::vector<std::unique_ptr<Rank>> ranks;
    for (std::uint32_t i = 0; i < kRanks; ++i)
        ranks.push_back(std::make_unique<Rank>(driver, directory.path, i, kRanks));
    const auto meet = [&] {
        std::vector<HandshakeReport> reports(kRanks);
        std::vector<std::thread> threads;
        for (std::uint32_t i = 0; i < kRanks; ++i)
            threads.emplace_back([&, i] { reports[i] = ranks[i]->exchange.wait(soon(kPatience)); });
        for (std::thread& thread : threads) thread.join();
        return reports;
    };
    for (const HandshakeReport& report : meet()) {
        INFO(report.describe());
        CHECK(report.connected == kRanks - 1);
    }
    CHECK(directory.files() == kRanks);
    // Rank 2's process would be killed here: its key stays, and its next life replaces that.
    const std::uint64_t first_life = ranks[2]->handshake->incarnation();
    auto stale = std::move(ranks[2]);
    ranks[2] = std::make_unique<Rank>(driver, directory.path, 2, kRanks);
    std::vector<std::thread> others;
    std::atomic<bool> found{false};
    for (const std::uint32_t i : {0U, 1U, 3U}) {
        others.emplace_back([&, i] {
            const auto deadline = soon(kPatience);
            while (std::chrono::steady_clock::now() < deadline && !found) {
                static_cast<void>(ranks[i]->exchange.poll());
                std::this_thread::yield();
            }
        });
    }
    const HandshakeReport again = ranks[2]->exchange.wait(soon(kPatience));
    INFO(again.describe());
    CHECK(again.connected == kRanks - 1);
    found = true;
    for (std::thread& thread : others) thread.join();
    CHECK(ranks[0]->handshake->peer(2).incarnation != first_life);
    // The former one, which was not killed after all, learns of it when it looks at its key again.
    std::optional<Error> told;
    for (const auto deadline = soon(kPatience); !told.has_value() && std::chrono::steady_clock::now() < deadline;)
        told = error_of([&] { static_cast<void>(stale->exchange.poll()); });
    REQUIRE(told.has_value());
    CHECK(told->kind() == ErrorKind::conflict);
    stale.reset();
    for (auto& rank : ranks) rank->exchange.close();
    CHECK(directory.files() == 0);
}
