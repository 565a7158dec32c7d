// SPDX-License-Identifier: Apache-2.0
// fabricmem_soak: kills exporters and importers of fabric memory at random moments. Starts itself for its processes.
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "soak/soak_options.hpp"
#include "soak/soak_peer.hpp"
#include "soak/supervisor.hpp"

using namespace fabricmem::soak;

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() == 5 && arguments[0] == "--peer") {
        return run_peer({arguments[1], arguments[2], arguments[3], arguments[4]});
    }
    const auto options = parse(arguments);
    if (!options) return 2;
    if (options->help) {
        std::fputs(usage_text(), stdout);
        return 0;
    }
    std::printf("fabricmem_soak: the %s driver, seed %llu\n", options->driver.c_str(),
                static_cast<unsigned long long>(options->seed));
    std::fflush(stdout);
    try {
        Supervisor supervisor(std::filesystem::absolute(argv[0]).string(), *options);
        supervisor.run();
        supervisor.report();
    } catch (const std::exception& error) {
        std::printf("FAILED (seed %llu): %s\n", static_cast<unsigned long long>(options->seed), error.what());
        return 1;
    }
    std::printf("all well\n");
    return 0;
}
