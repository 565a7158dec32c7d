// SPDX-License-Identifier: Apache-2.0
// How long ranks take to meet, beside the bare driver calls that a meeting can't do without: N processes on one device,
// all at once, in turns: each imports both regions of all others by reserve, import, map and set-access; and each
// connects to all others by Handshake, with both kinds of memory proved both ways. FABRICMEM_TEST_DRIVER says which
// driver. A benchmark, not a test; build it optimised.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/handshake.hpp>

#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/hello_hex.hpp"

namespace {

using namespace fabricmem;
using namespace fabricmem::test;
using Clock = std::chrono::steady_clock;

constexpr int kPatienceSeconds = 120;
constexpr int kRounds = 5;

void check(CUresult result, const char* call) {
    if (result != CUDA_SUCCESS) throw std::runtime_error(std::string(call) + " answers " + std::to_string(result));
}

double microseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// --- a rank
// -------------------------------------------------------------------------------------------------------------

struct RawImport {
    CUdeviceptr address = 0;
    CUmemGenericAllocationHandle handle = 0;
    std::size_t bytes = 0;
};

RawImport raw_import(Driver& driver, const HandleBlob& blob, int devices) {
    RawImport made;
    made.bytes = static_cast<std::size_t>(blob.mapped_bytes);
    auto handle = blob.handle;
    check(driver.mem_address_reserve(&made.address, made.bytes, 0, 0, 0), "cuMemAddressReserve");
    check(driver.mem_import_from_shareable_handle(&made.handle, handle.data(),
                                                  static_cast<CUmemAllocationHandleType>(kFabric)),
          "cuMemImportFromShareableHandle");
    check(driver.mem_map(made.address, made.bytes, 0, made.handle, 0), "cuMemMap");
    std::vector<CUmemAccessDesc> access;
    for (int device = 0; device < devices; ++device) access.push_back(access_for(kDevice, 3, device));
    if (blob.location_kind == LocationKind::host_numa) access.push_back(access_for(kHost));
    check(driver.mem_set_access(made.address, made.bytes, access.data(), access.size()), "cuMemSetAccess");
    return made;
}

void give_back(Driver& driver, const RawImport& made) {
    check(driver.mem_unmap(made.address, made.bytes), "cuMemUnmap");
    check(driver.mem_release(made.handle), "cuMemRelease");
    check(driver.mem_address_free(made.address, made.bytes), "cuMemAddressFree");
}

double meet_raw(Driver& driver, const std::vector<HandleBlob>& blobs, int devices) {
    std::vector<RawImport> made;
    made.reserve(blobs.size());
    const auto begin = Clock::now();
    for (const HandleBlob& blob : blobs) made.push_back(raw_import(driver, blob, devices));
    const double took = microseconds_since(begin);
    for (const RawImport& import : made) give_back(driver, import);
    return took;
}

// Lines come in pairs of rounds: the others' hellos, then "go". In raw rounds they are blobs in hex.
int rank_main(std::uint32_t rank, std::uint32_t ranks) {
    const auto driver = driver_under_test();
    CUdevice device = 0;
    CUcontext context = nullptr;
    check(driver->device_get(&device, 0), "cuDeviceGet");
    check(driver->device_primary_ctx_retain(&context, device), "cuDevicePrimaryCtxRetain");  // before the clock starts
    int devices = 0;
    check(driver->device_get_count(&devices), "cuDeviceGetCount");
    for (std::string mode; std::getline(std::cin, mode);) {
        Handshake handshake(driver, {.rank = rank, .world_size = ranks});
        if (mode == "raw") {
            std::cout << handshake.device_arena()->blob().to_hex() << handshake.host_arena()->blob().to_hex()
                      << std::endl;
        } else {
            std::cout << hello_to_hex(handshake.hello()) << std::endl;
        }
        std::vector<HandleBlob> blobs;
        for (std::uint32_t i = 0; i + 1 < ranks; ++i) {
            std::string line;
            std::getline(std::cin, line);
            std::istringstream words(line);
            std::uint32_t from = 0;
            std::string hex;
            words >> from >> hex;
            if (mode == "raw") {
                blobs.push_back(HandleBlob::from_hex(hex.substr(0, 2 * HandleBlob::kBytes)));
                blobs.push_back(HandleBlob::from_hex(hex.substr(2 * HandleBlob::kBytes)));
            } else {
                static_cast<void>(handshake.add_peer(from, hello_from_hex(hex)));
            }
        }
        std::cout << "ready" << std::endl;
        std::string go;
        std::getline(std::cin, go);
        if (mode == "raw") {
            std::cout << meet_raw(*driver, blobs, devices) << std::endl;
        } else {
            const auto begin = Clock::now();
            const auto report = handshake.wait(Clock::now() + std::chrono::seconds(kPatienceSeconds));
            const double took = microseconds_since(begin);
            if (!report.all_connected()) throw std::runtime_error(report.describe());
            std::cout << took << std::endl;
        }
        std::getline(std::cin, go);  // everybody is done
    }
    check(driver->device_primary_ctx_release(device), "cuDevicePrimaryCtxRelease");
    return 0;
}

// --- the starter
// --------------------------------------------------------------------------------------------------------

std::string read(ChildProcess& process) {
    const auto line = process.read_line(in_seconds(kPatienceSeconds));
    if (!line.has_value()) throw std::runtime_error("a rank does not answer");
    return *line;
}
void tell(ChildProcess& process, const std::string& line) {
    if (!process.send_line(line)) throw std::runtime_error("a rank does not listen");
}

struct Round {
    double wall = 0;     // from "go" to the last rank's end, us
    double slowest = 0;  // by the ranks' own clocks, us
};

Round play(std::vector<std::unique_ptr<ChildProcess>>& ranks, const std::string& mode) {
    std::vector<std::string> said;
    for (auto& rank : ranks) tell(*rank, mode);
    for (auto& rank : ranks) said.push_back(read(*rank));
    for (std::size_t to = 0; to < ranks.size(); ++to) {
        for (std::size_t from = 0; from < ranks.size(); ++from) {
            if (from != to) tell(*ranks[to], std::to_string(from) + " " + said[from]);
        }
    }
    for (auto& rank : ranks) static_cast<void>(read(*rank));
    Round round;
    const auto begin = Clock::now();
    for (auto& rank : ranks) tell(*rank, "go");
    for (auto& rank : ranks) round.slowest = std::max(round.slowest, std::stod(read(*rank)));
    round.wall = microseconds_since(begin);
    for (auto& rank : ranks) tell(*rank, "done");
    return round;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void bench(const char* program, std::uint32_t count) {
    std::vector<std::unique_ptr<ChildProcess>> ranks;
    for (std::uint32_t rank = 0; rank < count; ++rank)
        ranks.push_back(std::make_unique<ChildProcess>(
            std::vector<std::string>{program, std::to_string(rank), std::to_string(count)}));
    std::vector<double> raw, raw_own, met, met_own;
    static_cast<void>(play(ranks, "raw"));
    static_cast<void>(play(ranks, "meet"));
    for (int i = 0; i < kRounds; ++i) {
        const Round bare = play(ranks, "raw");
        const Round handshake = play(ranks, "meet");
        raw.push_back(bare.wall);
        raw_own.push_back(bare.slowest);
        met.push_back(handshake.wall);
        met_own.push_back(handshake.slowest);
    }
    std::printf("| %u processes | %.0f | %.0f | %.2f | %.0f | %.0f | %.0f to %.0f |\n", count, median(raw), median(met),
                median(met) / median(raw), median(raw_own), median(met_own), *std::min_element(met.begin(), met.end()),
                *std::max_element(met.begin(), met.end()));
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc == 3)
            return rank_main(static_cast<std::uint32_t>(std::stoul(argv[1])),
                             static_cast<std::uint32_t>(std::stoul(argv[2])));
        std::string why_not;
        if (find_driver_under_test(&why_not) == nullptr) throw std::runtime_error(why_not);
        std::printf("%s driver; microseconds, medians of %d rounds in turns\n",
                    testing_cuda() ? "the real" : "the emulated", kRounds);
        std::printf(
            "| all at once | bare imports, wall | connected, wall | ratio | bare, slowest rank | connected, slowest "
            "rank | connected, wall, least to most |\n");
        std::printf("| --- | --- | --- | --- | --- | --- | --- |\n");
        for (const std::uint32_t count : {2U, 8U, 16U}) bench(argv[0], count);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "handshake_bench: %s\n", error.what());
        return 1;
    }
    return 0;
}
