// SPDX-License-Identifier: Apache-2.0
// docs/driver-notes.md names the case that pins each fact about the driver: holds it to the cases that exist.
#include "support/driver_notes.hpp"

#include <cstdio>

#include "support/test.hpp"

using namespace fabricmem::test;

namespace {

const char* const kSource = R"(
TEST_CASE("Both", "[driver][each]") {
TEST_CASE("One, "
          "in two literals",
          "[driver][real]") {
TEST_CASE("A \"quoted\" one", "[driver]") {
TEST_CASE("A hidden one", "[.measure]") {
)";
const char* const kNotes =
    "| fact | case | emulated | real |\n|---|---|---|---|\n| a | Both | yes | yes |\n"
    "| b | One, in two literals | no: it has none | yes |\n| c | A \"quoted\" one<br>Both | yes | no: not there |\n\n"
    "The suite has 3 cases: 2 for the emulated driver, 2 for the real one.\n";

NamedCases cases_of(const std::string& source) {
    NamedCases cases;
    add_cases("driver_conformance_test.cpp", source, &cases);
    return cases;
}

// The one complaint about the notes with `from` made into `to`.
std::string complaint(const std::string& from, const std::string& to) {
    std::string notes = kNotes;
    const std::size_t at = notes.find(from);
    REQUIRE(at != std::string::npos);
    const std::vector<std::string> all = complaints_about(notes.replace(at, from.size(), to), cases_of(kSource));
    REQUIRE(all.size() == 1);
    return all.front();
}

}  // namespace

TEST_CASE("The notes name a case that exists for every fact, and every case of the suite", "[notes]") {
    const std::filesystem::path source = FABRICMEM_SOURCE_DIR;
    const std::string notes = read_text(source / "docs" / "driver-notes.md");
    const NamedCases cases = cases_under(source / "test");
    std::string all;
    for (const std::string& complaint : complaints_about(notes, cases)) all += complaint + "\n";
    INFO(all);
    CHECK(all.empty());
    CHECK(facts_of(notes).size() > 70);  // the tables are found
    std::printf("%zu facts. %s\n", facts_of(notes).size(), sentence_of(count_suite(cases)).c_str());
}

TEST_CASE("Notes that are true get no complaint, and each way to be wrong gets its own", "[notes]") {
    CHECK(complaints_about(kNotes, cases_of(kSource)).empty());
    CHECK(complaint("| a | Both |", "| a | Bothe |") == "a: there is no case \"Bothe\"");
    CHECK(complaint("| c | A \"quoted\" one<br>Both |", "| c | Both |") == "\"A \"quoted\" one\" is listed nowhere");
    CHECK(complaint("no: it has none", "yes") == "b: its case does not run on the emulated driver");
    CHECK(complaint("| yes | no: not there |", "| yes | yes |") == "c: its case does not run on the real driver");
    CHECK(complaint("no: it has none", "no") == "b: emulated is neither yes nor \"no: \" and why");
    CHECK(complaint("3 cases", "4 cases").rfind("they do not say: The suite has 3", 0) == 0);
}
