// SPDX-License-Identifier: Apache-2.0
// fabricmem-emulator: writes scenarios of the emulated fabric, and flips their switches while jobs run.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>

namespace {

using fabricmem::EmulatedFabric;
using fabricmem::Scenario;
using Words = std::vector<std::string>;

constexpr const char* kHelp =
    "fabricmem-emulator: scenarios of the emulated fabric, and their switches (docs/emulator.md).\n\n"
    "  fabricmem-emulator list                       the ready-made scenarios\n"
    "  fabricmem-emulator write NAME FILE            one of them as JSON, with switches in FILE.switches\n"
    "  fabricmem-emulator show FILE                  the switches of each node\n"
    "  fabricmem-emulator set FILE NODE SWITCH VALUE flips one, for all processes that use FILE\n\n"
    "Exit code: 0 done, 1 it failed, 2 a wrong command line.\n";

void list() {
    for (const std::string& name : Scenario::ready_made_names()) std::printf("%s\n", name.c_str());
}

[[noreturn]] void fail(const std::string& path) {
    throw std::runtime_error("the file " + path + ": " + std::strerror(errno));
}

void write(const std::string& name, const std::string& path) {
    Scenario scenario = Scenario::ready_made(name);
    scenario.switches = path.substr(path.rfind('/') + 1) + ".switches";
    const std::string text = scenario.to_json();
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) fail(path);
    const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    if (::close(file) != 0 || !written) fail(path);
}

// The scenario with the switches that its other processes have.
std::shared_ptr<EmulatedFabric> open_fabric(const std::string& path) {
    const Scenario scenario = Scenario::from_file(path);
    if (scenario.switches.empty()) {
        throw std::runtime_error(path + " names no file of switches (\"switches\"): each process has its own");
    }
    return fabricmem::make_emulated_fabric(scenario);
}

void show(const std::string& path) {
    const auto fabric = open_fabric(path);
    std::vector<Words> rows{{"node"}};
    for (const std::string& name : EmulatedFabric::switch_names()) {
        rows[0].push_back(name == "node" ? "life" : name);
    }
    for (const auto& node : fabric->scenario().nodes) {
        Words& row = rows.emplace_back(Words{node.name});
        for (const std::string& name : EmulatedFabric::switch_names()) row.push_back(fabric->get(node.name, name));
    }
    for (const Words& row : rows) {
        std::string line;
        for (std::size_t column = 0; column < row.size(); ++column) {
            std::size_t width = 0;
            for (const Words& other : rows) width = std::max(width, other[column].size());
            line += row[column];
            if (column + 1 < row.size()) line.append(width + 2 - row[column].size(), ' ');
        }
        std::printf("%s\n", line.c_str());
    }
}

void set(const Words& words) { open_fabric(words[1])->set(words[2], words[3], words[4]); }

int run(const Words& words) {
    const std::string command = words.empty() ? std::string() : words[0];
    if (command == "list" && words.size() == 1) {
        list();
    } else if (command == "write" && words.size() == 3) {
        write(words[1], words[2]);
    } else if (command == "show" && words.size() == 2) {
        show(words[1]);
    } else if (command == "set" && words.size() == 5) {
        set(words);
    } else if (command == "--help" && words.size() == 1) {
        std::fputs(kHelp, stdout);
    } else {
        std::fputs("fabricmem-emulator: none of list, write NAME FILE, show FILE, set FILE NODE SWITCH VALUE, --help\n",
                   stderr);
        return 2;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(Words(argv + 1, argv + argc));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "fabricmem-emulator: error: %s\n", error.what());
        return 1;
    }
}
