// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/checks.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

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

}  // namespace

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
