// SPDX-License-Identifier: Apache-2.0
#include "doctor/child_parts.hpp"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <utility>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/fault_driver.hpp>

namespace doctor {
namespace {

using fabricmem::Driver;
using fabricmem::Platform;

/// A machine's Platform without its NVML, which hung or crashed.
class WithoutNvml final : public Platform {
public:
    explicit WithoutNvml(std::shared_ptr<const Platform> inner) : inner_(std::move(inner)) {}

    [[nodiscard]] std::optional<fabricmem::Id128> host_id() const override { return inner_->host_id(); }
    [[nodiscard]] std::optional<fabricmem::Id128> boot_id() const override { return inner_->boot_id(); }
    [[nodiscard]] std::optional<std::uint32_t> process_id() const override { return inner_->process_id(); }
    [[nodiscard]] std::optional<std::uint64_t> pid_namespace() const override { return inner_->pid_namespace(); }
    [[nodiscard]] std::optional<std::uint64_t> process_start() const override { return inner_->process_start(); }
    [[nodiscard]] fabricmem::ProcessState process_state(std::uint32_t id, std::uint64_t start) const override {
        return inner_->process_state(id, start);
    }
    [[nodiscard]] std::vector<fabricmem::ImexChannel> imex_channels() const override { return inner_->imex_channels(); }
    [[nodiscard]] int imex_channels_errno() const override { return inner_->imex_channels_errno(); }
    [[nodiscard]] std::optional<fabricmem::KernelModule> kernel_module() const override {
        return inner_->kernel_module();
    }

private:
    std::shared_ptr<const Platform> inner_;
};

Failure failure_of(const fabricmem::Error& error) {
    const fabricmem::ErrorDetails& details = error.details();
    const std::string text = error.what();
    return {.kind = std::string(to_string(error.kind())),
            .code = error.code(),
            .text = without_cause(text),
            .cause = details.cause,
            .cure = details.cure,
            .check = details.check};
}

}  // namespace

Speaker::Speaker() : out_(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)) { ::dup2(STDERR_FILENO, STDOUT_FILENO); }

void Speaker::say(std::string line) const {
    line += '\n';
    for (std::string_view rest = line; !rest.empty();) {
        const ssize_t written = ::write(out_.get(), rest.data(), rest.size());
        if (written < 0 && errno != EINTR) ::_exit(1);
        if (written > 0) rest.remove_prefix(static_cast<std::size_t>(written));
    }
}

std::shared_ptr<const Platform> make_platform(const Options& options) {
    if (options.driver == DriverKind::emulated) return nullptr;
    std::shared_ptr<const Platform> platform = fabricmem::make_system_platform(options.root);
    if (options.child->without_nvml) platform = std::make_shared<const WithoutNvml>(std::move(platform));
    return platform;
}

std::shared_ptr<Driver> make_driver(const Options& options, const std::shared_ptr<const Platform>& platform,
                                    DriverFacts& facts) {
    try {
        std::shared_ptr<Driver> driver;
        if (options.driver == DriverKind::emulated) {
            driver = fabricmem::make_emulated_driver_from_environment();
            facts.place = emulated_place(*driver);
        } else {
            driver = fabricmem::make_cuda_driver({.platform = platform});
        }
        driver = fabricmem::with_faults_from_environment(std::move(driver));
        (void)driver->driver_get_version(&facts.cuda_version);
        return driver;
    } catch (const fabricmem::Error& error) {
        facts.why_not = failure_of(error);
        return nullptr;
    }
}

void end_with_parent() noexcept { ::prctl(PR_SET_PDEATHSIG, SIGKILL); }

}  // namespace doctor
