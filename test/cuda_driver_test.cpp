// SPDX-License-Identifier: Apache-2.0
// CudaDriver over fake libcudas: what it looks up, what it calls, and what it says where there is no driver. Needs the
// modules made of support/fake_libcuda.cpp; knows no GPU.
#include <fabricmem/cuda_driver.hpp>

#include <array>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fabricmem/error.hpp>
#include <fabricmem/forwarding_driver.hpp>
#include <fabricmem/platform.hpp>

#include "support/fake_libcuda.hpp"
#include "support/test.hpp"

#if __has_include(<cudaTypedefs.h>)
#include <cudaTypedefs.h>
#define FABRICMEM_HAVE_CUDA_TYPEDEFS
#endif

// Files that the build names; an empty one is a test that can't run.
#ifndef FABRICMEM_FAKE_LIBCUDA
#define FABRICMEM_FAKE_LIBCUDA ""
#endif
#ifndef FABRICMEM_FAKE_LIBCUDA_OLD
#define FABRICMEM_FAKE_LIBCUDA_OLD ""
#endif
#ifndef FABRICMEM_CUDA_STUB
#define FABRICMEM_CUDA_STUB ""
#endif
#ifndef FABRICMEM_NM
#define FABRICMEM_NM ""
#endif
#ifndef FABRICMEM_LIBRARY_FILE
#define FABRICMEM_LIBRARY_FILE ""
#endif

using namespace fabricmem;

namespace {

constexpr std::string_view kFake = FABRICMEM_FAKE_LIBCUDA;
constexpr std::string_view kOldFake = FABRICMEM_FAKE_LIBCUDA_OLD;
constexpr std::string_view kStub = FABRICMEM_CUDA_STUB;

/// The fake as the library will load it, with everything as at the start.
FakeLibcuda& fresh_fake() {
    void* const module = ::dlopen(FABRICMEM_FAKE_LIBCUDA, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(module != nullptr);
    const auto get = reinterpret_cast<FakeLibcuda* (*)()>(::dlsym(module, kFakeLibcuda));
    REQUIRE(get != nullptr);
    *get() = FakeLibcuda{};
    return *get();
}

/// A machine of which this much is known, whatever this one is like.
class Machine : public Platform {
public:
    [[nodiscard]] std::optional<NvmlFacts> nvml() const override { return facts; }
    [[nodiscard]] std::optional<KernelModule> kernel_module() const override { return module; }

    std::optional<NvmlFacts> facts;
    std::optional<KernelModule> module;
};

std::shared_ptr<Machine> machine_with_gpus(std::size_t count) {
    auto machine = std::make_shared<Machine>();
    machine->facts = NvmlFacts{.driver_version = "580.159.04", .devices = std::vector<NvmlDevice>(count)};
    machine->module = KernelModule{.version = "580.159.04"};
    return machine;
}

/// The error of make_cuda_driver, which must not succeed.
Error error_of(std::string_view library, std::shared_ptr<const Platform> machine = std::make_shared<Machine>()) {
    try {
        (void)make_cuda_driver({.library = std::string(library), .platform = std::move(machine)});
    } catch (const Error& error) {
        return error;
    }
    FAIL("no error");
    return Error({});
}

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

/// Sets or, with nullptr, unsets CUDA_VISIBLE_DEVICES for a while.
class VisibleDevices {
public:
    explicit VisibleDevices(const char* value) {
        if (const char* const before = std::getenv(kName)) before_ = before;
        set(value);
    }
    VisibleDevices(const VisibleDevices&) = delete;
    VisibleDevices& operator=(const VisibleDevices&) = delete;
    ~VisibleDevices() { set(before_ ? before_->c_str() : nullptr); }

private:
    static constexpr const char* kName = "CUDA_VISIBLE_DEVICES";
    static void set(const char* value) { value == nullptr ? ::unsetenv(kName) : ::setenv(kName, value, 1); }
    std::optional<std::string> before_;
};

/// A value of this type that no other place in an argument list gets.
template <typename Value>
Value argument(int place) {
    if constexpr (std::is_pointer_v<Value>)
        return reinterpret_cast<Value>(static_cast<std::uintptr_t>(0x7000 + place));
    else if constexpr (std::is_enum_v<Value>)
        return static_cast<Value>(1);  // a value that every enumeration can hold
    else
        return static_cast<Value>(17 + place);
}

template <typename... Args, int... Places>
CUresult call_with(Driver& driver, CUresult (Driver::*function)(Args...) noexcept,
                   std::vector<std::uint64_t>& arguments, std::integer_sequence<int, Places...>) {
    arguments = {as_number(argument<Args>(Places))...};
    return (driver.*function)(argument<Args>(Places)...);
}

/// Calls `driver` with an argument of its own at each place.
template <typename... Args>
CUresult call(Driver& driver, CUresult (Driver::*function)(Args...) noexcept, std::vector<std::uint64_t>& arguments) {
    return call_with(driver, function, arguments, std::make_integer_sequence<int, sizeof...(Args)>{});
}

/// Checks that the seam's function reached the entry point at `index` of the table, with its arguments as they are.
template <typename Function>
void check_call(FakeLibcuda& fake, Driver& driver, Function function, std::string_view entry, int index) {
    INFO(entry);
    std::vector<std::uint64_t> arguments;
    const int before = fake.calls;
    const CUresult result = call(driver, function, arguments);
    CHECK(fake.calls == before + 1);
    CHECK(static_cast<int>(result) == (entry == "cuInit" ? 0 : FakeLibcuda::kFirstResult + index));
    CHECK(fake.last.name == entry);
    CHECK(std::vector<std::uint64_t>(fake.last.arguments, fake.last.arguments + fake.last.count) == arguments);
}

int check_all_calls(FakeLibcuda& fake, Driver& driver) {
    int index = 0;
#define CHECK_CALL(seam, entry, version) check_call(fake, driver, &Driver::seam, #entry, index++);
    FABRICMEM_TEST_CUDA_CALLS(CHECK_CALL)
#undef CHECK_CALL
    return index;
}

/// A stand-in that overrides no call.
class Bare final : public Driver {
public:
    [[nodiscard]] std::string_view name() const noexcept override { return "bare"; }
    [[nodiscard]] const Platform& platform() const noexcept override { return platform_; }

private:
    Platform platform_;
};

#if defined(FABRICMEM_HAVE_CUDA_TYPEDEFS)
// The entry point of that version has the signature that cuda.h declares.
#define SAME_SIGNATURE(seam, entry, version) \
    static_assert(std::is_same_v<PFN_##entry##_v##version, decltype(&::entry)>);
FABRICMEM_TEST_CUDA_CALLS(SAME_SIGNATURE)
#undef SAME_SIGNATURE
#endif

}  // namespace

TEST_CASE("Where there is no libcuda the error says what the loader says, and the cure", "[driver]") {
    const Error error = error_of("libno-such-cuda.so.7");
    CHECK(error.kind() == ErrorKind::unsupported);
    CHECK(error.code() == 0);
    CHECK(error.details().check == "FM-DRIVER-001");
    CHECK(has(error.what(), "dlopen (libno-such-cuda.so.7) failed"));
    CHECK(has(error.details().cause, "cannot open shared object file"));
    CHECK(has(error.details().cure, "--gpus"));
}

TEST_CASE("The toolkit's stub is told from a driver", "[driver]") {
    if (kStub.empty()) FABRICMEM_SKIP("the CUDA Toolkit's lib64/stubs/libcuda.so is not here");
    const Error error = error_of(kStub);
    CHECK(error.kind() == ErrorKind::unsupported);
    CHECK(error.code() == 34);
    CHECK(has(error.details().cause, "stub"));
    CHECK(has(error.details().cure, "LD_LIBRARY_PATH"));
}

TEST_CASE("A stub that answers only in cuInit is told from a driver too", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    fresh_fake().control.init_result = 34;
    const Error error = error_of(kFake);
    CHECK(error.kind() == ErrorKind::unsupported);
    CHECK(has(error.details().cause, "stub"));
}

TEST_CASE("A library that is not libcuda is refused by name", "[driver]") {
    const Error error = error_of("libm.so.6");
    CHECK(error.kind() == ErrorKind::unsupported);
    CHECK(has(error.what(), "libm.so.6 is not the CUDA driver"));
    CHECK(has(error_of("").what(), "the program itself is not the CUDA driver"));
}

TEST_CASE("A driver of before CUDA 12.0 is too old, and the error says its version", "[driver]") {
    if (kOldFake.empty()) FABRICMEM_SKIP("built without the old fake libcuda");
    const Error error = error_of(kOldFake);
    CHECK(error.kind() == ErrorKind::unsupported);
    CHECK(has(error.what(), "too old"));
    CHECK(has(error.what(), "CUDA 11.8"));
    CHECK(error.details().check == "FM-DRIVER-002");
    CHECK(has(error.details().cure, "install a driver of CUDA 12.0 or later"));
}

TEST_CASE("All functions that a driver lacks are named, and its version", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    FakeLibcuda& fake = fresh_fake();
    fake.control.lacks = "cuMemRetainAllocationHandle";
    fake.control.too_new = "cuStreamWriteValue32";
    fake.control.null_success = "cuGraphDestroy";
    const Error error = error_of(kFake);
    CHECK(error.kind() == ErrorKind::unsupported);
    CHECK(has(error.what(), "lacks cuMemRetainAllocationHandle, cuStreamWriteValue32, cuGraphDestroy"));
    CHECK(has(error.what(), "CUDA 12.5"));
    CHECK(error.details().check == "FM-DRIVER-002");
    CHECK(has(error.details().cure, "install a driver of CUDA 12.0 or later"));
    CHECK(fake.calls == 0);  // nothing is called before everything is there
}

TEST_CASE("No device: the error tells hidden GPUs from none", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    fresh_fake().control.init_result = 100;
    SECTION("hidden") {
        for (const std::string value : {"", "3", "-1"}) {
            const VisibleDevices visible(value.c_str());
            const Error error = error_of(kFake);
            CHECK(error.kind() == ErrorKind::unsupported);
            CHECK(error.code() == 100);
            CHECK(has(error.details().cause, "CUDA_VISIBLE_DEVICES=\"" + value + "\" hides"));
            CHECK(has(error.details().cure, "CUDA_VISIBLE_DEVICES"));
        }
    }
    SECTION("hidden, and NVML counts them") {
        const VisibleDevices visible("-1");
        const Error error = error_of(kFake, machine_with_gpus(8));
        CHECK(error.details().check == "FM-DRIVER-004");
        CHECK(has(error.details().cause, "CUDA_VISIBLE_DEVICES=\"-1\" hides all 8 GPUs"));
    }
    SECTION("none") {
        const VisibleDevices visible(nullptr);
        for (const auto& machine : {std::make_shared<Machine>(), machine_with_gpus(0)}) {
            const Error error = error_of(kFake, machine);
            CHECK(error.kind() == ErrorKind::unsupported);
            CHECK(error.details().check == "FM-DRIVER-003");
            CHECK(has(error.details().cause, "no NVIDIA GPU"));
            CHECK(!has(error.what(), "CUDA_VISIBLE_DEVICES"));
        }
    }
    SECTION("there, and not openable") {
        const VisibleDevices visible(nullptr);
        const Error error = error_of(kFake, machine_with_gpus(1));
        CHECK(error.kind() == ErrorKind::unsupported);
        CHECK(error.details().check == "FM-DRIVER-006");
        CHECK(has(error.details().cause, "NVML sees 1 GPUs and CUDA none"));
    }
}

TEST_CASE("A failed cuInit names its cause and the cure", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    struct Row {
        int code;
        ErrorKind kind;
        const char* cause;
        const char* cure;
    };
    const std::array<Row, 5> rows{{{3, ErrorKind::unsupported, "fork()", "exec"},
                                   {802, ErrorKind::system, "Fabric Manager", "nvidia-fabricmanager"},
                                   {803, ErrorKind::system, "/proc/driver/nvidia/version", "reboot"},
                                   {804, ErrorKind::system, "cuda-compat", "LD_LIBRARY_PATH"},
                                   {999, ErrorKind::driver, "likely", "nvidia-modprobe"}}};
    for (const Row& row : rows) {
        CAPTURE(row.code);
        fresh_fake().control.init_result = row.code;
        const Error error = error_of(kFake);
        CHECK(error.kind() == row.kind);
        CHECK(error.code() == row.code);
        CHECK(error.details().call == "cuInit");
        CHECK(has(error.details().subject, kFake));
        CHECK(has(error.details().cause, row.cause));
        CHECK(has(error.details().cure, row.cure));
    }
    fresh_fake().control.init_result = 803;
    CHECK(has(error_of(kFake, machine_with_gpus(1)).details().cause, "the module's is 580.159.04"));
    fresh_fake().control.init_result = 2;
    CHECK(error_of(kFake).kind() == ErrorKind::driver);
    CHECK(error_of(kFake).details().cause.empty());
}

TEST_CASE("After a failure make_cuda_driver can be called again", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    fresh_fake().control.init_result = 802;
    CHECK(error_of(kFake).code() == 802);
    FakeLibcuda& fake = fresh_fake();
    const auto driver = make_cuda_driver({.library = std::string(kFake)});
    CHECK(driver->name() == "cuda");
    CHECK(fake.calls == 1);
    CHECK(fake.last.name == "cuInit");
    CHECK(fake.last.arguments[0] == 0);
}

TEST_CASE("Functions are looked up for the legacy default stream", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    FakeLibcuda& fake = fresh_fake();
    (void)make_cuda_driver({.library = std::string(kFake)});
    CHECK(fake.lookup_flags == 1);  // CU_GET_PROC_ADDRESS_LEGACY_STREAM
}

TEST_CASE("Every function of the seam calls the entry point of its own name with its arguments", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    FakeLibcuda& fake = fresh_fake();
    const auto driver = make_cuda_driver({.library = std::string(kFake)});
    CHECK(check_all_calls(fake, *driver) == 63);
}

TEST_CASE("A ForwardingDriver forwards every call as it is", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    FakeLibcuda& fake = fresh_fake();
    const auto inner = make_cuda_driver({.library = std::string(kFake)});
    ForwardingDriver driver(inner);
    CHECK(check_all_calls(fake, driver) == 63);
    CHECK(driver.name() == "cuda");
    CHECK(&driver.platform() == &inner->platform());
    CHECK(driver.inner() == inner);
}

namespace {

/// The code of a batch through a driver of that version, and what reached it.
CUresult batch_on(FakeLibcuda& fake, int version, std::vector<std::uint64_t>& sent) {
    fake.control.version = version;
    const auto driver = make_cuda_driver({.library = std::string(kFake)});
    return call(*driver, &Driver::memcpy_batch_async, sent);
}

}  // namespace

TEST_CASE("A batch of copies takes the entry point of the driver's version, and is NOT_SUPPORTED before 12.8",
          "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    FakeLibcuda& fake = fresh_fake();
    std::vector<std::uint64_t> sent;
    for (const int version : {13000, 13010}) {
        CAPTURE(version);
        CHECK(static_cast<int>(batch_on(fake, version, sent)) == 130);
        CHECK(std::vector<std::uint64_t>(fake.last.arguments, fake.last.arguments + fake.last.count) == sent);
        CHECK(fake.batch_is_in_stream_order);
    }
    for (const int version : {12080, 12090}) {
        CAPTURE(version);
        fake.batch_is_in_stream_order = false;
        CHECK(static_cast<int>(batch_on(fake, version, sent)) == 120);
        REQUIRE(fake.last.count == 6);
        CHECK(fake.last.arguments[4] != 0);  // where the index of a failed copy goes
        CHECK(fake.last.arguments[5] == sent.at(4));
        CHECK(fake.batch_is_in_stream_order);
    }
    const int before = fake.calls;
    CHECK(batch_on(fake, 12070, sent) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(fake.calls == before + 1);  // cuInit
    fake.control.lacks = "cuMemcpyBatchAsync";
    CHECK(batch_on(fake, 13000, sent) == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("A ForwardingDriver forwards a batch of copies, and a stand-in without one has none", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    fresh_fake().control.version = 13000;
    ForwardingDriver driver(make_cuda_driver({.library = std::string(kFake)}));
    std::vector<std::uint64_t> sent;
    CHECK(static_cast<int>(call(driver, &Driver::memcpy_batch_async, sent)) == 130);
    Bare bare;
    CHECK(call(bare, &Driver::memcpy_batch_async, sent) == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("A ForwardingDriver over nothing is refused", "[driver]") {
    ErrorKind kind = ErrorKind::driver;
    try {
        const ForwardingDriver driver(nullptr);
    } catch (const Error& error) {
        kind = error.kind();
    }
    CHECK(kind == ErrorKind::bad_argument);
}

TEST_CASE("What a stand-in does not override answers NOT_SUPPORTED", "[driver]") {
    Bare bare;
    std::vector<std::uint64_t> arguments;
#define CHECK_DEFAULT(seam, entry, version) \
    CHECK(static_cast<int>(call(bare, &Driver::seam, arguments)) == CUDA_ERROR_NOT_SUPPORTED);
    FABRICMEM_TEST_CUDA_CALLS(CHECK_DEFAULT)
#undef CHECK_DEFAULT
}

TEST_CASE("The platform is the one that was given, or this machine's", "[driver]") {
    if (kFake.empty()) FABRICMEM_SKIP("built without the fake libcuda");
    fresh_fake();
    const auto given = std::make_shared<const Platform>();
    CHECK(&make_cuda_driver({.library = std::string(kFake), .platform = given})->platform() == given.get());
    CHECK(make_cuda_driver({.library = std::string(kFake)})->platform().process_id() ==
          static_cast<std::uint32_t>(::getpid()));
}

TEST_CASE("The library leaves no symbol of libcuda or NVML undefined", "[driver]") {
    const std::string nm = FABRICMEM_NM;
    const std::string library = FABRICMEM_LIBRARY_FILE;
    if (nm.empty() || library.empty()) FABRICMEM_SKIP("built without the paths of nm and of the library");
    const bool shared = library.find(".so") != std::string::npos;
    const std::string command =
        "'" + nm + "' " + (shared ? "-D " : "") + "--undefined-only '" + library + "' 2>/dev/null";
    FILE* const pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string symbols;
    std::array<char, 4096> buffer{};
    while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe))
        symbols.append(buffer.data(), got);
    const int status = ::pclose(pipe);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) FABRICMEM_SKIP("nm is not here");
    REQUIRE(status == 0);
    CHECK(has(symbols, "U dlopen"));  // so that an empty answer is no proof
    std::istringstream lines(symbols);
    for (std::string line; std::getline(lines, line);) {
        const std::size_t at = line.find(" U ");
        if (at == std::string::npos) continue;  // an archive's member
        const std::string symbol = line.substr(at + 3);
        const bool of_cuda = symbol.size() > 2 && symbol.substr(0, 2) == "cu" && std::isupper(symbol[2]) != 0;
        const bool of_nvml = symbol.substr(0, 4) == "nvml";
        CAPTURE(symbol);
        CHECK(!(of_cuda || of_nvml));
    }
}
