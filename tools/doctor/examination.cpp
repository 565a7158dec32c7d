// SPDX-License-Identifier: Apache-2.0
#include "doctor/examination.hpp"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "common/deadline.hpp"
#include "common/process.hpp"
#include "common/text.hpp"
#include "doctor/command.hpp"
#include "doctor/facts_json.hpp"

namespace doctor {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A probe may make the device's first context, and waits up to 10 s for the GPU by itself.
constexpr seconds kForStep{10};
constexpr seconds kForProbe{30};
constexpr seconds kForAll{60};
constexpr seconds kForEnding{1};
constexpr std::size_t kWordsKept = 16384;

bool is_probe(const std::string& step) { return step.starts_with("device ") || step.starts_with("host "); }

std::map<std::string, std::string> child_environment(const Options& options) {
    if (options.scenario.empty()) return {};
    return {{"FABRICMEM_EMULATOR", options.scenario}};
}

std::string last_line(std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.substr(text.rfind('\n') + 1);
}

class Examination {
public:
    Examination(const Options& options, const Tell& tell) : options_(options), tell_(tell) {
        facts_.emulated = options.driver == DriverKind::emulated;
    }

    Facts run() {
        while (one_child() == Outcome::go_on) {
        }
        return std::move(facts_);
    }

private:
    enum class Outcome : std::uint8_t { go_on, over };

    [[nodiscard]] milliseconds limit_of(const std::string& step) const;
    Outcome one_child();
    Outcome after(Command& child, Command::Read read, const std::string& step, milliseconds lasted);
    void keep_words(const Command& child);

    const Options& options_;
    const Tell& tell_;
    Facts facts_;
    ChildTask task_;
    const examples::Deadline all_{options_.time_limit.has_value()
                                      ? std::max<milliseconds>(6 * *options_.time_limit, kForAll)
                                      : milliseconds(kForAll)};
};

milliseconds Examination::limit_of(const std::string& step) const {
    const milliseconds own = options_.time_limit.value_or(is_probe(step) ? kForProbe : kForStep);
    return std::min(own, milliseconds(all_.left_ms()));
}

void Examination::keep_words(const Command& child) {
    facts_.said += child.err().substr(0, kWordsKept - std::min(kWordsKept, facts_.said.size()));
}

// Reads one child to its end, or to that of its time.
Examination::Outcome Examination::one_child() {
    Command child(examples::command_of_this_program(child_arguments(options_, task_)), child_environment(options_));
    std::string step = "start";
    auto begun = examples::Clock::now();
    examples::Deadline deadline(limit_of(step));
    std::string line;
    auto read = Command::Read::line;
    while ((read = child.read_line(line, deadline)) == Command::Read::line) {
        const Told told = take_line(line, facts_);
        if (told.ended) {
            (void)child.wait(examples::Deadline(kForEnding));  // its libraries may take their time to end
            keep_words(child);
            return Outcome::over;
        }
        if (told.begun.empty()) continue;
        step = told.begun;
        task_.done.push_back(step);
        begun = examples::Clock::now();
        deadline = examples::Deadline(limit_of(step));
        tell_(describe_step(step));
    }
    return after(child, read, step, std::chrono::duration_cast<milliseconds>(examples::Clock::now() - begun));
}

// What becomes of a child that did not come to its end.
Examination::Outcome Examination::after(Command& child, Command::Read read, const std::string& step,
                                        milliseconds lasted) {
    Stuck stuck{.step = step, .after = lasted};
    const auto ended =
        read == Command::Read::end ? child.wait(examples::Deadline(kForEnding)) : std::optional<Command::Ended>();
    if (ended.has_value()) {
        stuck.how = ended->signal != 0 ? Stuck::How::signal : Stuck::How::exit;
        stuck.number = ended->signal != 0 ? ended->signal : ended->exit_code;
    }
    child.kill();
    (void)child.wait(examples::Deadline(kForEnding));  // not longer: what waits in the kernel can't be killed
    (void)child.read_all(examples::Deadline(milliseconds(100)));
    keep_words(child);
    if (step == "start") {
        const std::string why = last_line(child.err());
        throw DoctorFailed(
            examples::formatted("its child process did not start: {}", why.empty() ? "it says nothing" : why));
    }
    facts_.stuck.push_back(std::move(stuck));
    if (all_.passed()) facts_.out_of_time = true;
    const bool no_driver = step.starts_with("driver") || step.starts_with("devices");
    if (facts_.out_of_time || no_driver) return Outcome::over;
    if (step == "nvml") task_.without_nvml = true;
    return Outcome::go_on;
}

}  // namespace

std::string describe_step(const std::string& step) {
    if (is_probe(step)) return "probe of " + step;
    if (step == "machine") return "look at /dev and /proc";
    if (step == "nvml") return "start of NVML";
    if (step.starts_with("driver")) return "start of CUDA";
    if (step.starts_with("devices")) return "look at the devices";
    return step;
}

Facts examine(const Options& options, const Tell& tell) {
    try {
        return Examination(options, tell).run();
    } catch (const std::system_error& error) {
        throw DoctorFailed(examples::formatted("its child process could not be started: {}", error.what()));
    }
}

}  // namespace doctor
