// SPDX-License-Identifier: Apache-2.0
#include "doctor/watched_child.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "common/process.hpp"
#include "common/text.hpp"
#include "doctor/facts_json.hpp"

namespace doctor {
namespace {

using examples::Clock;
using examples::Deadline;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A probe may make the device's first context, and waits up to 10 s for the GPU by itself.
constexpr seconds kForStep{10};
constexpr seconds kForProbe{30};
constexpr seconds kForTheEnd{1};

bool is_probe(std::string_view step) {
    return step.starts_with("device ") || step.starts_with("host ") || step.starts_with("export of ") ||
           step.starts_with("import of ");
}

std::map<std::string, std::string> child_environment(const Options& options) {
    if (options.scenario.empty()) return {};
    return {{"FABRICMEM_EMULATOR", options.scenario}};
}

std::string last_line(std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.substr(text.rfind('\n') + 1);
}

Command::Input input_of(const ChildTask& task) {
    return task.part == ChildTask::Part::examine ? Command::Input::none : Command::Input::lines;
}

}  // namespace

std::string describe_step(const std::string& step) {
    if (step.starts_with("device ") || step.starts_with("host ")) return "probe of " + step;
    if (step == "machine") return "look at /dev and /proc";
    if (step == "nvml") return "start of NVML";
    if (step.starts_with("driver")) return "start of CUDA";
    if (step.starts_with("devices")) return "look at the devices";
    return step;
}

WatchedChild::WatchedChild(const Options& options, const ChildTask& task, const Tell& tell, const Deadline& all)
    : options_(options),
      tell_(tell),
      all_(all),
      command_(examples::command_of_this_program(child_arguments(options, task)), child_environment(options),
               input_of(task)),
      deadline_(limit()) {}

Deadline WatchedChild::limit() const {
    const milliseconds usual = !steps_.empty() && is_probe(steps_.back()) ? kForProbe : kForStep;
    const milliseconds own = options_.time_limit.has_value() ? milliseconds(*options_.time_limit) : usual;
    return Deadline(std::min(own, milliseconds(all_.left_ms())));
}

std::optional<std::string> WatchedChild::next() {
    std::string line;
    while ((last_ = command_.read_line(line, deadline_)) == Command::Read::line) {
        const std::string step = begun_step(line);
        if (step.empty()) return line;
        steps_.push_back(step);
        begun_ = Clock::now();
        deadline_ = limit();
        tell_(describe_step(step));
    }
    return std::nullopt;
}

std::optional<std::string> WatchedChild::ask(const std::string& line) {
    begun_ = Clock::now();
    deadline_ = limit();
    (void)command_.write_line(line);  // one that takes none is one that does not answer
    return next();
}

Stuck WatchedChild::give_up() {
    Stuck stuck{.after = std::chrono::duration_cast<milliseconds>(Clock::now() - begun_)};
    const auto ended =
        last_ == Command::Read::end ? command_.wait(Deadline(kForTheEnd)) : std::optional<Command::Ended>();
    if (ended.has_value()) {
        stuck.how = ended->signal != 0 ? Stuck::How::signal : Stuck::How::exit;
        stuck.number = ended->signal != 0 ? ended->signal : ended->exit_code;
    }
    command_.kill();
    (void)command_.wait(Deadline(kForTheEnd));  // not longer: what waits in the kernel can't be killed
    (void)command_.read_all(Deadline(milliseconds(100)));
    if (steps_.empty()) {
        const std::string why = last_line(command_.err());
        throw DoctorFailed(
            examples::formatted("its child process did not start: {}", why.empty() ? "it says nothing" : why));
    }
    stuck.step = steps_.back();
    return stuck;
}

void WatchedChild::finish() {
    command_.close_input();
    (void)command_.wait(Deadline(kForTheEnd));  // its libraries may take their time to end
}

}  // namespace doctor
