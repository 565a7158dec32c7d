// SPDX-License-Identifier: Apache-2.0
#include "platform/fork_epoch.hpp"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <thread>
#include <vector>

#include "platform/random_id.hpp"
#include "support/test.hpp"

using fabricmem::Id128;
using fabricmem::detail::fork_epoch;
using fabricmem::detail::random_id;

namespace {

// What the child of `make_child` answers, 0 to 255. No assertion runs in the child.
template <typename MakeChild, typename Child>
int answer_of(MakeChild&& make_child, Child&& child) {
    const long process = make_child();
    if (process == 0) ::_exit(child());
    REQUIRE(process > 0);
    int status = 0;
    REQUIRE(::waitpid(static_cast<pid_t>(process), &status, 0) == process);
    REQUIRE(WIFEXITED(status));
    return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("The epoch is one for all threads and changes in every child, however it was forked", "[fork]") {
    const std::uint64_t own = fork_epoch();
    std::uint64_t of_thread = 0;
    std::thread([&of_thread] { of_thread = fork_epoch(); }).join();
    CHECK(of_thread == own);

    const auto is_new = [own] {
        const std::uint64_t here = fork_epoch();
        if (here == own || fork_epoch() != here) return 1;
        const pid_t grandchild = ::fork();
        if (grandchild == 0) ::_exit(fork_epoch() != own && fork_epoch() != here ? 0 : 1);
        int status = 0;
        return ::waitpid(grandchild, &status, 0) == grandchild && status == 0 ? 0 : 1;
    };
    CHECK(answer_of([] { return static_cast<long>(::fork()); }, is_new) == 0);
    // No handler of pthread_atfork() is called here.
    CHECK(answer_of([] { return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr); }, is_new) == 0);
    CHECK(fork_epoch() == own);
}

TEST_CASE("Random ids differ, between threads and from a child's too", "[fork]") {
    std::set<Id128> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(random_id());
    std::vector<Id128> others(100);
    std::thread([&others] {
        for (Id128& id : others) id = random_id();
    }).join();
    seen.insert(others.begin(), others.end());
    CHECK(seen.size() == 1100);

    (void)random_id();  // so that the stock is not empty, and a child inherits it
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    const auto tell = [&pipe] {
        const Id128 id = random_id();
        return ::write(pipe[1], id.bytes.data(), id.bytes.size()) == 16 ? 0 : 1;
    };
    REQUIRE(answer_of([] { return static_cast<long>(::fork()); }, tell) == 0);
    Id128 of_child;
    REQUIRE(::read(pipe[0], of_child.bytes.data(), of_child.bytes.size()) == 16);
    ::close(pipe[0]);
    ::close(pipe[1]);
    std::vector<Id128> mine(64);
    for (Id128& id : mine) id = random_id();
    for (const Id128& id : mine) CHECK(id != of_child);
    CHECK(!of_child.is_zero());
}
