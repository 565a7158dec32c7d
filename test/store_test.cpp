// SPDX-License-Identifier: Apache-2.0
// The directory store, alone and with what else may lie in its directory, and the URLs of stores.
#include <fabricmem/store.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "support/expect_error.hpp"
#include "support/refused.hpp"
#include "support/store_conformance.hpp"
#include "support/stores.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

void write_file(const std::filesystem::path& path, std::size_t bytes) {
    std::ofstream(path) << std::string(bytes, 'n');
}

}  // namespace

TEST_CASE("A directory store keeps values, replaces and removes them, and leaves no file", "[store]") {
    const TemporaryFolder folder;
    const auto store = make_directory_store((folder.path() / "new").string());
    check_values(*store);
    CHECK(std::filesystem::is_empty(folder.path() / "new"));
    check_limits(*store);
    check_waits(*store);
    CHECK(std::filesystem::is_empty(folder.path() / "new"));
}

TEST_CASE("A directory store's values are seen whole while several write one key", "[store]") {
    const TemporaryFolder folder;
    check_nothing_is_seen_in_part([&] { return make_directory_store(folder.path().string()); });
    CHECK(folder.files() == 0);
}

TEST_CASE("A directory store's files and its new directory are for this user alone", "[store]") {
    const TemporaryFolder folder;
    const auto store = make_directory_store((folder.path() / "new").string());
    store->set("key", bytes_of("x"));
    struct stat about {};
    REQUIRE(::stat((folder.path() / "new").c_str(), &about) == 0);
    CHECK((about.st_mode & 0777U) == 0700U);
    REQUIRE(::stat((folder.path() / "new" / "key").c_str(), &about) == 0);
    CHECK((about.st_mode & 0777U) == 0600U);
}

TEST_CASE("A directory store removes what a killed writer left of a key, and not what a living one is at", "[store]") {
    const TemporaryFolder folder;
    const auto store = make_directory_store(folder.path().string());
    store->set("key", bytes_of("x"));
    const std::filesystem::path dead = folder.path() / ".key~00000000000000000000000000000000";
    const std::filesystem::path other = folder.path() / ".key2~0000000000000000000000000000000";
    const std::filesystem::path living = folder.path() / ".key~11111111111111111111111111111111";
    for (const auto& path : {dead, other, living}) write_file(path, 3);
    const int held = ::open(living.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(held >= 0);
    REQUIRE(::flock(held, LOCK_EX) == 0);
    store->set("key", bytes_of("y"));
    CHECK_FALSE(std::filesystem::exists(dead));
    CHECK(std::filesystem::exists(other));
    CHECK(std::filesystem::exists(living));
    ::close(held);
    CHECK(store->remove("key"));
    CHECK_FALSE(std::filesystem::exists(living));
    CHECK(folder.files() == 1);
}

TEST_CASE("A directory store refuses what is no value: too large, a pipe, a link, a directory", "[store]") {
    const TemporaryFolder folder;
    const auto store = make_directory_store(folder.path().string());
    write_file(folder.path() / "noise", 10'000'000);
    write_file(folder.path() / "largest", Store::kValueBytesMax);
    REQUIRE(::mkfifo((folder.path() / "pipe").c_str(), 0600) == 0);
    std::filesystem::create_symlink("largest", folder.path() / "link");
    std::filesystem::create_directory(folder.path() / "directory");
    for (const char* key : {"noise", "pipe", "link", "directory"}) {
        CAPTURE(key);
        CHECK(kind_of([&] { static_cast<void>(store->try_get(key)); }) == ErrorKind::bad_blob);
    }
    CHECK(store->try_get("largest")->size() == Store::kValueBytesMax);
    store->set("noise", bytes_of("a value again"));
    CHECK(text_of(store->try_get("noise").value()) == "a value again");
}

TEST_CASE("A directory store whose directory can't be used or goes away says so", "[store]") {
    const TemporaryFolder folder;
    write_file(folder.path() / "file", 1);
    CHECK(kind_of([&] { static_cast<void>(make_directory_store("")); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { static_cast<void>(make_directory_store((folder.path() / "file").string())); }) ==
          ErrorKind::system);
    CHECK(kind_of([&] { static_cast<void>(make_directory_store((folder.path() / "no" / "such").string())); }) ==
          ErrorKind::system);
    const auto store = make_directory_store((folder.path() / "gone").string());
    store->set("key", bytes_of("x"));
    std::filesystem::remove_all(folder.path() / "gone");
    CHECK(kind_of([&] { store->set("key", bytes_of("x")); }) == ErrorKind::system);
    CHECK_FALSE(store->try_get("key").has_value());
    CHECK_FALSE(store->wait("key", std::chrono::steady_clock::now() + std::chrono::milliseconds(20)));
}

TEST_CASE("A directory store refuses keys whose file names would be too long", "[store]") {
    const TemporaryFolder folder;
    const auto store = make_directory_store(folder.path().string());
    CHECK(kind_of([&] { store->set(std::string(100, '/'), bytes_of("x")); }) == ErrorKind::bad_argument);
    store->set(std::string(70, '/'), bytes_of("x"));
    CHECK(store->remove(std::string(70, '/')));
}

TEST_CASE("A store without compare_exchange says unsupported", "[store]") {
    const TemporaryFolder folder;
    const auto store = make_directory_store(folder.path().string());
    CHECK_FALSE(store->can_compare_exchange());
    CHECK(kind_of([&] { static_cast<void>(store->compare_exchange("k", std::nullopt, bytes_of("x"))); }) ==
          ErrorKind::unsupported);
    CHECK(folder.files() == 0);
}

TEST_CASE("A store's URL names a directory or a Redis server, and nothing else", "[store]") {
    const TemporaryFolder folder;
    make_store("dir:" + folder.path().string())->set("a", bytes_of("x"));
    CHECK(text_of(make_store(folder.path().string())->try_get("a").value()) == "x");
    for (const char* url : {"", "dir:", "tcp://host:1", "redis://", "redis://host:0", "redis://host:65536",
                            "redis://host:x", "redis://host:", "redis://[::1", "redis://[::1]6379", "redis://a@host"}) {
        CAPTURE(url);
        const auto error = error_of([&] { static_cast<void>(make_store(url)); });
        REQUIRE(error.has_value());
        const bool no_redis = error->kind() == ErrorKind::unsupported;
        CHECK((error->kind() == ErrorKind::bad_argument || no_redis));
    }
}
