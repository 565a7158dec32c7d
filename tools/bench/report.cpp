// SPDX-License-Identifier: Apache-2.0
// What was measured where, as a table or as JSON.
#include "report.hpp"
#include "common/text.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "pingpong_setup.hpp"

namespace bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr auto kTableRow = "{:<31} {:>32} {:>32} {:>26} {:>26} {:>7}\n";

std::string now_utc() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return {text.data(), length};
}

/// "580.159.04", from a line as "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue ..."; empty: unknown.
std::string kernel_module_version() {
    std::ifstream file("/proc/driver/nvidia/version");
    for (std::string word; file >> word;) {
        const bool digits_and_dots = word.find_first_not_of("0123456789.") == word.npos;
        if (digits_and_dots && word.find('.') != word.npos) return word;
    }
    return {};
}

std::string driver_version(fabricmem::Driver& driver) {
    int version = 0;
    if (driver.driver_get_version(&version) != CUDA_SUCCESS) return "not known";
    std::string text = examples::formatted("CUDA {}.{}", version / 1000, version % 1000 / 10);
    const std::string module = driver.name() == "cuda" ? kernel_module_version() : std::string();
    if (!module.empty()) text += examples::formatted(", kernel module {}", module);
    return text;
}

std::string spread_text(const Series& series) {
    return examples::formatted("{:.3f} ({:.3f}..{:.3f})", series.median(), series.least(), series.most());
}

std::string difference_text(const Series& difference) {
    return examples::formatted("{:+.3f} ({:+.3f}..{:+.3f})", difference.median(), difference.least(),
                               difference.most());
}

std::string difference_text(const Comparison& comparison) {
    if (comparison.difference) return difference_text(*comparison.difference);
    return examples::formatted("{:+.3f}", comparison.library.median() - comparison.raw->median());
}

Json to_json(const Series& series) {
    return {{"median_us", series.median()},
            {"least_us", series.least()},
            {"most_us", series.most()},
            {"run_medians_us", series.run_medians_us}};
}

std::string_view sign_of(Goal::Sense sense) { return sense == Goal::Sense::at_most ? "at most" : "at least"; }

Json to_json(const Goal& goal) {
    return {{"what", goal.what},
            {"measured", goal.measured},
            {"sense", sign_of(goal.sense)},
            {"limit", goal.limit},
            {"met", goal.met()}};
}

Json to_json(const Comparison& comparison) {
    Json json{{"name", comparison.name}, {"what", comparison.what}};
    if (!comparison.skipped.empty()) {
        json["skipped"] = comparison.skipped;
        return json;
    }
    json["library"] = to_json(comparison.library);
    if (comparison.raw) {
        json["raw"] = to_json(*comparison.raw);
        if (comparison.difference) json["difference"] = to_json(*comparison.difference);
        json["ratio"] = comparison.library.median() / comparison.raw->median();
    }
    if (comparison.own) {
        json["own_us"] = {{"library", to_json(comparison.own->library)},
                          {"raw", to_json(comparison.own->raw)},
                          {"difference", to_json(comparison.own->difference)}};
    }
    for (const auto& [name, series] : comparison.beside) json["beside"][name] = to_json(series);
    for (const auto& [name, why] : comparison.skipped_beside) json["skipped_beside"][name] = why;
    for (const auto& [name, figure] : comparison.figures) json["figures"][name] = figure;
    for (const Goal& goal : comparison.goals) json["goals"].push_back(to_json(goal));
    return json;
}

}  // namespace

Setting setting_of(fabricmem::Driver& driver, int device, std::optional<Cpus> cpus, std::string refused) {
    Setting setting{.date = now_utc(),
                    .driver = std::string(driver.name()),
                    .driver_version = driver_version(driver),
                    .device = examples::formatted("{} ({})", device, examples::device_name(driver, device)),
                    .cpus = cpus,
                    .caveat = {},
                    .refused = std::move(refused)};
    if (setting.driver != "cuda") {
        setting.caveat =
            "not a real driver: its calls cost what the emulation costs; only the differences between "
            "library and raw mean something";
    }
    return setting;
}

void print_setting(const Setting& setting, const Options& options) {
    examples::print(stdout, "{} driver ({}), device {}, {}\n", setting.driver, setting.driver_version, setting.device,
                    setting.date);
    if (!setting.refused.empty()) examples::print(stdout, "the real driver was not taken: {}\n", setting.refused);
    if (!setting.caveat.empty()) examples::print(stdout, "caveat: {}\n", setting.caveat);
    if (options.context == Context::none) examples::print(stdout, "no context is held while memory is made\n");
    examples::print(stdout,
                    "microseconds: median of the medians of {} runs of {} rounds (least..most of the runs' medians)\n",
                    options.runs, options.rounds);
    examples::print(stdout, "difference: of each round of library and raw; of the ping-pong, of the medians\n");
    examples::print(stdout,
                    "own: the same, of the time outside the driver's calls; null: raw in the library's place\n");
    if (setting.cpus) {
        examples::print(stdout, "this process stays on CPUs {}, the other one on CPUs {}\n",
                        to_text(setting.cpus->first), to_text(setting.cpus->second));
    } else {
        examples::print(stdout, "the processes stay on no CPU: {}\n",
                        options.pin == Pin::no ? "--pin no" : "there are no two to choose from");
    }
    examples::print(stdout, kTableRow, "", "library", "raw", "difference", "own", "ratio");
    std::fflush(stdout);
}

void print_row(const Comparison& comparison) {
    if (!comparison.skipped.empty()) {
        examples::print(stdout, "{:<31} skipped: {}\n", comparison.name, comparison.skipped);
        std::fflush(stdout);
        return;
    }
    std::array<std::string, 4> cells{};
    if (comparison.raw) {
        cells[0] = spread_text(*comparison.raw);
        cells[1] = difference_text(comparison);
        cells[3] = examples::formatted("{:.3f}", comparison.library.median() / comparison.raw->median());
    }
    if (comparison.own) cells[2] = difference_text(comparison.own->difference);
    examples::print(stdout, kTableRow, comparison.name, spread_text(comparison.library), cells[0], cells[1], cells[2],
                    cells[3]);
    for (const auto& [name, series] : comparison.beside) {
        examples::print(stdout, kTableRow, "  " + name, "", spread_text(series), "", "",
                        examples::formatted("{:.3f}", comparison.library.median() / series.median()));
    }
    for (const auto& [name, why] : comparison.skipped_beside) {
        examples::print(stdout, "  {}: skipped: {}\n", name, why);
    }
    for (const auto& [name, figure] : comparison.figures) examples::print(stdout, "  {}: {:.4g}\n", name, figure);
    for (const Goal& goal : comparison.goals) {
        examples::print(stdout, "  goal: {} {} {:.4g}: {:.4g}, {}\n", goal.what, sign_of(goal.sense), goal.limit,
                        goal.measured, goal.met() ? "met" : "missed");
    }
    std::fflush(stdout);
}

void print_json(const Setting& setting, const Options& options, const std::vector<Comparison>& comparisons) {
    Json document{{"program", "fabricmem-bench"},
                  {"date", setting.date},
                  {"driver", setting.driver},
                  {"driver_version", setting.driver_version},
                  {"device", setting.device},
                  {"cpus", setting.cpus ? Json{to_text(setting.cpus->first), to_text(setting.cpus->second)} : Json()},
                  {"context", options.context == Context::held ? "held" : "none"},
                  {"caveat", setting.caveat.empty() ? Json() : Json(setting.caveat)},
                  {"real_driver_answer", setting.refused.empty() ? Json() : Json(setting.refused)},
                  {"rounds", options.rounds},
                  {"runs", options.runs},
                  {"results", Json::array()}};
    for (const Comparison& comparison : comparisons) document["results"].push_back(to_json(comparison));
    const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace);
    if (options.json_file.empty()) {
        examples::print(stdout, "{}\n", text);
        return;
    }
    std::ofstream file(options.json_file);
    file << text << '\n';
    if (!file.flush()) throw std::runtime_error(examples::formatted("can't write {}", options.json_file));
}

}  // namespace bench
