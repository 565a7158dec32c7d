// SPDX-License-Identifier: Apache-2.0
// A flag there and a flag back through FlagSlots, between two processes.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "pingpong_gpu.hpp"
#include "pingpong_setup.hpp"
#include "pingpong_spin.hpp"

namespace bench {
namespace {

constexpr std::uint64_t kFlagBytes = 4096;
constexpr std::chrono::milliseconds kFlagSlice{200};  // how often a wait asks whether the other side is still there

/// Who loads and stores the flags.
enum class FlagsBy : std::uint8_t { cpu, copies };

struct FlagCase {
    const char* name;
    pingpong::Place place;
    FlagsBy by;
};
constexpr std::array kFlagCases{FlagCase{"copies/device", pingpong::Place::device, FlagsBy::copies},
                                FlagCase{"copies/host", pingpong::Place::host, FlagsBy::copies},
                                FlagCase{"cpu/host", pingpong::Place::host, FlagsBy::cpu}};

/// Both sides' flags. What this side waits for is in its own memory.
template <class Value>
class FlagPair {
public:
    FlagPair(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const FlagCase& flags,
             pingpong::Control& control)
        : control_(control), own_memory_(driver, kFlagBytes, wanted(options, flags)), own_(own_block()) {
        own_.reset_all();
        control.send(pingpong::Message::blob, own_memory_.blob().to_bytes());
        const auto blob = fabricmem::HandleBlob::from_bytes(
            control.receive(pingpong::Message::blob, "the blob of the other side's flags"));
        fabricmem::ImportOptions import;
        if (flags.by == FlagsBy::copies) import.host_access = fabricmem::HostAccess::none;
        peer_.emplace(std::make_shared<const fabricmem::ImportedFabricBuffer>(driver, blob, import), 0, 1);
    }

    void set(std::uint32_t number) { peer_->store(0, value_of(number)); }

    void wait(std::uint32_t number) {
        const examples::Clock::time_point since = examples::Clock::now();
        while (!own_.wait_until(0, number, std::chrono::steady_clock::now() + kFlagSlice)) control_.check(since, kFlag);
    }

    void spin(std::uint32_t number) {
        pingpong::spin_until(control_, kFlag, [&] { return is(number); });
    }

    [[nodiscard]] bool is_direct() const noexcept { return own_.is_direct() && peer_->is_direct(); }

private:
    static constexpr std::string_view kFlag = "a flag of the other side";

    static fabricmem::FabricBufferOptions wanted(const Options& options, const FlagCase& flags) {
        fabricmem::FabricBufferOptions result;
        result.location = pingpong::location_of(flags.place, options.device);
        if (flags.by == FlagsBy::copies) result.host_access = fabricmem::HostAccess::none;
        return result;
    }

    [[nodiscard]] fabricmem::Block own_block() { return own_memory_.allocate(kFlagBytes); }

    static Value value_of(std::uint32_t number) {
        if constexpr (std::is_same_v<Value, fabricmem::SlotMessage>) {
            return {.sequence = number, .payload = {}};
        } else {
            return number;
        }
    }

    [[nodiscard]] bool is(std::uint32_t number) const {
        const auto loaded = own_.load(0);
        if constexpr (std::is_same_v<Value, fabricmem::SlotMessage>) {
            return loaded && loaded->sequence == number;
        } else {
            return loaded == number;
        }
    }

    pingpong::Control& control_;
    fabricmem::Arena own_memory_;
    fabricmem::FlagSlots<Value> own_;
    std::optional<fabricmem::FlagSlots<Value>> peer_;
};

enum class FlagSide : std::uint8_t { first, second };

/// A round trip; on the second side, its answer. `wait` is how both wait.
template <class Value>
Way flag_way(std::string name, FlagPair<Value>& flags, std::uint32_t& number, FlagSide side,
             void (FlagPair<Value>::*wait)(std::uint32_t)) {
    return timed_way(std::move(name), [&flags, &number, side, wait] {
        ++number;
        if (side == FlagSide::first) flags.set(number);
        (flags.*wait)(number);
        if (side == FlagSide::second) flags.set(number);
    });
}

template <class Value>
Comparison play_flags(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const FlagCase& played,
                      pingpong::Control& control, FlagSide side) {
    Comparison comparison{
        .name = "flags " + std::to_string(fabricmem::FlagSlots<Value>::kSlotBytes) + " B " + played.name,
        .what =
            "round trip of a flag between two processes by FlagSlots: store() and wait_until(); beside: store() and "
            "load() again and again; the flags are loaded and stored by the CPU, or copied by the GPU"};
    {
        FlagPair<Value> flags(driver, options, played, control);
        if (flags.is_direct() != (played.by == FlagsBy::cpu)) {
            // Both sides find the same: their memory is made alike.
            comparison.skipped = "the CPU can't load and store this memory";
        } else {
            std::uint32_t number = 0;
            const std::vector<Way> ways{flag_way("library", flags, number, side, &FlagPair<Value>::wait),
                                        flag_way("load() in a loop", flags, number, side, &FlagPair<Value>::spin)};
            const std::uint32_t share = played.by == FlagsBy::cpu ? 1 : 5;
            const Amount amount{.rounds = std::max(options.rounds / share, std::min(options.rounds, 5U)),
                                .runs = options.runs};
            measure_ways(amount, comparison, ways, Second::beside);
        }
        control.send(pingpong::Message::done, "");
        (void)control.receive(pingpong::Message::done, "the end of the other side's flags");
    }
    return comparison;
}

void play_all_flags(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                    pingpong::Control& control, FlagSide side, const Take& take) {
    const pingpong::CurrentContext context(driver, options.device);
    for (const FlagCase& played : kFlagCases) {
        take(play_flags<std::uint32_t>(driver, options, played, control, side));
        take(play_flags<fabricmem::SlotMessage>(driver, options, played, control, side));
    }
}

}  // namespace

void bench_flags(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control,
                 const Take& take) {
    play_all_flags(driver, options, control, FlagSide::first, take);
}

void serve_flags(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control) {
    play_all_flags(driver, options, control, FlagSide::second, [](const Comparison&) {});
}

}  // namespace bench
