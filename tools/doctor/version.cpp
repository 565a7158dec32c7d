// SPDX-License-Identifier: Apache-2.0
#include "doctor/version.hpp"

#include <fabricmem/version.hpp>

#include "common/text.hpp"

namespace doctor {

std::string version_text() {
    const fabricmem::Version version = fabricmem::library_version();
    return examples::formatted("{}.{}.{}", version.major, version.minor, version.patch);
}

}  // namespace doctor
