// SPDX-License-Identifier: Apache-2.0
// A consumer that brings a driver of its own: fabricmem::driver adds cuda.h.
#include <cstdio>
#include <memory>

#include <fabricmem/driver.hpp>
#include <fabricmem/forwarding_driver.hpp>

namespace {

class NoPlatform final : public fabricmem::Platform {};

class OneDevice final : public fabricmem::Driver {
public:
    [[nodiscard]] std::string_view name() const noexcept override { return "one device"; }
    [[nodiscard]] const fabricmem::Platform& platform() const noexcept override { return platform_; }
    CUresult device_get_count(int* count) noexcept override {
        *count = 1;
        return CUDA_SUCCESS;
    }

private:
    NoPlatform platform_;
};

}  // namespace

int main() {
    fabricmem::ForwardingDriver driver(std::make_shared<OneDevice>());
    int count = 0;
    if (driver.device_get_count(&count) != CUDA_SUCCESS || count != 1) return 1;
    if (driver.ctx_synchronize() != CUDA_ERROR_NOT_SUPPORTED) return 1;
    std::printf("seam: a driver of the consumer's, CUDA %d\n", CUDA_VERSION);
    return 0;
}
