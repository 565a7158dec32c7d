// SPDX-License-Identifier: Apache-2.0
// The other process of peers_test.cpp. Makes a buffer, prints its blob as a line of hex, then obeys lines on its
// standard input: "close" closes the buffer, "read N" prints byte N; the end of input ends it. With a second argument
// "probe" it prints a peer probe's bytes instead.
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/peer_probe.hpp>

#include "support/hello_hex.hpp"

int main(int argc, char** argv) {
    const char* const name = std::getenv("FABRICMEM_TEST_DRIVER");
    const bool on_host = argc > 1 && std::string_view(argv[1]) == "host";
    try {
        const auto driver = name != nullptr && std::string_view(name) == "cuda" ? fabricmem::make_cuda_driver()
                                                                                : fabricmem::make_emulated_driver();
        using fabricmem::Location;
        const Location where = on_host ? Location::host_numa(0) : Location::device(0);
        if (argc > 2 && std::string_view(argv[2]) == "probe") {
            const fabricmem::PeerProbe probe = fabricmem::make_peer_probe(driver, where);
            std::cout << fabricmem::test::hello_to_hex(probe.bytes()) << std::endl;
            for (std::string line; std::getline(std::cin, line);) {
            }
            return 0;
        }
        fabricmem::FabricBuffer buffer(driver, 1 << 16, {.location = where});
        std::cout << buffer.blob().to_hex() << std::endl;
        for (std::string line; std::getline(std::cin, line);) {
            if (line == "close") {
                std::cout << (buffer.close() == fabricmem::CloseResult::released ? "released" : "referenced")
                          << std::endl;
            } else if (line.rfind("read ", 0) == 0 && on_host) {
                const auto at = std::stoul(line.substr(5));
                std::cout << static_cast<int>(static_cast<const unsigned char*>(buffer.address())[at]) << std::endl;
            }
        }
    } catch (const fabricmem::Error& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
