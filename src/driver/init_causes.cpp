// SPDX-License-Identifier: Apache-2.0
// The rows of the table of causes that begin with cuInit (docs/failures.md).
#include "driver/init_causes.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <cuda.h>

#include "error/cures.hpp"
#include "text/text.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {
namespace {

ErrorDetails of_check(const char* id, std::string cause) {
    const Check* const check = find_check(id);
    return {.kind = check == nullptr ? ErrorKind::driver : check->kind,
            .cause = std::move(cause),
            .cure = cure_of(id),
            .check = id};
}

// Whether CUDA_VISIBLE_DEVICES begins with the index of a GPU that there is: then it does not hide all.
bool names_one_of(const char* visible, std::size_t present) {
    char* end = nullptr;
    const long index = std::strtol(visible, &end, 10);
    return end != visible && (*end == '\0' || *end == ',') && index >= 0 && static_cast<std::size_t>(index) < present;
}

class NvmlJob final : public Job {
public:
    NvmlJob(std::shared_ptr<Workers> workers, std::shared_ptr<const Platform> platform) noexcept
        : Job(std::move(workers)), platform_(std::move(platform)) {}

    void run() noexcept override {
        try {
            facts = platform_->nvml();
        } catch (const std::exception&) {  // there is no memory for the answer, so it is not known
        }
    }
    void clean_up() noexcept override {}

    std::optional<NvmlFacts> facts;

private:
    std::shared_ptr<const Platform> platform_;
};

struct Heard {
    std::optional<NvmlFacts> facts{};
    std::string why_not{};  // for the end of a cause; empty: NVML answered, or is not here
};

// There is no driver yet whose threads could ask.
Heard ask_nvml(const std::shared_ptr<const Platform>& platform, std::chrono::milliseconds timeout) {
    const auto workers = std::make_shared<Workers>();
    const auto job = std::make_shared<NvmlJob>(workers, platform);
    try {
        if (workers->run(job, deadline_after(timeout)) == Ended::yes) return {std::move(job->facts), {}};
    } catch (const Error& error) {
        return {{}, formatted("; NVML, which may tell more, could not be asked: {}", error.details().cause)};
    }
    return {{}, formatted("; NVML, which may tell more, did not answer within {} ms", timeout.count())};
}

// NVML tells hidden GPUs from none: it lists them whatever CUDA_VISIBLE_DEVICES says.
ErrorDetails no_device(const Heard& heard) {
    const std::optional<NvmlFacts>& nvml = heard.facts;
    const std::size_t present = nvml.has_value() ? nvml->devices.size() : 0;
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (visible != nullptr && (present > 0 || !nvml.has_value()) && !names_one_of(visible, present)) {
        const std::string which = nvml.has_value() ? formatted("hides all {} GPUs of this machine", present)
                                                   : std::string("hides every GPU that there is, if any");
        return of_check("FM-DRIVER-004", formatted("CUDA_VISIBLE_DEVICES=\"{}\" {}", visible, which));
    }
    if (present > 0) {
        ErrorDetails details =
            of_check("FM-DRIVER-006", formatted("NVML sees {} GPUs and CUDA none: likely this process can't open "
                                                "their device files (/dev/nvidia0 and so on)",
                                                present));
        details.kind = ErrorKind::unsupported;  // as all of NO_DEVICE
        return details;
    }
    return of_check("FM-DRIVER-003",
                    "this machine has no NVIDIA GPU, or this process may not see one (no /dev/nvidia0)");
}

ErrorDetails not_ready(const Heard& heard) {
    const std::optional<NvmlFacts>& nvml = heard.facts;
    const bool joining =
        nvml.has_value() && std::any_of(nvml->devices.begin(), nvml->devices.end(), [](const NvmlDevice& device) {
            return device.fabric.has_value() && device.fabric->state == FabricInfo::State::in_progress;
        });
    if (joining)
        return of_check("FM-FABRIC-003", "a GPU has not finished joining the NVLink fabric (NVML's fabric state is 2)");
    return of_check("FM-FABRIC-004",
                    "the machine's NVLink fabric is not up. On an HGX system the Fabric Manager does "
                    "not run, or is of another version than the driver");
}

ErrorDetails with_nvml(ErrorDetails (*explain)(const Heard& heard), const std::shared_ptr<const Platform>& platform,
                       std::chrono::milliseconds timeout) {
    const Heard heard = ask_nvml(platform, timeout);
    ErrorDetails details = explain(heard);
    details.cause += heard.why_not;
    return details;
}

}  // namespace

ErrorDetails explain_init(int code, const std::shared_ptr<const Platform>& platform,
                          std::chrono::milliseconds timeout) {
    switch (code) {
        case CUDA_ERROR_NO_DEVICE: return with_nvml(no_device, platform, timeout);
        case CUDA_ERROR_NOT_INITIALIZED:
            return of_check("FM-DRIVER-007",
                            "this process was made by fork() from one that had called cuInit: the driver does not "
                            "survive a fork");
        case CUDA_ERROR_SYSTEM_NOT_READY: return with_nvml(not_ready, platform, timeout);
        case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: {
            const auto module = platform->kernel_module();
            const std::string version = module.has_value() && !module->version.empty()
                                            ? formatted("the module's is {}", module->version)
                                            : std::string("/proc/driver/nvidia/version names the module's");
            return of_check("FM-DRIVER-005",
                            formatted("libcuda and the NVIDIA kernel module are of different versions ({})", version));
        }
        case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: {
            ErrorDetails details =
                of_check("FM-DRIVER-005",
                         "a forward-compatibility libcuda (cuda-compat) is on the library path, and this GPU or kernel "
                         "module does not support it");
            details.cure = "take the cuda-compat folder out of LD_LIBRARY_PATH, or upgrade the driver itself";
            return details;
        }
        case CUDA_ERROR_UNKNOWN:
            return of_check(
                "FM-DRIVER-006",
                "likely the kernel module nvidia_uvm is not loaded, or /dev/nvidia-uvm can't be opened here");
        default: return {.kind = ErrorKind::driver};
    }
}

}  // namespace fabricmem::detail
