// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/checks.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "error/cures.hpp"
#include "support/test.hpp"

using namespace fabricmem;

namespace {

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    REQUIRE(file);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string area_of(std::string_view id) { return std::string(id.substr(0, id.rfind('-'))); }

std::string source_of(const std::string& test) {
    return text_of(std::string(FABRICMEM_SOURCE_DIR) + "/test/" + test + ".cpp");
}

std::vector<std::string> all_in(const std::string& text, const std::regex& pattern, std::size_t group = 0) {
    std::vector<std::string> found;
    for (auto at = std::sregex_iterator(text.begin(), text.end(), pattern); at != std::sregex_iterator(); ++at)
        found.push_back((*at)[group].str());
    return found;
}

/// Whether the source has such a test case; a name that ends in " ..." is the beginning of one.
bool has_case(const std::string& source, std::string name) {
    constexpr std::string_view kMore = " ...";
    const bool begins = name.size() > kMore.size() && name.substr(name.size() - kMore.size()) == kMore;
    if (begins) name.resize(name.size() - kMore.size());
    return source.find("TEST_CASE(\"" + name + (begins ? "" : "\"")) != std::string::npos;
}

/// A row of a table in docs/failures.md whose cause is acted out.
struct ActedOut {
    std::vector<std::string> ids;
    std::vector<std::string> sources;  // of the tests that it names
    std::vector<std::string> cases;
};

std::vector<ActedOut> rows_acted_out() {
    std::vector<ActedOut> rows;
    std::istringstream page(text_of(std::string(FABRICMEM_SOURCE_DIR) + "/docs/failures.md"));
    std::vector<std::string> last;  // which "the same" means
    for (std::string line; std::getline(page, line);) {
        const auto ids = all_in(line, std::regex("FM-[A-Z]+-[0-9]{3}"));
        if (line.empty() || line.front() != '|' || ids.empty()) continue;
        const std::string tests = line.substr(line.rfind('|', line.size() - 2));
        if (tests.find("| not acted out") == 0) continue;
        CAPTURE(line);
        std::vector<std::string> sources;
        if (tests.find("| the same") == 0) sources = last;
        for (const std::string& name : all_in(tests, std::regex("[a-z_]+_test"))) sources.push_back(source_of(name));
        CHECK_FALSE(sources.empty());
        last = sources;
        rows.push_back({ids, sources, all_in(tests, std::regex("«([^»]*)»"), 1)});
    }
    return rows;
}

}  // namespace

TEST_CASE("Each test that docs/failures.md names is there, and looks for the row's checks", "[checks]") {
    const auto rows = rows_acted_out();
    CHECK(rows.size() > 50);
    for (const ActedOut& row : rows) {
        const auto in_some = [&](const auto& holds) {
            return std::any_of(row.sources.begin(), row.sources.end(), holds);
        };
        for (const std::string& name : row.cases) {
            CAPTURE(name);
            CHECK(in_some([&](const std::string& source) { return has_case(source, name); }));
        }
        for (const std::string& id : row.ids) {
            CAPTURE(id);
            CHECK(in_some([&](const std::string& source) { return source.find(id) != std::string::npos; }));
        }
    }
}

TEST_CASE("Check ids have one form, occur once, and are numbered without gaps in their area", "[checks]") {
    std::string area;
    int number = 0;
    std::set<std::string> areas;
    for (const Check& check : all_checks()) {
        CAPTURE(check.id);
        CHECK(std::regex_match(std::string(check.id), std::regex("FM-[A-Z]+-[0-9]{3}")));
        if (area_of(check.id) != area) {
            area = area_of(check.id);
            CHECK(areas.insert(area).second);
            number = 0;
        }
        CHECK(std::stoi(std::string(check.id.substr(check.id.size() - 3))) == ++number);
        CHECK(find_check(check.id) == &check);
    }
    CHECK(find_check("FM-CHANNEL-000") == nullptr);
    CHECK(find_check("") == nullptr);
}

TEST_CASE("Each check says what has to hold and what somebody can do where it does not", "[checks]") {
    for (const Check& check : all_checks()) {
        CAPTURE(check.id);
        CHECK_FALSE(check.statement.empty());
        CHECK(check.side != Side::none);
        const Cures& cures = check.cures;
        CHECK_FALSE(
            (cures.user.empty() && cures.bare_metal.empty() && cures.container.empty() && cures.kubernetes.empty()));
        for (const std::string_view cure : {cures.user, cures.bare_metal, cures.container, cures.kubernetes})
            CHECK(std::count(cure.begin(), cure.end(), '`') % 2 == 0);
    }
}

TEST_CASE("A cure in one text names who can do what, and leaves out who can't", "[checks]") {
    CHECK(detail::in_words({"a", "b", "c", "d"}) == "a; as administrator: b; in a container: c; in Kubernetes: d");
    CHECK(detail::in_words({"", "b", "", "d"}) == "as administrator: b; in Kubernetes: d");
    CHECK(detail::in_words({}).empty());
    CHECK(detail::cure_of("FM-NONE-001").empty());
}

TEST_CASE("An error's side is its check's, and not known without one", "[checks]") {
    CHECK(side_of(Error({.subject = "x", .check = "FM-CHANNEL-007"})) == Side::between);
    CHECK(side_of(Error({.subject = "x", .check = "FM-PEER-001"})) == Side::there);
    CHECK(side_of(Error({.subject = "x"})) == Side::unknown);
    CHECK(side_of(Error({.subject = "x", .check = "FM-NONE-001"})) == Side::unknown);
    for (const Side side : {Side::none, Side::here, Side::there, Side::between}) CHECK(to_string(side) != "unknown");
}

TEST_CASE("An error's text ends with its check, before who the two sides are", "[checks]") {
    const Error error(
        {.subject = "it failed", .cause = "c", .cure = "u", .identity = "Exporter: e", .check = "FM-X-001"});
    CHECK(std::string(error.what()) == "it failed. Cause: c. Cure: u. Check: FM-X-001. Exporter: e");
}

TEST_CASE("docs/failures.md has each check, and no other", "[checks]") {
    const std::string page = text_of(std::string(FABRICMEM_SOURCE_DIR) + "/docs/failures.md");
    std::set<std::string> told;
    const std::regex id("FM-[A-Z]+-[0-9]{3}");
    for (auto found = std::sregex_iterator(page.begin(), page.end(), id); found != std::sregex_iterator(); ++found)
        told.insert(found->str());
    std::set<std::string> known;
    for (const Check& check : all_checks()) known.insert(std::string(check.id));
    CHECK(told == known);
}
