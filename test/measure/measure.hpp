// SPDX-License-Identifier: Apache-2.0
// Questions whose answers the emulated driver had to invent, or that nobody has pinned: each is asked in a process of
// its own, of one driver, and printed line by line, so that what kills the process is the line that is missing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "support/driver_kit.hpp"

namespace fabricmem::test {

/// Prints "KEY = ANSWER" at once. "..." before a call that may be the end of the process.
class Answers {
public:
    void say(const std::string& key, const std::string& answer);
    void say(const std::string& key, CUresult answer) { say(key, std::to_string(static_cast<int>(answer))); }
    void say(const std::string& key, const char* answer) { say(key, std::string(answer)); }
    template <typename Call>
    void ask(const std::string& key, Call&& call) {
        begin(key);
        end(call());
    }

private:
    void begin(const std::string& key);
    void end(const std::string& answer);
    void end(CUresult answer) { end(std::to_string(static_cast<int>(answer))); }
};

struct Question {
    std::string name;
    std::function<void(Driver&, Answers&)> ask;
};
using Questions = std::vector<Question>;

[[nodiscard]] Questions questions_of_memory();
[[nodiscard]] Questions questions_of_addresses();
[[nodiscard]] Questions questions_of_pointers();
[[nodiscard]] Questions questions_of_contexts();
[[nodiscard]] Questions questions_of_streams();

/// 2 MiB of device memory with full access, and device 0's primary context current.
struct Workbench {
    explicit Workbench(Driver& to, const CUmemAllocationProp& properties = device_memory(kFabric))
        : driver(to), context(to), memory(to, properties, {access_for(kDevice)}) {}

    /// A call's own code and, behind a comma, that of what it left to be done.
    [[nodiscard]] std::string with_sync(CUresult result) const {
        return std::to_string(static_cast<int>(result)) + "," +
               std::to_string(static_cast<int>(driver.ctx_synchronize()));
    }
    [[nodiscard]] CUdeviceptr at(std::size_t offset) const { return memory.address() + offset; }

    Driver& driver;
    CurrentContext context;
    Mapped memory;
};

[[nodiscard]] inline std::string yes_or_no(bool yes) { return yes ? "yes" : "no"; }

}  // namespace fabricmem::test
