// SPDX-License-Identifier: Apache-2.0
// One rank of fleet.cpp: makes a buffer on a device and one on the host, then obeys lines: it imports everyone's,
// writes a word into each, looks for everyone's words in its own, and ends. Arguments: RANK COUNT.
#include <dirent.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "support/fleet_words.hpp"

namespace {

using namespace fabricmem;
using namespace fabricmem::test;

struct Rank {
    unsigned int number = 0;
    unsigned int count = 0;
    std::shared_ptr<Driver> driver;
    std::unique_ptr<FabricBuffer> on_device;
    std::unique_ptr<FabricBuffer> on_host;
    std::vector<ImportedFabricBuffer> device_imports;
    std::vector<ImportedFabricBuffer> host_imports;
};

CUdeviceptr pointer(const MappedBuffer& buffer, std::size_t slot) {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(buffer.address())) + slot * sizeof(std::uint64_t);
}

std::uint64_t& host_word(const MappedBuffer& buffer, std::size_t slot) {
    return static_cast<std::uint64_t*>(buffer.address())[slot];
}

std::size_t kernel_mappings() {
    // Not /proc/self/maps, which user-mode emulators invent.
    const std::string path = "/proc/self/task/" + std::to_string(::getpid()) + "/maps";
    std::FILE* const file = std::fopen(path.c_str(), "re");
    if (file == nullptr) return 0;
    std::size_t lines = 0;
    for (int byte = 0; (byte = std::fgetc(file)) != EOF;) lines += byte == '\n' ? 1 : 0;
    std::fclose(file);
    return lines;
}

std::size_t descriptors() {
    DIR* const directory = ::opendir("/proc/self/fd");
    if (directory == nullptr) return 0;
    std::size_t count = 0;
    while (const dirent* const entry = ::readdir(directory)) count += entry->d_name[0] != '.' ? 1 : 0;
    ::closedir(directory);
    return count - 1;  // its own
}

void make(Rank& rank) {
    rank.driver = make_emulated_driver(fleet_node(rank.number));
    const Location place = Location::device(static_cast<int>(rank.number % kDevicesPerNode));
    rank.on_device = std::make_unique<FabricBuffer>(rank.driver, kFleetBytes, FabricBufferOptions{.location = place});
    rank.on_host = std::make_unique<FabricBuffer>(rank.driver, kFleetBytes,
                                                  FabricBufferOptions{.location = Location::host_numa(0)});
    std::printf("%s %s\n", rank.on_device->blob().to_hex().c_str(), rank.on_host->blob().to_hex().c_str());
}

// import FILE: a line of two blobs for each rank.
void import_all(Rank& rank, const char* path) {
    std::FILE* const file = std::fopen(path, "re");
    if (file == nullptr) throw std::runtime_error(std::string("can't open ") + path);
    std::vector<std::string> hexes;
    static char word[2 * HandleBlob::kBytes + 1];
    while (std::fscanf(file, "%640s", word) == 1) hexes.emplace_back(word);
    std::fclose(file);
    if (hexes.size() != 2 * std::size_t{rank.count}) throw std::runtime_error("too few blobs");
    rank.device_imports.reserve(rank.count);
    rank.host_imports.reserve(rank.count);
    const std::size_t before = kernel_mappings();
    for (unsigned int peer = 0; peer < rank.count; ++peer) {
        if (peer == rank.number) continue;
        rank.device_imports.emplace_back(rank.driver, HandleBlob::from_hex(hexes[2 * peer]));
    }
    const std::size_t after = kernel_mappings();
    for (unsigned int peer = 0; peer < rank.count; ++peer) {
        if (peer == rank.number) continue;
        rank.host_imports.emplace_back(rank.driver, HandleBlob::from_hex(hexes[2 * peer + 1]));
    }
    std::printf("%ld\n", static_cast<long>(after) - static_cast<long>(before));
}

void write_all(Rank& rank) {
    for (unsigned int i = 0; i + 1 < rank.count; ++i) {
        const unsigned int peer = i < rank.number ? i : i + 1;
        const std::uint64_t word = fleet_word(rank.number, peer);
        const CUresult result =
            rank.driver->memcpy_htod(pointer(rank.device_imports[i], rank.number), &word, sizeof word);
        if (result != CUDA_SUCCESS) throw std::runtime_error("the copy answers " + std::to_string(result));
        __atomic_store_n(&host_word(rank.host_imports[i], rank.number), word, __ATOMIC_RELEASE);
    }
    std::printf("written\n");
}

void look(Rank& rank) {
    std::vector<std::uint64_t> words(rank.count);
    rank.driver->memcpy_dtoh(words.data(), pointer(*rank.on_device, 0), words.size() * sizeof words[0]);
    unsigned int on_device = 0;
    unsigned int on_host = 0;
    for (unsigned int peer = 0; peer < rank.count; ++peer) {
        if (peer == rank.number) continue;
        const std::uint64_t wanted = fleet_word(peer, rank.number);
        if (words[peer] == wanted) ++on_device;
        if (__atomic_load_n(&host_word(*rank.on_host, peer), __ATOMIC_ACQUIRE) == wanted) ++on_host;
    }
    std::printf("%u %u %zu %zu\n", on_device, on_host, descriptors(), kernel_mappings());
}

void end(Rank& rank) {
    rank.device_imports.clear();
    rank.host_imports.clear();
    rank.on_device->close();
    rank.on_host->close();
    const EmulatedCounts counts = emulated_counts(*rank.driver);
    std::printf("%zu\n", counts.allocations + counts.handles + counts.ranges + counts.mappings + counts.descriptors +
                             counts.aliases);
}

int serve(Rank& rank) {
    CUcontext context = nullptr;
    make(rank);
    rank.driver->device_primary_ctx_retain(&context, 0);
    rank.driver->ctx_push_current(context);
    char line[256];
    while (std::fflush(stdout) == 0 && std::fgets(line, sizeof line, stdin) != nullptr) {
        line[std::strcspn(line, "\n")] = '\0';
        const std::string command = line;
        if (command.rfind("import ", 0) == 0) import_all(rank, line + std::strlen("import "));
        if (command == "write") write_all(rank);
        if (command == "look") look(rank);
        if (command == "end") end(rank);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    ::alarm(600);  // no test lasts that long: an orphan ends
    Rank rank;
    rank.number = static_cast<unsigned int>(std::atoi(argv[1]));
    rank.count = static_cast<unsigned int>(std::atoi(argv[2]));
    try {
        return serve(rank);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %u: %s\n", rank.number, error.what());
        return 1;
    }
}
