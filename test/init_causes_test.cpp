// SPDX-License-Identifier: Apache-2.0
// What a failed cuInit comes of, told by what NVML and /proc show.
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fabricmem/checks.hpp>
#include <fabricmem/platform.hpp>

#include "driver/init_causes.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::chrono::minutes kNever{10};

class Machine : public Platform {
public:
    [[nodiscard]] std::optional<NvmlFacts> nvml() const override { return facts; }
    [[nodiscard]] std::optional<KernelModule> kernel_module() const override { return module; }

    std::optional<NvmlFacts> facts;
    std::optional<KernelModule> module;
};

NvmlFacts two_gpus(FabricInfo::State state = FabricInfo::State::completed) {
    NvmlDevice device;
    device.fabric = FabricInfo{.state = state};
    return {.driver_version = "580.1", .devices = {device, device}};
}

// CUDA_VISIBLE_DEVICES for the scope.
class Visible {
public:
    explicit Visible(const char* value) { value == nullptr ? ::unsetenv(kName) : ::setenv(kName, value, 1); }
    Visible(const Visible&) = delete;
    Visible& operator=(const Visible&) = delete;
    ~Visible() { ::unsetenv(kName); }

private:
    static constexpr const char* kName = "CUDA_VISIBLE_DEVICES";
};

struct Row {
    int code;
    std::optional<NvmlFacts> nvml;
    const char* visible;
    ErrorKind kind;
    const char* check;
    const char* cause;
};

}  // namespace

TEST_CASE("What cuInit's failure comes of is told by NVML and by what hides GPUs", "[driver]") {
    const auto joining = two_gpus(FabricInfo::State::in_progress);
    const NvmlFacts none;
    for (const Row& row : {
             Row{100, std::nullopt, nullptr, ErrorKind::unsupported, "FM-DRIVER-003", "has no NVIDIA GPU"},
             Row{100, none, nullptr, ErrorKind::unsupported, "FM-DRIVER-003", "has no NVIDIA GPU"},
             Row{100, none, "0", ErrorKind::unsupported, "FM-DRIVER-003", "has no NVIDIA GPU"},
             Row{100, std::nullopt, "", ErrorKind::unsupported, "FM-DRIVER-004",
                 "hides every GPU that there is, if any"},
             Row{100, two_gpus(), "7", ErrorKind::unsupported, "FM-DRIVER-004",
                 "CUDA_VISIBLE_DEVICES=\"7\" hides all 2 GPUs"},
             Row{100, two_gpus(), "1,7", ErrorKind::unsupported, "FM-DRIVER-006", "NVML sees 2 GPUs and CUDA none"},
             Row{100, two_gpus(), nullptr, ErrorKind::unsupported, "FM-DRIVER-006", "NVML sees 2 GPUs and CUDA none"},
             Row{802, std::nullopt, nullptr, ErrorKind::system, "FM-FABRIC-004", "the Fabric Manager does not run"},
             Row{802, two_gpus(), nullptr, ErrorKind::system, "FM-FABRIC-004", "the Fabric Manager does not run"},
             Row{802, joining, nullptr, ErrorKind::system, "FM-FABRIC-003", "has not finished joining"},
             Row{803, std::nullopt, nullptr, ErrorKind::system, "FM-DRIVER-005", "of different versions"},
             Row{804, std::nullopt, nullptr, ErrorKind::system, "FM-DRIVER-005", "cuda-compat"},
             Row{999, std::nullopt, nullptr, ErrorKind::driver, "FM-DRIVER-006", "nvidia_uvm"},
             Row{3, std::nullopt, nullptr, ErrorKind::unsupported, "FM-DRIVER-007", "fork()"},
         }) {
        CAPTURE(row.code, row.check, row.cause);
        const Visible visible(row.visible);
        const auto machine = std::make_shared<Machine>();
        machine->facts = row.nvml;
        const ErrorDetails details = detail::explain_init(row.code, machine, kNever);
        CHECK(to_string(details.kind) == to_string(row.kind));
        CHECK(details.check == row.check);
        CHECK(find_check(details.check) != nullptr);
        CHECK(contains(details.cause, row.cause));
        CHECK_FALSE(details.cure.empty());
    }
}

TEST_CASE("Two versions that differ are told with the kernel module's", "[driver]") {
    const auto machine = std::make_shared<Machine>();
    machine->module = KernelModule{.version = "580.159.04"};
    CHECK(contains(detail::explain_init(803, machine).cause, "the module's is 580.159.04"));
}

TEST_CASE("A code of cuInit's that no cause is known of has none", "[driver]") {
    const ErrorDetails details = detail::explain_init(1, std::make_shared<Machine>());
    CHECK(details.kind == ErrorKind::driver);
    CHECK(details.check.empty());
    CHECK(details.cause.empty());
}

TEST_CASE("An NVML that hangs where cuInit has failed is given up at its time, and the cause says so", "[driver]") {
    class Hangs : public Machine {
    public:
        [[nodiscard]] std::optional<NvmlFacts> nvml() const override {
            answer.wait();
            ended.set_value();
            return two_gpus();
        }
        std::shared_future<void> answer;
        mutable std::promise<void> ended;
    };
    const Visible visible(nullptr);
    for (const auto& [code, check] : {std::pair(100, "FM-DRIVER-003"), {802, "FM-FABRIC-004"}}) {
        CAPTURE(code);
        std::promise<void> answer;
        auto machine = std::make_shared<Hangs>();
        machine->answer = answer.get_future();
        auto ended = machine->ended.get_future();
        const ErrorDetails details = detail::explain_init(code, machine, std::chrono::milliseconds(1));
        CHECK(details.check == check);
        CHECK(contains(details.cause, "NVML, which may tell more, did not answer within 1 ms"));
        const std::weak_ptr<Machine> left = machine;
        machine.reset();
        CHECK_FALSE(left.expired());  // the call that hangs is still in it
        answer.set_value();
        ended.wait();
    }
}
