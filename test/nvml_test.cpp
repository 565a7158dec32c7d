// SPDX-License-Identifier: Apache-2.0
// What SystemPlatform makes of NVML's answers, over a fake NVML; and NVML's health mask in words. Needs the modules
// made of support/fake_nvml.cpp; knows no CUDA.
#include <fabricmem/platform.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/fake_nvml.hpp"
#include "support/platform_kit.hpp"
#include "support/test.hpp"

// Files that the build names; an empty one is a test that can't run.
#ifndef FABRICMEM_FAKE_NVML
#define FABRICMEM_FAKE_NVML ""
#endif
#ifndef FABRICMEM_FAKE_NVML_V1
#define FABRICMEM_FAKE_NVML_V1 ""
#endif
#ifndef FABRICMEM_FAKE_NVML_LIBRARY
#define FABRICMEM_FAKE_NVML_LIBRARY ""
#endif

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::string_view kNvml = FABRICMEM_FAKE_NVML;
constexpr std::string_view kNvmlV1 = FABRICMEM_FAKE_NVML_V1;
constexpr std::string_view kNvmlLibrary = FABRICMEM_FAKE_NVML_LIBRARY;

FakeNvml& fresh_nvml(const char* file) {
    void* const module = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(module != nullptr);
    const auto get = reinterpret_cast<FakeNvml* (*)()>(::dlsym(module, kFakeNvml));
    REQUIRE(get != nullptr);
    *get() = FakeNvml{};
    return *get();
}

/// The same library under a name that nobody has loaded yet.
std::string own_copy(const Tree& tree, const char* file) {
    const std::string copy = tree.path("/own-nvml.so");
    std::filesystem::copy_file(file, copy);
    return copy;
}

constexpr std::string_view kBus = "0000:1b:00.0";

void check_place(const FabricInfo& info) {
    CHECK(info.state == FabricInfo::State::completed);
    CHECK(to_string(info.cluster_uuid) == "0102030405060708090a0b0c0d0e0f10");
    CHECK(info.clique == 0x00c0ffee);
}

/// What NVML knows where the fake is as `change` makes it.
template <typename Change>
NvmlFacts facts_after(Change change) {
    change(fresh_nvml(FABRICMEM_FAKE_NVML).control);
    const Tree tree;
    return tree.platform(FABRICMEM_FAKE_NVML)->nvml().value();
}

/// As facts_after, of the first device.
template <typename Change>
NvmlDevice device_after(Change change) {
    const NvmlFacts facts = facts_after(change);
    REQUIRE(facts.devices.size() == 1);
    return facts.devices.front();
}

/// Two devices, of which the second is unlike the first in all.
void be_two(FakeNvml::Control& control) {
    control.devices.emplace_back();
    FakeNvml::Device& other = control.devices.back();
    other.domain = 0xa;
    other.bus = 0xc1;
    other.device = 0x1f;
    other.uuid = "GPU-ffeeddcc-bbaa-9988-7766-554433221100";
    other.name = "NVIDIA B200";
    other.state = 2;
    other.status = 5;
    other.cluster = {};
    other.clique = 9;
    other.health = 0x1aa;
    other.recovery_action = 4;
}

/// Environment of the fake that is a library, for one test.
class FakeNvmlFile {
public:
    explicit FakeNvmlFile(const std::string& path) { ::setenv("FABRICMEM_FAKE_NVML", path.c_str(), 1); }
    FakeNvmlFile(const FakeNvmlFile&) = delete;
    FakeNvmlFile& operator=(const FakeNvmlFile&) = delete;
    ~FakeNvmlFile() { ::unsetenv("FABRICMEM_FAKE_NVML"); }
};

}  // namespace

TEST_CASE("The fabric info is read in the newest layout that NVML knows", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    FakeNvml& fake = fresh_nvml(FABRICMEM_FAKE_NVML);
    const Tree tree;
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    CHECK(fake.inits == 0);  // not before it is asked for
    SECTION("v3") {
        fake.control.status = 3;
        const auto info = platform->fabric_info(kBus);
        REQUIRE(info);
        check_place(*info);
        CHECK(info->status == 3);
        CHECK(info->health_mask == 0xaaU);
    }
    SECTION("v2") {
        fake.control.answers_v3 = false;
        const auto info = platform->fabric_info(kBus);
        REQUIRE(info);
        check_place(*info);
        CHECK(info->health_mask == 0xa9U);
    }
    SECTION("v1") {
        fake.control.answers_v3 = fake.control.answers_v2 = false;
        const auto info = platform->fabric_info(kBus);
        REQUIRE(info);
        check_place(*info);
        CHECK(!info->health_mask);
    }
    SECTION("none") {
        fake.control.answers_v3 = fake.control.answers_v2 = fake.control.answers_v1 = false;
        CHECK(!platform->fabric_info(kBus));
    }
    SECTION("every state") {
        for (int state = 0; state <= 255; ++state) {
            CAPTURE(state);
            fake.control.state = static_cast<std::uint8_t>(state);
            const auto info = platform->fabric_info(kBus);
            CHECK(info.has_value() == (state <= 3));  // looked up anew at each call
            if (info) CHECK(static_cast<int>(info->state) == state);
        }
    }
    SECTION("nonsense status") {
        fake.control.status = -2147483647;
        CHECK(platform->fabric_info(kBus).value().status == -2147483647);
    }
}

TEST_CASE("An NVML of before the versioned call is asked in the old way", "[platform][nvml]") {
    if (kNvmlV1.empty()) FABRICMEM_SKIP("built without the old fake NVML");
    fresh_nvml(FABRICMEM_FAKE_NVML_V1);
    const Tree tree;
    const auto info = tree.platform(FABRICMEM_FAKE_NVML_V1)->fabric_info(kBus);
    REQUIRE(info);
    check_place(*info);
    CHECK(!info->health_mask);
}

TEST_CASE("A device that NVML doesn't know has no fabric info", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    fresh_nvml(FABRICMEM_FAKE_NVML);
    const Tree tree;
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    CHECK(!platform->fabric_info("0000:1c:00.0"));
    CHECK(!platform->fabric_info(""));
    CHECK(!platform->fabric_info(std::string(100000, '0')));
    CHECK(platform->fabric_info(std::string_view("0000:1b:00.0 and more").substr(0, 12)));
}

TEST_CASE("Without a usable NVML there is no fabric info", "[platform][nvml]") {
    const Tree tree;
    CHECK(!tree.platform(kNoNvml)->fabric_info(kBus));
    CHECK(!tree.platform("libm.so.6")->fabric_info(kBus));
    if (kNvml.empty()) return;
    FakeNvml& fake = fresh_nvml(FABRICMEM_FAKE_NVML);
    fake.control.init_result = 9;  // NVML_ERROR_DRIVER_NOT_LOADED
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    CHECK(!platform->fabric_info(kBus));
    CHECK(!platform->fabric_info(kBus));
    CHECK(fake.inits == 1);
    CHECK(fake.calls == 0);
}

TEST_CASE("NVML is initialized once, by whichever thread comes first, and never shut down", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    FakeNvml& fake = fresh_nvml(FABRICMEM_FAKE_NVML);
    fake.control.init_result = 9;  // so that the threads meet in the initialization alone
    {
        const Tree tree;
        const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i) threads.emplace_back([&] { (void)platform->fabric_info(kBus); });
        for (std::thread& thread : threads) thread.join();
        CHECK(fake.inits == 1);
    }
    CHECK(fake.shutdowns == 0);
}

TEST_CASE("A forked child does not touch the parent's NVML, by whichever Platform", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    FakeNvml& fake = fresh_nvml(FABRICMEM_FAKE_NVML);
    const Tree tree;
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    const auto unused = tree.platform(FABRICMEM_FAKE_NVML);
    REQUIRE(platform->fabric_info(kBus));
    const int answer = in_child([&] {
        const int before = fake.calls;
        if (platform->fabric_info(kBus) || platform->nvml()) return 1;
        if (unused->fabric_info(kBus) || unused->nvml()) return 2;  // the parent's NVML all the same
        const auto own = tree.platform(FABRICMEM_FAKE_NVML);
        if (own->fabric_info(kBus) || own->nvml()) return 3;
        return fake.calls == before && fake.inits == 1 ? 0 : 4;
    });
    CHECK(answer == 0);
    CHECK(platform->fabric_info(kBus));
    CHECK(unused->fabric_info(kBus));
}

TEST_CASE("A forked child may use an NVML that its parent has not, and its own child may not", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const Tree tree;
    const std::string library = own_copy(tree, FABRICMEM_FAKE_NVML);
    const auto inherited = tree.platform(library.c_str());
    const int answer = in_child([&] {
        if (!inherited->fabric_info(kBus)) return 1;
        const int grandchild = in_child([&] {
            if (inherited->fabric_info(kBus)) return 1;
            return tree.platform(library.c_str())->nvml() ? 2 : 0;
        });
        return grandchild == 0 ? 0 : 2;
    });
    CHECK(answer == 0);
    CHECK(inherited->fabric_info(kBus));  // the child's use was not the parent's
}

TEST_CASE("NVML's facts are those of each device, found by its numbers", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const NvmlFacts facts = facts_after(be_two);
    CHECK(facts.driver_version == "580.159.04");
    REQUIRE(facts.devices.size() == 2);
    const NvmlDevice& first = facts.devices[0];
    CHECK(first.pci_bus_id == "0000:1B:00.0");
    CHECK(first.name == "NVIDIA H100 80GB HBM3");
    CHECK(to_string(first.uuid) == "202122232425262728292a2b2c2d2e2f");
    REQUIRE(first.fabric);
    check_place(*first.fabric);
    CHECK(first.fabric->health_mask == 0xaaU);
    CHECK(first.recovery_action == 0U);
    const NvmlDevice& second = facts.devices[1];
    CHECK(second.pci_bus_id == "000A:C1:1F.0");
    CHECK(second.name == "NVIDIA B200");
    CHECK(to_string(second.uuid) == "ffeeddccbbaa99887766554433221100");
    REQUIRE(second.fabric);
    CHECK(second.fabric->state == FabricInfo::State::in_progress);
    CHECK(second.fabric->status == 5);
    CHECK(second.fabric->cluster_uuid.is_zero());
    CHECK(second.fabric->clique == 9);
    CHECK(second.fabric->health_mask == 0x1aaU);
    CHECK(second.recovery_action == 4U);
}

TEST_CASE("The fabric info is that of the device that is asked for", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    be_two(fresh_nvml(FABRICMEM_FAKE_NVML).control);
    const Tree tree;
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    const NvmlFacts facts = platform->nvml().value();
    CHECK(facts.devices.size() == 2);
    for (const NvmlDevice& device : facts.devices) {
        CAPTURE(device.pci_bus_id);
        const auto info = platform->fabric_info(device.pci_bus_id);
        REQUIRE(info);
        CHECK(info->clique == device.fabric.value().clique);
    }
}

TEST_CASE("What one of NVML's calls does not answer is not known, and all else is", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const auto without = [](const char* call) {
        return device_after([call](FakeNvml::Control& control) { control.failing = {call}; });
    };
    CHECK(without("nvmlDeviceGetName").name.empty());
    CHECK(without("nvmlDeviceGetName").uuid == without("none").uuid);
    CHECK(without("nvmlDeviceGetUUID").uuid.is_zero());
    CHECK(without("nvmlDeviceGetUUID").name == "NVIDIA H100 80GB HBM3");
    CHECK(!without("nvmlDeviceGetFieldValues").recovery_action);
    CHECK(without("nvmlDeviceGetFieldValues").fabric);
    CHECK(without("nvmlDeviceGetGpuFabricInfoV").fabric.value().health_mask == std::nullopt);
    const NvmlFacts nameless = facts_after([](FakeNvml::Control& control) {
        control.failing = {"nvmlSystemGetDriverVersion", "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetGpuFabricInfo"};
    });
    CHECK(nameless.driver_version.empty());
    REQUIRE(nameless.devices.size() == 1);
    CHECK(!nameless.devices[0].fabric);
    CHECK(nameless.devices[0].recovery_action == 0U);
}

TEST_CASE("A device whose place NVML does not tell is left out", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    for (const char* const call :
         {"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetPciInfo_v3"}) {
        CAPTURE(call);
        const NvmlFacts facts = facts_after([call](FakeNvml::Control& control) { control.failing = {call}; });
        CHECK(facts.devices.empty());
        CHECK(facts.driver_version == "580.159.04");
    }
    const auto devices_at = [](std::uint32_t bus, std::uint32_t device) {
        return facts_after([&](FakeNvml::Control& control) {
                   be_two(control);
                   control.devices[0].bus = bus;
                   control.devices[0].device = device;
               })
            .devices.size();
    };
    CHECK(devices_at(0xff, 0x1f) == 2);
    CHECK(devices_at(0x100, 0) == 1);
    CHECK(devices_at(0, 0x20) == 1);
    // One that is lost has a place in the count and no handle.
    CHECK(facts_after([](FakeNvml::Control& control) { control.count = 3; }).devices.size() == 1);
}

TEST_CASE("A count of devices that no machine has is not believed", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    FakeNvml& fake = fresh_nvml(FABRICMEM_FAKE_NVML);
    const Tree tree;
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    fake.control.count = 1024;
    CHECK(platform->nvml().value().devices.size() == 1);
    for (const std::uint32_t count : {1025U, 0x7fffffffU, 0xffffffffU}) {
        CAPTURE(count);
        fake.control.count = count;
        const int before = fake.calls;
        CHECK(platform->nvml().value().devices.empty());
        CHECK(fake.calls == before + 2);  // the version and the count
    }
}

TEST_CASE("A text of NVML's is cut at its length, and is printable", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const NvmlFacts facts = facts_after([](FakeNvml::Control& control) { control.garbage_texts = true; });
    CHECK(facts.driver_version == "580.159.04" + std::string(70, '?'));
    REQUIRE(facts.devices.size() == 1);
    CHECK(facts.devices[0].name == "NVIDIA H100 80GB HBM3" + std::string(75, '?'));
    CHECK(facts.devices[0].uuid.is_zero());
    const auto name_of = [](const std::string& name) {
        return device_after([&](FakeNvml::Control& control) { control.devices[0].name = name; }).name;
    };
    CHECK(name_of("a\x1b[31m\x7f~ \xc3\xa4\n") == "a?[31m?~ ???");
    CHECK(name_of(std::string(95, 'x')) == std::string(95, 'x'));
    CHECK(name_of(std::string(96, 'x')).empty());  // NVML has no room for it
    CHECK(name_of("").empty());
}

TEST_CASE("A UUID is that of a whole GPU or none", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const auto uuid_of = [](const std::string& uuid) {
        return device_after([&](FakeNvml::Control& control) { control.devices[0].uuid = uuid; }).uuid;
    };
    CHECK(to_string(uuid_of("GPU-20212223-2425-2627-2829-2A2B2C2D2E2F")) == "202122232425262728292a2b2c2d2e2f");
    for (const char* const uuid :
         {"", "GPU-", "MIG-20212223-2425-2627-2829-2a2b2c2d2e2f", "20212223-2425-2627-2829-2a2b2c2d2e2f",
          "GPU-20212223-2425-2627-2829-2a2b2c2d2e2", "GPU-20212223-2425-2627-2829-2a2b2c2d2e2ff",
          "GPU-20212223-2425-2627-2829-2a2b2c2d2e2g", "GPU-00000000-0000-0000-0000-000000000000"}) {
        CAPTURE(uuid);
        CHECK(uuid_of(uuid).is_zero());
    }
}

TEST_CASE("The recovery action is read by the type that NVML says it has", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const auto action = [](int type, std::uint64_t value, int result = 0) {
        return device_after([&](FakeNvml::Control& control) {
                   control.value_type = type;
                   control.field_result = result;
                   control.devices[0].recovery_action = value;
               })
            .recovery_action;
    };
    constexpr std::uint64_t kMarked = 0xbbbbbbbb00000005;  // what lies beyond the value's own bytes is not its
    CHECK(action(1, kMarked) == 5U);
    CHECK(action(2, 5) == 5U);
    CHECK(action(3, 5) == 5U);
    CHECK(action(4, 5) == 5U);
    CHECK(action(5, kMarked) == 5U);
    CHECK(action(6, 0xbbbbbbbbbbbb0005) == 5U);
    CHECK(action(1, 0xffffffff) == 0xffffffffU);
    for (const int type : {2, 3, 4}) {
        CAPTURE(type);
        CHECK(!action(type, std::uint64_t{1} << 32));
    }
    CHECK(!action(4, ~std::uint64_t{0}));
    CHECK(!action(5, ~std::uint64_t{0}));
    for (const int type : {0, 7, 77, -1}) {
        CAPTURE(type);
        CHECK(!action(type, 5));
    }
    CHECK(!action(1, 5, 3));  // NVML_ERROR_NOT_SUPPORTED, of the field alone
}

TEST_CASE("Without a usable NVML nothing is known by it, and an old one knows little", "[platform][nvml]") {
    const Tree tree;
    CHECK(!tree.platform(kNoNvml)->nvml());
    CHECK(!tree.platform("libm.so.6")->nvml());
    if (kNvml.empty() || kNvmlV1.empty()) return;
    fresh_nvml(FABRICMEM_FAKE_NVML).control.init_result = 9;
    CHECK(!tree.platform(FABRICMEM_FAKE_NVML)->nvml());
    fresh_nvml(FABRICMEM_FAKE_NVML_V1);
    const auto facts = tree.platform(FABRICMEM_FAKE_NVML_V1)->nvml();
    REQUIRE(facts);
    CHECK(facts->driver_version.empty());
    REQUIRE(facts->devices.size() == 1);
    CHECK(facts->devices[0].pci_bus_id == "0000:1B:00.0");
    CHECK(facts->devices[0].name.empty());
    CHECK(facts->devices[0].uuid.is_zero());
    check_place(facts->devices[0].fabric.value());
    CHECK(!facts->devices[0].recovery_action);
}

TEST_CASE("The fake libnvidia-ml.so.1 answers as its file says", "[platform][nvml]") {
    if (kNvmlLibrary.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const Tree tree;
    const FakeNvmlFile variable(tree.path("/fake"));
    const auto facts_by = [&](std::string_view text) {
        tree.write("/fake", text);
        return tree.platform(FABRICMEM_FAKE_NVML_LIBRARY)->nvml();
    };
    const auto facts = facts_by(R"(# two devices
driver_version=595.45.04

device=0000:05:00.0
device=0001:c1:02.0
uuid=GPU-ffeeddcc-bbaa-9988-7766-554433221100
name=NVIDIA GB200
state=1
status=7
cluster=ff00000000000000000000000000000e
clique=32766
health=0xa6
recovery_action=5
)");
    REQUIRE(facts);
    CHECK(facts->driver_version == "595.45.04");
    REQUIRE(facts->devices.size() == 2);
    CHECK(facts->devices[0].pci_bus_id == "0000:05:00.0");
    CHECK(facts->devices[0].name == "NVIDIA H100 80GB HBM3");
    const NvmlDevice& second = facts->devices[1];
    CHECK(second.pci_bus_id == "0001:C1:02.0");
    CHECK(to_string(second.uuid) == "ffeeddccbbaa99887766554433221100");
    CHECK(second.name == "NVIDIA GB200");
    CHECK(second.fabric.value().state == FabricInfo::State::not_started);
    CHECK(second.fabric->status == 7);
    CHECK(to_string(second.fabric->cluster_uuid) == "ff00000000000000000000000000000e");
    CHECK(second.fabric->clique == 32766);
    CHECK(second.fabric->health_mask == 0xa6U);
    CHECK(second.recovery_action == 5U);

    CHECK(facts_by("").value().devices.empty());
    CHECK(!facts_by("init_result=9\n"));
    CHECK(facts_by("fail=nvmlDeviceGetName\nfail=nvmlDeviceGetUUID\ndevice=0:1:0.0\n")
              .value()
              .devices.at(0)
              .name.empty());
    CHECK(facts_by("garbage=1\ndevice=0000:05:00.0\n").value().devices.empty());
    CHECK(!facts_by("devices=1\n"));  // a slip in a file is no machine
    CHECK(!facts_by("clique=1\n"));
    CHECK(!facts_by("device=0000:05:00.0\nclique=one\n"));
}

TEST_CASE("A call that the fake's file says hangs does not return", "[platform][nvml]") {
    if (kNvmlLibrary.empty()) FABRICMEM_SKIP("built without the fake NVML");
    const Tree tree;
    const FakeNvmlFile variable(tree.path("/fake"));
    const std::string library = own_copy(tree, FABRICMEM_FAKE_NVML_LIBRARY);
    constexpr int kReturned = 1;
    constexpr int kHung = 2;
    for (const std::string call : {"nvmlInit_v2", "nvmlDeviceGetFieldValues"}) {
        CAPTURE(call);
        tree.write("/fake", "hang=" + call + "\ndevice=0000:05:00.0\n");
        const int answer = in_child([&] {
            ::signal(SIGALRM, [](int) { ::_exit(kHung); });
            constexpr itimerval kSoon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 50'000}};
            ::setitimer(ITIMER_REAL, &kSoon, nullptr);
            static_cast<void>(tree.platform(library.c_str())->nvml());
            return kReturned;
        });
        CHECK(answer == kHung);
    }
}

TEST_CASE("Garbage in all that NVML answers is nothing known", "[platform][nvml]") {
    if (kNvml.empty()) FABRICMEM_SKIP("built without the fake NVML");
    FakeNvml& fake = fresh_nvml(FABRICMEM_FAKE_NVML);
    fake.control.garbage_texts = fake.control.garbage_numbers = true;
    const Tree tree;
    const auto platform = tree.platform(FABRICMEM_FAKE_NVML);
    CHECK(platform->nvml().value().devices.empty());
    CHECK(!platform->fabric_info(kBus));
}

TEST_CASE("Every field of the health mask has its words", "[platform]") {
    struct Row {
        std::uint32_t mask;
        const char* words;
    };
    constexpr Row kHealthy[] = {
        {0, ""},     {0xaa, ""},   {0x1aa, ""},  {0x11aa, ""}, {0x2, ""}, {0x8, ""},  {0x20, ""},       {0x80, ""},
        {0x100, ""}, {0x1000, ""}, {0x3000, ""}, {0x3, ""},    {0xc, ""}, {0xc0, ""}, {0xffffc0aa, ""},
    };
    for (const Row& row : kHealthy) {
        CAPTURE(row.mask);
        CHECK(describe_fabric_health(row.mask) == "healthy");
        CHECK(is_healthy_fabric(row.mask));
    }
    constexpr Row kSick[] = {
        {0x1, "degraded bandwidth"},
        {0xa9, "degraded bandwidth"},
        {0x4, "route recovery in progress"},
        {0xa6, "route recovery in progress"},
        {0x10, "route unhealthy"},
        {0x9a, "route unhealthy"},
        {0x30, "route unhealthy until the GPU is reset"},
        {0x40, "access timeout recovery in progress"},
        {0x6a, "access timeout recovery in progress"},
        {0x2aa, "incorrect system GUID"},
        {0x3aa, "incorrect chassis serial number"},
        {0x4aa, "no partition"},
        {0x5aa, "not enough NVLinks"},
        {0x6aa, "incompatible GPU firmware"},
        {0x7aa, "invalid location"},
        {0x8aa, "invalid GPU state"},
        {0x9aa, "incorrect configuration (9)"},
        {0xfaa, "incorrect configuration (15)"},
        {0x21aa, "no partition assigned"},
        {0x55, "degraded bandwidth, route recovery in progress, route unhealthy, access timeout recovery in progress"},
        {0xffff2599, "degraded bandwidth, route unhealthy, not enough NVLinks, no partition assigned"},
    };
    for (const Row& row : kSick) {
        CAPTURE(row.mask);
        CHECK(describe_fabric_health(row.mask) == row.words);
        CHECK(!is_healthy_fabric(row.mask));
    }
}

TEST_CASE("A Platform that knows nothing says so", "[platform]") {
    const class : public Platform {
    } nothing;
    CHECK(!nothing.kernel_module());
    CHECK(!nothing.nvml());
    CHECK(!nothing.fabric_info(kBus));
    CHECK(nothing.imex_channels().empty());
}
