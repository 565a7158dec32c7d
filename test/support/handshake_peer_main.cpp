// SPDX-License-Identifier: Apache-2.0
// A rank of handshake_peers_test.cpp in a process of its own: handshake_peer RANK WORLD_SIZE. Prints its hello as a
// line of hex, then obeys lines on its standard input: "peer RANK HEX" takes another's, "wait MS" polls until all is
// settled and says how many are connected, failed and pending, "health RANK MS" says "well" or why not, "hello" prints
// a fresh one. The end of input ends it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/handshake.hpp>

#include "support/hello_hex.hpp"

namespace {

using fabricmem::Handshake;

void obey(Handshake& handshake, const std::string& line) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    std::uint32_t rank = 0;
    long milliseconds = 0;
    const auto deadline = [&] { return std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds); };
    if (word == "peer") {
        std::string hex;
        words >> rank >> hex;
        std::cout << (handshake.add_peer(rank, fabricmem::test::hello_from_hex(hex)) ? "new" : "known") << std::endl;
    } else if (word == "wait") {
        words >> milliseconds;
        const auto report = handshake.wait(deadline());
        std::cout << report.connected << ' ' << report.failed << ' ' << report.pending << std::endl;
        if (!report.all_connected()) std::cerr << report.describe() << '\n';
    } else if (word == "health") {
        words >> rank >> milliseconds;
        handshake.health_check(rank, deadline());
        std::cout << "well" << std::endl;
    } else if (word == "hello") {
        std::cout << fabricmem::test::hello_to_hex(handshake.hello()) << std::endl;
    } else {
        std::cout << "what?" << std::endl;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const char* const name = std::getenv("FABRICMEM_TEST_DRIVER");
    try {
        const auto driver = name != nullptr && std::string_view(name) == "cuda"
                                ? fabricmem::make_cuda_driver()
                                : fabricmem::make_emulated_driver_from_environment();
        Handshake handshake(driver, {.rank = static_cast<std::uint32_t>(std::stoul(argv[1])),
                                     .world_size = static_cast<std::uint32_t>(std::stoul(argv[2]))});
        std::cout << fabricmem::test::hello_to_hex(handshake.hello()) << std::endl;
        for (std::string line; std::getline(std::cin, line);) {
            try {
                obey(handshake, line);
            } catch (const fabricmem::Error& error) {
                std::cout << to_string(error.kind()) << std::endl;
            }
        }
    } catch (const fabricmem::Error& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
