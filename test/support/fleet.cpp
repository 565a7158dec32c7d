// SPDX-License-Identifier: Apache-2.0
// Steps that all ranks take before the next one begins, so that nobody has to poll.
#include "support/fleet.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "support/child_process.hpp"
#include "support/fleet_words.hpp"

namespace fabricmem::test {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// --- processes
// ---------------------------------------------------------------------------------------------------------

// Text that other processes can read by path, and that is gone with this process.
class SharedText {
public:
    explicit SharedText(const std::string& text) : descriptor_(::memfd_create("fleet", MFD_CLOEXEC)) {
        if (::write(descriptor_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
            ::close(descriptor_);
            throw std::runtime_error("the blobs could not be written down");
        }
    }
    SharedText(const SharedText&) = delete;
    SharedText& operator=(const SharedText&) = delete;
    ~SharedText() { ::close(descriptor_); }
    [[nodiscard]] std::string path() const {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(descriptor_);
    }

private:
    int descriptor_;
};

class Fleet {
public:
    Fleet(const std::string& program, unsigned int ranks, Deadline deadline) : deadline_(deadline) {
        for (unsigned int rank = 0; rank < ranks; ++rank) {
            processes_.push_back(std::make_unique<ChildProcess>(
                std::vector<std::string>{program, std::to_string(rank), std::to_string(ranks)}));
        }
    }

    /// Everyone's answer to a line; the empty one asks for nothing.
    std::vector<std::string> ask_all(const std::string& line) {
        if (!line.empty()) {
            for (const auto& process : processes_) process->send_line(line);
        }
        std::vector<std::string> answers;
        for (const auto& process : processes_) {
            auto answer = process->read_line(deadline_);
            if (!answer) {
                throw std::runtime_error("rank " + std::to_string(answers.size()) + " does not answer '" + line + "'");
            }
            answers.push_back(std::move(*answer));
        }
        return answers;
    }

    [[nodiscard]] const std::vector<std::unique_ptr<ChildProcess>>& processes() const { return processes_; }
    [[nodiscard]] Deadline deadline() const { return deadline_; }

private:
    Deadline deadline_;
    std::vector<std::unique_ptr<ChildProcess>> processes_;
};

std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text.append(line).append("\n");
    return text;
}

// 0 where it can't be read.
double pss_kib(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/smaps_rollup");
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        double kib = 0;
        if (words >> name >> kib && name == "Pss:") return kib;
    }
    return 0;
}

void measure_idle(const Fleet& fleet, FleetReport* report) {
    double sum = 0;
    for (const auto& process : fleet.processes()) {
        const double kib = pss_kib(process->pid());
        sum += kib;
        report->pss_kib_most = std::max(report->pss_kib_most, kib);
    }
    report->pss_kib_mean = sum / static_cast<double>(fleet.processes().size());
}

void look(Fleet& fleet, FleetReport* report) {
    for (const std::string& answer : fleet.ask_all("look")) {
        std::istringstream numbers(answer);
        unsigned int on_device = 0;
        unsigned int on_host = 0;
        std::size_t descriptors = 0;
        std::size_t mappings = 0;
        numbers >> on_device >> on_host >> descriptors >> mappings;
        report->words_missing += 2 * (report->ranks - 1) - on_device - on_host;
        report->descriptors = std::max(report->descriptors, descriptors);
        report->mappings = std::max(report->mappings, mappings);
    }
}

void end(Fleet& fleet, FleetReport* report) {
    for (const std::string& answer : fleet.ask_all("end")) report->left_over += std::stoul(answer);
    for (const auto& process : fleet.processes()) process->close_input();
    for (const auto& process : fleet.processes()) {
        if (process->wait(fleet.deadline()) != Ended{0, 0}) ++report->ended_badly;
    }
}

// --- one process
// -------------------------------------------------------------------------------------------------------

struct Member {
    std::shared_ptr<Driver> driver;
    std::unique_ptr<FabricBuffer> buffer;
    std::vector<ImportedFabricBuffer> imports;
};

CUdeviceptr slot_of(const MappedBuffer& buffer, std::size_t slot) {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(buffer.address())) + slot * sizeof(std::uint64_t);
}

// The driver's first device current in this thread, for the scope.
class CurrentDevice {
public:
    explicit CurrentDevice(Driver& driver) : driver_(driver) {
        CUcontext context = nullptr;
        driver_.device_primary_ctx_retain(&context, 0);
        driver_.ctx_push_current(context);
    }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;
    ~CurrentDevice() {
        CUcontext context = nullptr;
        driver_.ctx_pop_current(&context);
        driver_.device_primary_ctx_release(0);
    }

private:
    Driver& driver_;
};

class Crowd {
public:
    Crowd(unsigned int ranks, unsigned int peers, unsigned int threads)
        : peers_(peers), threads_(threads), members_(ranks) {}

    void make(unsigned int rank) {
        Member& member = members_[rank];
        member.driver = make_emulated_driver(fleet_node(rank));
        const Location place = Location::device(static_cast<int>(rank % kDevicesPerNode));
        member.buffer =
            std::make_unique<FabricBuffer>(member.driver, kFleetBytes, FabricBufferOptions{.location = place});
    }
    void import(unsigned int rank) {
        Member& member = members_[rank];
        member.imports.reserve(peers_);
        for (unsigned int i = 0; i < peers_; ++i) {
            member.imports.emplace_back(member.driver, members_[peer_of(rank, i)].buffer->blob());
        }
    }
    void write(unsigned int rank) {
        Member& member = members_[rank];
        const CurrentDevice current(*member.driver);
        for (unsigned int i = 0; i < peers_; ++i) {
            const std::uint64_t word = fleet_word(rank, peer_of(rank, i));
            if (member.driver->memcpy_htod(slot_of(member.imports[i], i), &word, sizeof word) != CUDA_SUCCESS)
                ++failures_;
        }
    }
    void look(unsigned int rank) {
        Member& member = members_[rank];
        const CurrentDevice current(*member.driver);
        std::vector<std::uint64_t> words(peers_);
        const CUresult result =
            member.driver->memcpy_dtoh(words.data(), slot_of(*member.buffer, 0), words.size() * sizeof words[0]);
        if (result != CUDA_SUCCESS) ++failures_;
        for (unsigned int i = 0; i < peers_; ++i) {
            const auto ranks = static_cast<unsigned int>(members_.size());
            if (words[i] != fleet_word((rank + ranks - i - 1) % ranks, rank)) ++missing_;
        }
    }
    void end(unsigned int rank) { members_[rank] = {}; }

    /// Lets the threads do `step` for every rank.
    void all(void (Crowd::*step)(unsigned int)) {
        std::atomic<unsigned int> next{0};
        const auto work = [&] {
            for (unsigned int rank = 0; (rank = next++) < members_.size();) {
                try {
                    (this->*step)(rank);
                } catch (const Error& error) {
                    ++failures_;
                    std::fprintf(stderr, "rank %u: %s\n", rank, error.what());
                }
            }
        };
        std::vector<std::thread> threads;
        for (unsigned int i = 0; i < threads_; ++i) threads.emplace_back(work);
        for (std::thread& thread : threads) thread.join();
    }

    [[nodiscard]] unsigned int missing() const { return missing_; }
    [[nodiscard]] unsigned int failures() const { return failures_; }

private:
    [[nodiscard]] unsigned int peer_of(unsigned int rank, unsigned int i) const {
        return (rank + i + 1) % static_cast<unsigned int>(members_.size());
    }

    const unsigned int peers_;
    const unsigned int threads_;
    std::vector<Member> members_;
    std::atomic<unsigned int> missing_{0};
    std::atomic<unsigned int> failures_{0};
};

std::size_t descriptors_of_memory() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        if (target.find("memfd:fabricmem") != std::string::npos) ++count;
    }
    return count;
}

std::size_t mappings_of_memory() {
    std::ifstream maps("/proc/self/task/" + std::to_string(::getpid()) + "/maps");
    std::size_t lines = 0;
    for (std::string line; std::getline(maps, line);) {
        if (line.find("memfd:fabricmem") != std::string::npos) ++lines;
    }
    return lines;
}

double rss_kib() {
    std::ifstream file("/proc/self/statm");
    double size = 0;
    double resident = 0;
    file >> size >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

}  // namespace

FleetReport run_fleet(const std::string& rank_program, unsigned int ranks, int seconds) {
    FleetReport report;
    report.ranks = ranks;
    const Clock::time_point begin = Clock::now();
    Fleet fleet(rank_program, ranks, in_seconds(seconds));
    const SharedText blobs(joined(fleet.ask_all("")));
    for (const std::string& answer : fleet.ask_all("import " + blobs.path())) {
        report.mappings_by_device_imports = std::max(report.mappings_by_device_imports, std::stol(answer));
    }
    static_cast<void>(fleet.ask_all("write"));
    look(fleet, &report);
    report.seconds = seconds_since(begin);
    measure_idle(fleet, &report);
    end(fleet, &report);
    return report;
}

CrowdReport run_crowd(unsigned int ranks, unsigned int peers, unsigned int threads) {
    CrowdReport report;
    report.ranks = ranks;
    const double rss_before = rss_kib();
    const Clock::time_point begin = Clock::now();
    Crowd crowd(ranks, peers, threads);
    for (const auto step : {&Crowd::make, &Crowd::import, &Crowd::write, &Crowd::look}) {
        if (crowd.failures() == 0) crowd.all(step);
    }
    report.seconds = seconds_since(begin);
    report.descriptors = descriptors_of_memory();
    report.mappings = mappings_of_memory();
    report.rss_kib_per_rank = (rss_kib() - rss_before) / ranks;
    crowd.all(&Crowd::end);
    report.words_missing = crowd.missing();
    report.failures = crowd.failures();
    report.left_over = descriptors_of_memory() + mappings_of_memory();
    return report;
}

}  // namespace fabricmem::test
