// SPDX-License-Identifier: Apache-2.0
// A consumer that links fabricmem::fabricmem alone: every public header but the seam's and the emulated driver's.
#include <cstdio>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fabricmem.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/log.hpp>
#include <fabricmem/platform.hpp>
#include <fabricmem/probe.hpp>
#include <fabricmem/types.hpp>
#include <fabricmem/version.hpp>

#if defined(FMT_VERSION) || defined(SPDLOG_H) || defined(INCLUDE_NLOHMANN_JSON_HPP_) || defined(CUDA_VERSION)
#error "a public header brings in fmt, spdlog, nlohmann/json or cuda.h"
#endif

int main() {
    fabricmem::set_log_level(fabricmem::LogLevel::error);
    const fabricmem::Version version = fabricmem::library_version();
    if (version.major != fabricmem::kHeaderVersion.major || version.minor != fabricmem::kHeaderVersion.minor) return 1;
    try {
        throw fabricmem::Error({.kind = fabricmem::ErrorKind::closed, .subject = "thrown and caught in the consumer"});
    } catch (const fabricmem::Error& error) {
        std::printf("core: fabricmem %d.%d.%d, %s\n", version.major, version.minor, version.patch, error.what());
    }
    return 0;
}
