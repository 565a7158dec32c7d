// SPDX-License-Identifier: Apache-2.0
// One round: a victim is started, lives with the survivor, and is killed at a moment that was chosen before.
#include "soak/supervisor.hpp"

#include <signal.h>

#include <utility>

namespace fabricmem::soak {

namespace {

using test::Ended;

// The victim lives on for this much of a round's span after it has done everything, making and destroying.
constexpr double kChurn = 1.5;

}  // namespace

std::vector<std::string> Supervisor::peer(const std::string& role, const std::string& place) const {
    return {program_, "--peer", role, options_.driver, place, std::to_string(options_.user)};
}

void Supervisor::round(const Choices& choices) {
    stage_ = starting;
    if (choices.exporter_dies) {
        kill_exporter(choices);
    } else {
        kill_importer(choices);
    }
    check_nothing_left();
}

// Waits for the kill and for the end, which nothing else may have brought. What the victim said meanwhile.
std::vector<std::string> Supervisor::end(Process& victim, Killer& killer, Clock::time_point begin, bool lived,
                                         Span* span) {
    if (lived) span->learn(std::chrono::duration<double>(Clock::now() - begin).count());
    if (lived) stage_ = churning;
    const int stage = killer.wait();
    std::vector<std::string> said;
    while (auto line = victim.hear("its end")) said.push_back(std::move(*line));
    const Ended ended = victim.wait();
    if (ended != Ended{-1, SIGKILL}) {
        throw Failure("the victim ended by itself: exit code " + std::to_string(ended.exit_code) + ", signal " +
                      std::to_string(ended.signal));
    }
    ++kills_[span == &exporter_span_ ? 1 : 0][static_cast<std::size_t>(stage)];
    return said;
}

// --- the exporter dies
// ------------------------------------------------------------------------------------------------

void Supervisor::kill_exporter(const Choices& choices) {
    const Clock::time_point begin = Clock::now();
    Process victim("exporter", peer("exporter", choices.place), patience_seconds_);
    const std::chrono::duration<double> after(choices.moment * kChurn * exporter_span_.seconds);
    Killer killer(victim, begin + std::chrono::duration_cast<Clock::duration>(after), stage_);
    std::vector<Exported> exported;
    const bool lived = live_as_exporter(victim, choices, &exported);
    static_cast<void>(end(victim, killer, begin, lived, &exporter_span_));
    // What was imported stays; nothing more is imported.
    survivor_->demand("verify", "verified");
    for (const Exported& memory : exported) survivor_->demand("retry " + memory.blob, "gone");
    survivor_->demand("verify", "verified");
    survivor_->demand("drop", "dropped");
}

bool Supervisor::live_as_exporter(Process& victim, const Choices& choices, std::vector<Exported>* exported) {
    for (unsigned int life = 0; life < choices.lives; ++life) {
        const auto line = victim.hear("blob");
        if (!line) return false;
        if (line->rfind("blob ", 0) != 0) throw Failure("the exporter says '" + *line + "' in place of a blob");
        exported->push_back({line->substr(5)});
        stage_ = published;
        const bool race = choices.race && life + 1 < choices.lives;
        if (race && !victim.tell("next")) return false;
        import(victim, &exported->back(), race);
        survivor_->demand("verify", "verified");
        stage_ = in_use;
        if (life + 1 == choices.lives) break;
        if (!race && !victim.tell("next")) return false;
        if (exported->back().closing) continue;
        const auto closing = victim.hear("closing");
        if (!closing) return false;
        if (*closing != "closing") throw Failure("the exporter says '" + *closing + "' in place of 'closing'");
        stage_ = replaced;
    }
    return true;
}

// "gone" is right only of an exporter that is dead or that has said that it closes.
void Supervisor::import(Process& victim, Exported* memory, bool may_close) {
    const std::string answer = survivor_->ask("import " + memory->blob);
    if (answer == "imported") return;
    ++races_lost_;
    const auto line = victim.hear("closing or its end");
    memory->closing = line == "closing";
    if (line && !(may_close && memory->closing)) {
        throw Failure("an import is answered '" + answer + "' although the exporter lives and has not closed");
    }
}

// --- the importer dies
// ------------------------------------------------------------------------------------------------

void Supervisor::kill_importer(const Choices& choices) {
    const std::string blob = survivor_->ask("export " + choices.place);
    const Clock::time_point begin = Clock::now();
    Process victim("importer", peer("importer"), patience_seconds_);
    const std::chrono::duration<double> after(choices.moment * kChurn * importer_span_.seconds);
    Killer killer(victim, begin + std::chrono::duration_cast<Clock::duration>(after), stage_);
    bool closed = false;
    const bool lived = live_as_importer(victim, choices, blob, &closed);
    const std::vector<std::string> said = end(victim, killer, begin, lived, &importer_span_);
    if (closed) return;
    for (const std::string& line : said) {
        if (line != "wrote") throw Failure("an importer says '" + line + "' of memory that is alive");
    }
    survivor_->demand("check", "checked");
    survivor_->demand("close", "closed");
}

bool Supervisor::live_as_importer(Process& victim, const Choices& choices, const std::string& blob, bool* closed) {
    if (!victim.tell(blob)) return false;
    stage_ = published;
    const auto line = victim.hear("wrote");
    if (!line) return false;
    if (*line != "wrote") throw Failure("an importer says '" + *line + "' of memory that is alive");
    stage_ = in_use;
    survivor_->demand("check", "checked");
    if (!choices.race) return true;
    survivor_->demand("close", "closed");
    *closed = true;
    stage_ = replaced;
    const auto gone = victim.hear("gone");
    if (!gone) return false;
    if (*gone != "gone") throw Failure("an importer says '" + *gone + "' of memory that was closed");
    ++races_lost_;
    return true;
}

}  // namespace fabricmem::soak
