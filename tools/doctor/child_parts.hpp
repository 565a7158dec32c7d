// SPDX-License-Identifier: Apache-2.0
// What the children share: how they speak, and the driver and platform that they look through.
#pragma once

#include <memory>
#include <string>

#include <fabricmem/driver.hpp>
#include <fabricmem/platform.hpp>

#include "common/unique_fd.hpp"
#include "doctor/facts.hpp"
#include "doctor/options.hpp"

namespace doctor {

/// Owns the process's stdout. What libraries print must not come between the lines: they get stderr as their stdout.
class Speaker {
public:
    Speaker();

    /// One line. Ends the process where there is nobody left to tell.
    void say(std::string line) const;

private:
    examples::UniqueFd out_;
};

/// The machine's, under the options' root; null for the emulated driver, which has its own.
[[nodiscard]] std::shared_ptr<const fabricmem::Platform> make_platform(const Options& options);

/// Null, with the reason in `facts`, where there is none.
[[nodiscard]] std::shared_ptr<fabricmem::Driver> make_driver(const Options& options,
                                                             const std::shared_ptr<const fabricmem::Platform>& platform,
                                                             DriverFacts& facts);

/// A child does not outlive its parent, whatever call hangs in it.
void end_with_parent() noexcept;

}  // namespace doctor
