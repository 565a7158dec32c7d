// SPDX-License-Identifier: Apache-2.0
// What a survivor and a victim do. Whatever is not as it has to be is one line that begins with "broken".
#include "soak/soak_peer.hpp"

#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <optional>
#include <sstream>
#include <vector>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/error.hpp>

#include "soak/soak_memory.hpp"
#include "support/driver_kit.hpp"

namespace fabricmem::soak {

namespace {

constexpr std::chrono::seconds kPatience{20};

Location location_of(const std::string& place) {
    return place == "host" ? Location::host_numa(0) : Location::device(0);
}

std::uint64_t next_pattern() {
    static std::uint64_t count = 0;
    return (static_cast<std::uint64_t>(::getpid()) << 32) + ++count;
}

void say(const std::string& line) { std::cout << line << std::endl; }

// "gone", where it is what a peer has to see of a dead exporter.
std::string gone(const Error& error) {
    if (error.kind() == ErrorKind::peer_gone && error.code() == CUDA_ERROR_NOT_SUPPORTED) return "gone";
    throw Broken("import: kind " + std::string(to_string(error.kind())) + ", code " + std::to_string(error.code()) +
                 ": " + error.what());
}

void become(unsigned int user) {
    if (user == 0) return;
    if (::setgroups(0, nullptr) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0) throw Broken("--user needs root");
    // What changes its user is closed to others of that user, too, unless it says otherwise.
    if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) throw Broken("prctl failed");
}

bool stdin_has_a_line() {
    pollfd entry{STDIN_FILENO, POLLIN, 0};
    return ::poll(&entry, 1, 0) > 0;
}

class Survivor {
public:
    explicit Survivor(std::shared_ptr<Driver> driver) : driver_(std::move(driver)) {}

    std::string obey(const std::string& line) {
        std::istringstream words(line);
        std::string command;
        words >> command;
        if (command == "import") return import(words);
        if (command == "verify") return verify();
        if (command == "retry") return retry(words);
        if (command == "drop") return drop();
        if (command == "export") return make(words);
        if (command == "check") return check();
        if (command == "close") return close();
        if (command == "usage") return usage();
        if (command == "room") return std::to_string(room_on_device(*driver_));
        throw Broken("no command " + command);
    }

private:
    struct Held {
        ImportedFabricBuffer buffer;
        std::uint64_t pattern = 0;
        std::uint64_t word = 0;
    };

    // import HEX PATTERN
    std::string import(std::istringstream& words) {
        std::string hex;
        std::uint64_t pattern = 0;
        words >> hex >> pattern;
        try {
            held_.push_back({ImportedFabricBuffer(driver_, HandleBlob::from_hex(hex)), pattern, 0});
        } catch (const Error& error) {
            return gone(error);
        }
        check_pattern(*driver_, held_.back().buffer, pattern);
        write_word(held_.back());
        return "imported";
    }

    void write_word(Held& held) {
        held.word = next_pattern();
        store(*driver_, held.buffer, kWordSlot, held.word);
    }

    // All that is held is as it was, and can still be written.
    std::string verify() {
        for (Held& held : held_) {
            check_pattern(*driver_, held.buffer, held.pattern);
            if (load(*driver_, held.buffer, kWordSlot) != held.word) throw Broken("an importer's word is lost");
            write_word(held);
            if (load(*driver_, held.buffer, kWordSlot) != held.word) throw Broken("an import can't be written");
        }
        return "verified";
    }

    // retry HEX: of an exporter that is dead.
    std::string retry(std::istringstream& words) {
        std::string hex;
        words >> hex;
        const HandleBlob blob = HandleBlob::from_hex(hex);
        if (import_if_alive(driver_, blob)) throw Broken("a dead exporter's memory was imported");
        try {
            const ImportedFabricBuffer imported(driver_, blob);
        } catch (const Error& error) {
            return gone(error);
        }
        throw Broken("a dead exporter's memory was imported at the second try");
    }

    std::string drop() {
        for (Held& held : held_) held.buffer.close();
        held_.clear();
        return "dropped";
    }

    // export device|host
    std::string make(std::istringstream& words) {
        std::string place;
        words >> place;
        own_.emplace(driver_, kBytes, FabricBufferOptions{.location = location_of(place)});
        pattern_ = next_pattern();
        store_pattern(*driver_, *own_, pattern_);
        return own_->blob().to_hex() + " " + std::to_string(pattern_);
    }

    // Its own memory is whole after an importer's death.
    std::string check() {
        check_pattern(*driver_, *own_, pattern_);
        const ImportedFabricBuffer again(driver_, own_->blob());
        const std::uint64_t word = next_pattern();
        store(*driver_, again, kOwnSlot, word);
        if (load(*driver_, *own_, kOwnSlot) != word) throw Broken("the exporter's memory can't be written");
        return "checked";
    }

    std::string close() {
        const HandleBlob blob = own_->blob();
        const CloseResult result = own_->close();
        own_.reset();
        // The real driver lets memory be imported for as long as a peer's import is under way, too: seen on an H100.
        const bool asked_again = driver_->name() == "cuda";
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        if (result != CloseResult::released && !asked_again) throw Broken("something still refers to closed memory");
        while (import_if_alive(driver_, blob)) {
            if (!asked_again || std::chrono::steady_clock::now() > deadline) throw Broken("closed memory was imported");
        }
        return "closed";
    }

    std::string usage() {
        const Usage usage = usage_of_this_process(*driver_);
        std::ostringstream text;
        text << usage.descriptors << ' ' << usage.held << ' ' << usage.mappings << ' ' << usage.shared_kib << ' '
             << usage.private_kib;
        return text.str();
    }

    std::shared_ptr<Driver> driver_;
    std::vector<Held> held_;
    std::optional<FabricBuffer> own_;
    std::uint64_t pattern_ = 0;
};

int survive(const std::shared_ptr<Driver>& driver) {
    Survivor survivor(driver);
    say("ready");
    for (std::string line; std::getline(std::cin, line);) say(survivor.obey(line));
    return 0;
}

// Exports memory, tells its blob, and makes, exports and destroys others as fast as it can. A line ("next") ends that
// memory: "closing" is said before, so that nobody is surprised.
int export_until_killed(const std::shared_ptr<Driver>& driver, const std::string& place) {
    const FabricBufferOptions options{.location = location_of(place)};
    for (;;) {
        FabricBuffer published(driver, kBytes, options);
        const std::uint64_t pattern = next_pattern();
        store_pattern(*driver, published, pattern);
        say("blob " + published.blob().to_hex() + " " + std::to_string(pattern));
        while (!stdin_has_a_line()) {
            FabricBuffer other(driver, kBytes, options);
            store(*driver, other, kWordSlot, pattern);
        }
        std::string line;
        if (!std::getline(std::cin, line)) return 0;
        say("closing");
    }
}

// Imports the memory of a blob, reads, writes and destroys it as fast as it can, until its exporter is gone.
int import_until_killed(const std::shared_ptr<Driver>& driver) {
    std::string hex;
    std::uint64_t pattern = 0;
    if (!(std::cin >> hex >> pattern)) return 0;
    std::cin.ignore();
    const HandleBlob blob = HandleBlob::from_hex(hex);
    for (std::uint64_t round = 1; !stdin_has_a_line(); ++round) {
        try {
            const ImportedFabricBuffer imported(driver, blob);
            check_pattern(*driver, imported, pattern);
            store(*driver, imported, kWordSlot, round);
        } catch (const Error& error) {
            say(gone(error));
            break;
        }
        if (round == 1) say("wrote");
    }
    for (std::string line; std::getline(std::cin, line);) continue;
    return 0;
}

}  // namespace

int run_peer(const PeerOptions& options) {
    try {
        become(static_cast<unsigned int>(std::stoul(options.user)));
        const auto driver = options.driver == "cuda" ? make_cuda_driver() : make_emulated_driver();
        const test::CurrentContext context(*driver);
        if (options.role == "survivor") return survive(driver);
        if (options.role == "exporter") return export_until_killed(driver, options.place);
        return import_until_killed(driver);
    } catch (const std::exception& error) {
        std::string text = error.what();
        for (char& character : text) {
            if (character == '\n') character = ' ';
        }
        say("broken: " + text);
        return 1;
    }
}

}  // namespace fabricmem::soak
