// SPDX-License-Identifier: Apache-2.0
#include "doctor/examination.hpp"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "common/deadline.hpp"
#include "common/text.hpp"
#include "doctor/facts_json.hpp"

namespace doctor {
namespace {

constexpr std::chrono::seconds kForAll{60};
constexpr std::size_t kWordsKept = 16384;

class Examination {
public:
    Examination(const Options& options, const Tell& tell) : options_(options), tell_(tell) {
        facts_.emulated = options.driver == DriverKind::emulated;
    }

    Facts run() {
        while (one_child() == Next::go_on) {
        }
        return std::move(facts_);
    }

private:
    enum class Next : std::uint8_t { go_on, over };

    Next one_child();
    Next after(Stuck stuck);
    void keep_words(const std::string& words) {
        facts_.said += words.substr(0, kWordsKept - std::min(kWordsKept, facts_.said.size()));
    }

    const Options& options_;
    const Tell& tell_;
    Facts facts_;
    ChildTask task_;
    const examples::Deadline all_{
        std::max<std::chrono::milliseconds>(6 * options_.time_limit.value_or(std::chrono::seconds(0)), kForAll)};
};

Examination::Next Examination::one_child() {
    WatchedChild child(options_, task_, tell_, all_);
    while (const auto line = child.next()) {
        if (!take_line(*line, facts_)) continue;
        child.finish();
        keep_words(child.command().err());
        return Next::over;
    }
    Stuck stuck = child.give_up();
    keep_words(child.command().err());
    task_.done.insert(task_.done.end(), child.steps().begin(), child.steps().end());
    return after(std::move(stuck));
}

// What becomes of a child that did not come to its end.
Examination::Next Examination::after(Stuck stuck) {
    const std::string& step = facts_.stuck.emplace_back(std::move(stuck)).step;
    if (all_.passed()) facts_.out_of_time = true;
    const bool no_driver = step.starts_with("driver") || step.starts_with("devices");
    if (facts_.out_of_time || no_driver) return Next::over;
    if (step == "nvml") task_.without_nvml = true;
    return Next::go_on;
}

}  // namespace

Facts examine(const Options& options, const Tell& tell) {
    try {
        return Examination(options, tell).run();
    } catch (const std::system_error& error) {
        throw DoctorFailed(examples::formatted("its child process could not be started: {}", error.what()));
    }
}

}  // namespace doctor
