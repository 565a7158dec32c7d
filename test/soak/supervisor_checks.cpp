// SPDX-License-Identifier: Apache-2.0
// What is looked at before, between and after the rounds: nothing stays behind, nothing grows.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "soak/supervisor.hpp"
#include "support/build.hpp"

namespace fabricmem::soak {

namespace {

constexpr std::uint64_t kWindow = 100;   // rounds at the beginning and at the end that are compared
constexpr std::uint64_t kWarmUp = 10;    // rounds that are not
constexpr std::size_t kGrowthKib = 256;  // of private memory, from the first window's mean to the last one's
constexpr std::size_t kCudaGrowthKib = 4096;
constexpr std::size_t kCudaDescriptors = 2;                    // that the real driver may have opened since
constexpr std::uint64_t kRoomBytes = std::uint64_t{64} << 20;  // what the real driver's room may differ by

std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error))
        names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

std::string make_folder() {
    std::string path = (std::filesystem::temp_directory_path() / "soak-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) throw Failure("no temporary directory could be made: " + path);
    return path;
}

std::size_t mean_private_kib(const std::vector<SurvivorUsage>& usages, std::size_t begin, std::size_t count) {
    std::size_t sum = 0;
    for (std::size_t i = begin; i < begin + count; ++i) sum += usages[i].private_kib;
    return sum / count;
}

std::size_t most_descriptors(const std::vector<SurvivorUsage>& usages, std::size_t begin, std::size_t count) {
    std::size_t most = 0;
    for (std::size_t i = begin; i < begin + count; ++i) most = std::max(most, usages[i].descriptors);
    return most;
}

// ThreadSanitizer makes and removes a file of this name before main; a process killed between leaves it.
bool is_the_sanitizers(const std::string& name) { return test::kSanitized && name.compare(0, 12, "tsan.rodata.") == 0; }

}  // namespace

Supervisor::Supervisor(std::string program, const Options& options)
    : program_(std::move(program)),
      options_(options),
      patience_seconds_(test::kSlowBuild || options.driver == "cuda" ? 120 : 30),
      folder_(make_folder()),
      shared_before_(names_in("/dev/shm")) {
    ::setenv("TMPDIR", folder_.c_str(), 1);
    if (::chdir(folder_.c_str()) != 0) throw Failure("can't go to " + folder_);
    const Clock::time_point begin = Clock::now();
    survivor_ = std::make_unique<Process>("survivor", peer("survivor"), patience_seconds_);
    if (survivor_->hear("ready") != "ready") throw Failure("the survivor did not start");
    exporter_span_.seconds = importer_span_.seconds = 1.5 * std::chrono::duration<double>(Clock::now() - begin).count();
    room_ = std::stoull(survivor_->ask("room"));
    baseline_ = usage();
}

Supervisor::~Supervisor() {
    survivor_.reset();
    std::error_code error;
    std::filesystem::current_path("/", error);
    std::filesystem::remove_all(folder_, error);
}

bool Supervisor::go_on(Clock::time_point begin) const {
    if (options_.rounds != 0 && rounds_done_ >= options_.rounds) return false;
    return options_.seconds == 0 || Clock::now() - begin < std::chrono::seconds(options_.seconds);
}

void Supervisor::run() {
    const Clock::time_point begin = Clock::now();
    for (; go_on(begin); ++rounds_done_) {
        const Choices choices = choose(options_.seed, rounds_done_);
        try {
            round(choices);
        } catch (const Failure& failure) {
            throw Failure("round " + std::to_string(rounds_done_) + " (" + to_string(choices) + "): " + failure.what());
        }
    }
    check_growth();
    finish();
    seconds_ = std::chrono::duration<double>(Clock::now() - begin).count();
}

SurvivorUsage Supervisor::usage() {
    std::istringstream numbers(survivor_->ask("usage"));
    SurvivorUsage usage;
    numbers >> usage.descriptors >> usage.held >> usage.mappings >> usage.shared_kib >> usage.private_kib;
    return usage;
}

// What the emulated driver holds has to come back exactly; of the real one's process only its driver knows.
void Supervisor::check_nothing_left() {
    const SurvivorUsage now = usage();
    usages_.push_back(now);
    const auto same = [](const char* what, std::size_t was, std::size_t is) {
        if (was == is) return;
        throw Failure("the survivor's " + std::string(what) + ": " + std::to_string(is) + " after the round, " +
                      std::to_string(was) + " at the beginning");
    };
    if (options_.driver == "emulated") {
        same("open descriptors", baseline_.descriptors, now.descriptors);
        same("allocations, handles, ranges and so on", baseline_.held, now.held);
        same("mappings of emulated memory", baseline_.mappings, now.mappings);
        same("resident shared memory in KiB", baseline_.shared_kib, now.shared_kib);
    }
    for (const std::string& name : names_in(folder_)) {
        if (!is_the_sanitizers(name)) throw Failure("a file stayed behind: " + name);
    }
    for (const std::string& name : names_in("/dev/shm")) {
        if (name.find("fabricmem") == std::string::npos) continue;
        if (!std::binary_search(shared_before_.begin(), shared_before_.end(), name)) {
            throw Failure("a file stayed behind: /dev/shm/" + name);
        }
    }
}

void Supervisor::check_growth() const {
    const std::size_t window = std::min<std::size_t>(kWindow, usages_.size() / 3);
    if (window == 0) return;
    const std::size_t first = std::min<std::size_t>(kWarmUp, usages_.size() - 2 * window);
    const std::size_t last = usages_.size() - window;
    const std::size_t was = mean_private_kib(usages_, first, window);
    const std::size_t is = mean_private_kib(usages_, last, window);
    const std::size_t opened = most_descriptors(usages_, first, window);
    const std::size_t open = most_descriptors(usages_, last, window);
    const bool cuda = options_.driver == "cuda";
    std::printf(
        "survivor: private memory %zu KiB in the first %zu rounds, %zu KiB in the last; descriptors %zu and %zu\n", was,
        window, is, opened, open);
    if (open > opened + (cuda ? kCudaDescriptors : 0)) throw Failure("the survivor's descriptors have grown");
    if (test::kSanitized) return;  // freed memory is kept there for a while
    if (is > was + (cuda ? kCudaGrowthKib : kGrowthKib)) throw Failure("the survivor's private memory has grown");
}

void Supervisor::finish() {
    const std::uint64_t room = std::stoull(survivor_->ask("room"));
    std::printf("largest allocation that device 0 grants: %llu MiB before, %llu MiB after\n",
                static_cast<unsigned long long>(room_ >> 20), static_cast<unsigned long long>(room >> 20));
    if (room + (options_.driver == "cuda" ? kRoomBytes : 0) < room_)
        throw Failure("memory of the device stayed behind");
    survivor_->close_input();
    if (survivor_->wait() != test::Ended{0, 0}) throw Failure("the survivor ended badly");
    if (::waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD) throw Failure("a process stayed behind");
}

void Supervisor::report() const {
    static constexpr const char* kNames[] = {"starting", "published", "in use", "done, churning", "closed"};
    std::printf("%llu rounds in %.1f s, %llu imports met memory that was closed or whose exporter had died\n",
                static_cast<unsigned long long>(rounds_done_), seconds_, static_cast<unsigned long long>(races_lost_));
    for (const std::size_t role : {0U, 1U}) {
        std::printf("killed %ss by what they had come to:", role == 1 ? "exporter" : "importer");
        for (std::size_t stage = 0; stage < kStages; ++stage) {
            std::printf(" %s %llu%s", kNames[stage], static_cast<unsigned long long>(kills_[role][stage]),
                        stage + 1 < kStages ? "," : "\n");
        }
    }
}

}  // namespace fabricmem::soak
