// SPDX-License-Identifier: Apache-2.0
// What the rules do to calls, by code and by environment.
#include <fabricmem/fault_driver.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <thread>

#include <fabricmem/fabric_buffer.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

CUresult ask(Driver& driver) {
    int count = 0;
    return driver.device_get_count(&count);
}

// The variable for the scope.
class Faults {
public:
    explicit Faults(const char* text) { ::setenv("FABRICMEM_FAULTS", text, 1); }
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;
    ~Faults() { ::unsetenv("FABRICMEM_FAULTS"); }
};

}  // namespace

TEST_CASE("Every function of the seam can be named, and is run past the rules", "[fault]") {
    std::ifstream file(FABRICMEM_SOURCE_DIR "/include/fabricmem/driver.hpp");
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const std::regex function("virtual CUresult (\\w+)\\(");
    std::vector<std::string> declared;
    for (std::sregex_iterator found(text.begin(), text.end(), function), end; found != end; ++found)
        declared.push_back((*found)[1]);
    REQUIRE(declared.size() > 60);
    CHECK(FaultDriver::call_names() == declared);

    const std::string header = [] {
        std::ifstream own(FABRICMEM_SOURCE_DIR "/include/fabricmem/fault_driver.hpp");
        return std::string{std::istreambuf_iterator<char>(own), std::istreambuf_iterator<char>()};
    }();
    for (const std::string& name : declared) {
        CAPTURE(name);
        CHECK(header.find("CUresult " + name + "(") != std::string::npos);
    }
}

TEST_CASE("A call fails by its number, by its name in either spelling, or each time", "[fault]") {
    FaultDriver driver(make_emulated_driver());
    driver.add({.call = "cuDeviceGetCount", .number = 2, .result = CUDA_ERROR_UNKNOWN});
    CHECK(ask(driver) == CUDA_SUCCESS);
    int version = 0;
    CHECK(driver.driver_get_version(&version) == CUDA_SUCCESS);
    CHECK(ask(driver) == CUDA_ERROR_UNKNOWN);
    CHECK(ask(driver) == CUDA_SUCCESS);
    CHECK(driver.met() == 1);

    driver.clear();
    driver.add({.number = 2, .result = CUDA_ERROR_NOT_READY});
    CHECK(driver.driver_get_version(&version) == CUDA_SUCCESS);
    CHECK(ask(driver) == CUDA_ERROR_NOT_READY);

    driver.clear();
    driver.add({.call = "device_get_count", .result = CUDA_ERROR_NO_DEVICE});
    driver.add({.result = CUDA_ERROR_UNKNOWN});  // the first failure counts
    CHECK(ask(driver) == CUDA_ERROR_NO_DEVICE);
    CHECK(driver.driver_get_version(&version) == CUDA_ERROR_UNKNOWN);
    driver.forget();
    driver.clear();
    CHECK(ask(driver) == CUDA_SUCCESS);
    CHECK(driver.calls() == std::vector<std::string>{"device_get_count"});
    CHECK(driver.met() == 0);
}

TEST_CASE("A failing call that gives something back gives it back all the same", "[fault]") {
    const auto emulated = make_emulated_driver();
    FaultDriver driver(emulated);
    CUdeviceptr address = 0;
    REQUIRE(driver.mem_address_reserve(&address, 2 * kMiB, 0, 0, 0) == CUDA_SUCCESS);
    driver.add({.call = "mem_address_free", .result = CUDA_ERROR_UNKNOWN});
    CHECK(driver.mem_address_free(address, 2 * kMiB) == CUDA_ERROR_UNKNOWN);
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
    driver.add({.call = "mem_address_reserve", .result = CUDA_ERROR_UNKNOWN});
    CHECK(driver.mem_address_reserve(&address, 2 * kMiB, 0, 0, 0) == CUDA_ERROR_UNKNOWN);
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("A probability meets about its share of the calls, the same ones for the same seed", "[fault]") {
    const auto met_of = [](std::uint64_t seed, double probability) {
        FaultDriver driver(make_emulated_driver(), seed);
        driver.add({.call = "device_get_count", .probability = probability, .result = CUDA_ERROR_UNKNOWN});
        std::vector<bool> met;
        for (int i = 0; i < 2000; ++i) met.push_back(ask(driver) != CUDA_SUCCESS);
        return met;
    };
    const std::vector<bool> some = met_of(7, 0.25);
    const auto count = std::count(some.begin(), some.end(), true);
    CHECK(count > 400);
    CHECK(count < 600);
    CHECK(met_of(7, 0.25) == some);
    CHECK(met_of(8, 0.25) != some);
    CHECK(met_of(7, 0) == std::vector<bool>(2000, false));
    CHECK(met_of(7, 1) == std::vector<bool>(2000, true));
}

TEST_CASE("A hanging call returns when it is told to, and is made then", "[fault]") {
    FaultDriver driver(make_emulated_driver());
    driver.add({.effect = Fault::Effect::hang, .call = "device_get_count", .number = 1});
    driver.add({.effect = Fault::Effect::delay, .call = "device_get_count", .delay = std::chrono::microseconds(1)});
    CUresult result = CUDA_ERROR_UNKNOWN;
    std::thread stuck([&] { result = ask(driver); });
    REQUIRE(driver.wait_until_hanging(1, std::chrono::seconds(60)));
    CHECK(ask(driver) == CUDA_SUCCESS);  // the second one does not
    CHECK(driver.hanging() == 1);
    driver.end_hangs();
    stuck.join();
    CHECK(result == CUDA_SUCCESS);
    CHECK(driver.hanging() == 0);

    driver.clear();
    driver.add({.effect = Fault::Effect::delay, .delay = std::chrono::hours(1)});
    std::thread late([&] { result = ask(driver); });
    while (driver.met() == 0) std::this_thread::yield();
    driver.clear();  // ends a delay too
    late.join();
    CHECK(result == CUDA_SUCCESS);
    CHECK_FALSE(driver.wait_until_hanging(1, std::chrono::milliseconds(1)));
}

TEST_CASE("Taking the rules back ends a hang that is still to come", "[fault]") {
    FaultDriver driver(make_emulated_driver());
    driver.add({.effect = Fault::Effect::delay, .call = "device_get_count", .delay = std::chrono::hours(1)});
    driver.add({.effect = Fault::Effect::hang, .call = "device_get_count"});
    CUresult result = CUDA_ERROR_UNKNOWN;
    std::thread late([&] { result = ask(driver); });
    while (driver.met() < 2) std::this_thread::yield();
    driver.clear();
    late.join();
    CHECK(result == CUDA_SUCCESS);
    CHECK(driver.hanging() == 0);
}

TEST_CASE("A driver that ends waits for calls that are late, and ends their delay", "[fault]") {
    const auto emulated = make_emulated_driver();
    for (const Fault::Effect effect : {Fault::Effect::delay, Fault::Effect::hang}) {
        auto driver = std::make_unique<FaultDriver>(emulated);
        driver->add({.effect = effect, .delay = std::chrono::hours(effect == Fault::Effect::delay ? 1 : 0)});
        CUresult result = CUDA_ERROR_UNKNOWN;
        std::thread late([&result, calls = driver.get()] { result = ask(*calls); });
        while (driver->met() == 0) std::this_thread::yield();
        driver.reset();
        late.join();
        CHECK(result == CUDA_SUCCESS);
    }
}

TEST_CASE("The last calls are kept, not all of a long life", "[fault]") {
    FaultDriver driver(make_emulated_driver());
    int version = 0;
    driver.driver_get_version(&version);
    for (std::size_t i = 0; i < FaultDriver::kCallsKept - 1; ++i) ask(driver);
    CHECK(driver.calls().size() == FaultDriver::kCallsKept);
    CHECK(driver.calls().front() == "driver_get_version");
    driver.driver_get_version(&version);
    CHECK(driver.calls().size() == FaultDriver::kCallsKept);
    CHECK(driver.calls().front() == "device_get_count");
    CHECK(driver.calls().back() == "driver_get_version");
    driver.forget();
    CHECK(driver.calls().empty());
}

TEST_CASE("The k-th call of all threads together meets the rule, and no other", "[fault][threads]") {
    FaultDriver driver(make_emulated_driver());
    driver.add({.call = "device_get_count", .number = 1500, .result = CUDA_ERROR_UNKNOWN});
    std::atomic<int> failed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 500; ++i) failed += ask(driver) == CUDA_ERROR_UNKNOWN ? 1 : 0;
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(failed == 1);
    CHECK(driver.met() == 1);
}

TEST_CASE("In a child of fork() calls pass the rules by, and a hang of the parent's is not waited for",
          "[fault][fork]") {
    auto driver = std::make_unique<FaultDriver>(make_emulated_driver());
    driver->add({.effect = Fault::Effect::hang, .call = "device_get_count"});
    std::thread stuck([calls = driver.get()] { ask(*calls); });
    REQUIRE(driver->wait_until_hanging(1, std::chrono::seconds(60)));
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::alarm(60);  // one that hangs dies
        const CUresult result = ask(*driver);
        driver.reset();
        ::_exit(result == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    driver->end_hangs();
    stuck.join();
}

TEST_CASE("A rule that can't be is refused", "[fault]") {
    FaultDriver driver(make_emulated_driver());
    CHECK(kind_of([&] { driver.add({.call = "mem_creat"}); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { driver.add({.probability = 1.5}); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { driver.add({.probability = std::nan("")}); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { driver.add({.delay = std::chrono::microseconds(-1)}); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { driver.add({.delay = std::chrono::microseconds::max()}); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { driver.add({.result = CUDA_SUCCESS}); }) == ErrorKind::bad_argument);
    CHECK(kind_of([] { FaultDriver(nullptr); }) == ErrorKind::bad_argument);
    CHECK(ask(driver) == CUDA_SUCCESS);
}

TEST_CASE("The environment sets rules, for the real driver too", "[fault][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CHECK(with_faults_from_environment(driver) == driver);
    const Faults faults("cuMemCreate#2=fail:2; *%0=hang ;; mem_map=delay:1; seed=9");
    const auto faulty = with_faults_from_environment(driver);
    REQUIRE(faulty != driver);
    CHECK(faulty->name() == driver->name());
    CHECK_NOTHROW(FabricBuffer(faulty, 1));
    CHECK(kind_of([&] { FabricBuffer(faulty, 1); }) == ErrorKind::out_of_memory);
    CHECK_NOTHROW(FabricBuffer(faulty, 1));
}

TEST_CASE("A wrong rule in the environment is named", "[fault]") {
    const auto driver = make_emulated_driver();
    for (const char* text :
         {"mem_create", "=fail", "mem_creat=fail", "mem_create=break", "mem_create=fail:", "mem_map=fail:0",
          "mem_map=fail:x", "mem_map=fail:-1", "mem_map=fail:1000", "FABRICMEM_FAULTS=fail", "mem_map=delay",
          "mem_map=hang:3", "mem_map#0=fail", "mem_map#=fail", "mem_map%2=fail", "mem_map%=fail", "seed=x"}) {
        CAPTURE(text);
        const Faults faults(text);
        const auto error = error_of([&] { static_cast<void>(with_faults_from_environment(driver)); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::bad_argument);
        CHECK(contains(error->what(), "FABRICMEM_FAULTS"));
        CHECK(contains(error->what(), text));
    }
    const Faults none("  ");
    CHECK(with_faults_from_environment(driver) == driver);
}
