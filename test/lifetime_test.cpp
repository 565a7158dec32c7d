// SPDX-License-Identifier: Apache-2.0
// Threads, fork and exit: what must not crash, hang or free twice.
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/forwarding_driver.hpp>
#include <fabricmem/probe.hpp>

#include "support/buffers.hpp"
#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("Many threads read one buffer while others make and drop their own", "[buffer][threads][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer shared(driver, 100, {.location = Location::host_numa(0)});
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 20; ++i) {
                if (shared.bytes() != 100 || shared.blob().bytes != 100 || !shared.access().host) ++wrong;
                try {
                    FabricBuffer own(driver, 1,
                                     {.location = t % 2 == 0 ? Location::device(0) : Location::host_numa(0),
                                      .retire_address = t % 4 == 0 ? RetireAddress::yes : RetireAddress::no});
                    ImportedFabricBuffer imported(driver, shared.blob());
                    FabricBuffer moved = std::move(own);
                    if (moved.address() == imported.address()) ++wrong;
                    if (moved.close() != CloseResult::released) ++wrong;
                } catch (const Error& error) {
                    UNSCOPED_INFO(error.what());
                    ++wrong;
                }
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
}

TEST_CASE("A closed buffer can be replaced by another thread's", "[buffer][threads]") {
    const auto driver = make_emulated_driver();
    std::optional<FabricBuffer> buffer;
    std::thread([&] { buffer.emplace(driver, 1); }).join();
    std::thread([&] { CHECK(buffer->close() == CloseResult::released); }).join();
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}

namespace {

// Exit codes of the forked child.
constexpr int kAllWell = 0;
constexpr int kCalledTheDriver = 11;
constexpr int kNoTypedError = 12;

// Counts what reaches the driver: in the child that has to be nothing.
class Tripwire : public ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;
    CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override {
        return ++calls, ForwardingDriver::mem_unmap(address, bytes);
    }
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override {
        return ++calls, ForwardingDriver::mem_release(handle);
    }
    CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept override {
        return ++calls, ForwardingDriver::mem_address_free(address, bytes);
    }
    CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                            CUmemAllocationHandleType type,
                                            unsigned long long flags) noexcept override {
        return ++calls, ForwardingDriver::mem_export_to_shareable_handle(shareable, handle, type, flags);
    }
    std::atomic<int> calls{0};
};

template <typename Action>
bool refused_in_child(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.kind() == ErrorKind::unsupported && contains(error.what(), "fork");
    }
    return false;
}

int in_child(const std::shared_ptr<Tripwire>& driver, FabricBuffer& own, FabricBuffer& closed,
             std::optional<ImportedFabricBuffer>& imported, ImportedFabricBuffer& closed_import, bool& torn_down) {
    const HandleBlob blob = own.blob();
    if (!refused_in_child([&] { static_cast<void>(own.export_again()); })) return kNoTypedError;
    { const FabricBuffer dying = std::move(own); }
    imported.reset();
    if (driver->calls != 0 || torn_down) return kCalledTheDriver;
    if (!refused_in_child([&] { closed.close(); })) return kNoTypedError;
    if (!refused_in_child([&] { closed_import.close(); })) return kNoTypedError;
    if (!refused_in_child([&] { FabricBuffer(driver, 1); })) return kNoTypedError;
    if (!refused_in_child([&] { static_cast<void>(import_if_alive(driver, blob)); })) return kNoTypedError;
    const ProbeResult probed = probe(driver, Location::device(0));
    if (probed.usable() || probed.why_not->kind() != ErrorKind::unsupported) return kNoTypedError;
    if (!refused_in_child([&] { ImportedFabricBuffer(driver, blob); })) return kNoTypedError;
    return driver->calls == 0 ? kAllWell : kCalledTheDriver;
}

// The exit code of a forked child; -1 where it was killed. A child that hangs is killed at the deadline.
int wait_for_child(pid_t child) {
    const int life = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));
    if (life >= 0) {
        pollfd ended{life, POLLIN, 0};
        if (::poll(&ended, 1, 60'000) != 1) ::kill(child, SIGKILL);
        ::close(life);
    }
    int status = 0;
    if (::waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("After fork the child's buffers do nothing and its calls are typed errors", "[buffer][fork][each]") {
    FABRICMEM_DRIVER_OR_SKIP(real);
    const auto driver = std::make_shared<Tripwire>(real);
    bool torn_down = false;
    FabricBuffer own(driver, 1, {.location = Location::host_numa(0), .before_tear_down = [&](const BufferInfo&) {
                                     torn_down = true;
                                 }});
    FabricBuffer closed(driver, 1);
    std::optional<ImportedFabricBuffer> imported(std::in_place, driver, own.blob());
    ImportedFabricBuffer closed_import(driver, own.blob());
    driver->calls = 0;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(in_child(driver, own, closed, imported, closed_import, torn_down));
    CHECK(wait_for_child(child) == kAllWell);
    // The parent's are as they were.
    static_cast<char*>(own.address())[0] = 1;
    CHECK(static_cast<char*>(imported->address())[0] == 1);
    imported.reset();
    closed_import.close();
    CHECK(own.close() == CloseResult::released);
    CHECK(torn_down);
}

TEST_CASE("A process that ends with live buffers in statics and threads ends well", "[buffer][exit][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const char* const how : {"return", "exit", "quick"}) {
        CAPTURE(how);
        ChildProcess process({FABRICMEM_TEST_EXIT, how});
        CHECK(process.wait(in_seconds(60)) == Ended{0, 0});
    }
}
