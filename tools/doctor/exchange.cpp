// SPDX-License-Identifier: Apache-2.0
#include "doctor/exchange.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "common/text.hpp"
#include "doctor/facts_json.hpp"
#include "doctor/words.hpp"

namespace doctor {
namespace {

using examples::formatted;

/// A child that did not come to its end, as what it means for the other side.
Trouble trouble_of(const Stuck& stuck) {
    const std::string step = describe_step(stuck.step);
    if (stuck.how == Stuck::How::late)
        return {"FM-DRIVER-008", formatted("the {} did not come to an end in time", step)};
    return {"FM-DRIVER-009", formatted("the {} ended its process", step)};
}

Trouble trouble_of(const Failure& failure) {
    return {std::string(check_of(failure)), failure.cause.empty() ? failure.text : failure.cause};
}

std::string new_nonce() {
    std::random_device random;
    return formatted("{:08x}{:08x}", random(), random());
}

Cell failed_here(const std::string& place, const Trouble& trouble) {
    return {
        .place = place, .state = Cell::State::failed, .check = trouble.check, .cause = trouble.cause, .side = "here"};
}

}  // namespace

Exporter::Exporter(const Options& options, const Tell& tell, const examples::Deadline& all)
    : offer_{.nonce = new_nonce()},
      child_(std::make_unique<WatchedChild>(options, ChildTask{.part = ChildTask::Part::export_memory}, tell, all)) {
    take_probes();
}

Exporter::~Exporter() {
    if (child_ != nullptr) child_->finish();
}

void Exporter::take_probes() {
    Facts facts;
    while (const auto line = child_->next()) {
        if (auto probe = probe_from(*line)) offer_.probes.push_back(std::move(*probe));
        if (!take_line(*line, facts)) continue;
        if (facts.driver.has_value() && facts.driver->why_not.has_value())
            offer_.trouble = trouble_of(*facts.driver->why_not);
        return;
    }
    offer_.trouble = trouble_of(child_->give_up());
    offer_.probes.clear();  // they went with the process
    child_.reset();
}

Importer::Importer(const Options& options, const Tell& tell, const examples::Deadline& all)
    : options_(options), tell_(tell), all_(all) {}

bool Importer::start() {
    if (child_ != nullptr) return true;
    if (!no_driver_.check.empty()) return false;
    child_ = std::make_unique<WatchedChild>(options_, ChildTask{.part = ChildTask::Part::import_memory}, tell_, all_);
    Facts facts;
    if (const auto line = child_->next(); line.has_value()) {
        (void)take_line(*line, facts);
        if (facts.driver.has_value() && !facts.driver->why_not.has_value()) return true;
    }
    no_driver_ = facts.driver.has_value() ? trouble_of(*facts.driver->why_not) : trouble_of(child_->give_up());
    child_.reset();
    return false;
}

Cell Importer::try_one(const Offer::Probe& probe) {
    if (!start()) return failed_here(probe.place, no_driver_);
    // Below the time that this process gives its child, so that the library can say what hangs.
    constexpr std::chrono::milliseconds kForImport{10'000};
    const auto limit =
        options_.time_limit.has_value() ? std::chrono::milliseconds(*options_.time_limit) / 2 : kForImport;
    const auto timeout = std::min<std::chrono::milliseconds>(limit, std::chrono::milliseconds(all_.left_ms()) / 2);
    if (const auto line = child_->ask(import_line(probe, timeout.count()))) {
        if (auto cell = cell_from(*line)) {
            cell->place = probe.place;
            return std::move(*cell);
        }
    }
    const Trouble trouble = trouble_of(child_->give_up());
    child_.reset();
    return failed_here(probe.place, trouble);
}

std::vector<Cell> Importer::try_all(const Offer& offer) {
    std::vector<Cell> cells;
    for (const Offer::Probe& probe : offer.probes) cells.push_back(try_one(probe));
    if (!cells.empty()) return cells;
    const std::string why = offer.trouble.cause.empty() ? std::string("it does not say why") : offer.trouble.cause;
    const std::string check = offer.trouble.check.empty() ? std::string() : formatted(" ({})", offer.trouble.check);
    return {{.place = "device 0",
             .state = Cell::State::failed,
             .check = "FM-PEER-006",
             .cause = formatted("the peer has nothing to import: {}{}", why, check),
             .side = "there"}};
}

}  // namespace doctor
