// SPDX-License-Identifier: Apache-2.0
// The doctor's JSON is what docs/doctor.schema.json says, and the validator that says so sees what is wrong.
#include <string>
#include <vector>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "doctor/report.hpp"
#include "support/doctor_facts.hpp"
#include "support/json_schema.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using nlohmann::json;

using Texts = std::vector<std::string>;

namespace {

constexpr const char* kSchemaFile = FABRICMEM_SOURCE_DIR "/docs/doctor.schema.json";

json document_of(const doctor::Facts& facts) {
    const auto expected = doctor::expectation_of(facts, std::nullopt);
    const auto findings = doctor::evaluate(facts, expected);
    const auto verdict = doctor::judge(facts, findings, expected);
    return json::parse(doctor::json_of({facts, findings, verdict}));
}

/// Facts with something in every field.
doctor::Facts full_facts() {
    doctor::Facts facts = domain_facts();
    facts.machine->host_id = std::string(32, 'a');
    facts.machine->visible_devices = "0,1";
    facts.machine->channels.push_back({.number = 1, .open_errno = 13, .major_matches = false});
    facts.devices.front().uuid = kSomeCluster;
    facts.driver->place = "scenario a, node b";
    facts.driver->why_not = doctor::Failure{
        .kind = "system", .code = 802, .text = "t", .cause = "c", .cure = "d", .check = "FM-FABRIC-004"};
    facts.nvml->devices.front().name = "\xff is no UTF-8";
    facts.nvml->devices.front().uuid = kSomeCluster;
    facts.imex = {.answer = doctor::ImexFacts::Answer::understood,
                  .detail = "d",
                  .domain = "UP",
                  .daemon = "READY",
                  .nodes = {{"node0", "READY"}}};
    facts.places.back() = bad_place(Location::host_numa(0), ProbeRung::create, "FM-MEMORY-003", "none left");
    return facts;
}

/// Facts of which nothing is known.
doctor::Facts no_facts() {
    doctor::Facts facts;
    facts.stuck = {{.step = "machine"}, {.step = "nvml"}, {.step = "driver"}};
    facts.out_of_time = true;
    return facts;
}

}  // namespace

TEST_CASE("The JSON of what is known and of what is not is as the schema says", "[doctor]") {
    const JsonSchema schema = JsonSchema::from_file(kSchemaFile);
    for (const doctor::Facts& facts : {full_facts(), good_facts(), no_facts()})
        CHECK(schema.faults_of(document_of(facts)) == Texts());
    const json full = document_of(full_facts());
    CHECK(full["schema_version"] == 1);
    CHECK(full["driver"]["cuda_version"] == "13.0");
    CHECK(full["machine"]["nvml"]["devices"][1]["fabric"]["health"] == "healthy");
    CHECK(full["machine"]["nvml"]["devices"][1]["fabric"]["health_mask"] == 0xaa);
    CHECK(full["machine"]["nvml"]["devices"][1]["recovery"] == "none");
    CHECK(document_of(no_facts())["machine"]["nvml"].is_null());
    CHECK(document_of(no_facts())["exit_code"] == 2);
}

TEST_CASE("Every field of the JSON is required, and none may be added", "[doctor]") {
    const JsonSchema schema = JsonSchema::from_file(kSchemaFile);
    json full = document_of(full_facts());
    full["checks"].erase(full["checks"].begin() + 1, full["checks"].end());
    full["places"].erase(full["places"].begin() + 1, full["places"].end());
    full["places"][0]["steps"].erase(full["places"][0]["steps"].begin() + 1, full["places"][0]["steps"].end());
    const json flat = full.flatten();
    std::size_t objects = 0;
    std::set<std::string> seen;
    for (const auto& [path, value] : flat.items()) {
        const json::json_pointer pointer(path);
        json without = full;
        if (!without.at(pointer.parent_pointer()).is_object()) continue;
        without.at(pointer.parent_pointer()).erase(pointer.back());
        CHECK_FALSE(schema.faults_of(without).empty());
        if (!seen.insert(pointer.parent_pointer().to_string()).second) continue;
        json with = full;
        with.at(pointer.parent_pointer())["more"] = 1;
        CHECK_FALSE(schema.faults_of(with).empty());
        ++objects;
    }
    CHECK(objects >= 15);
}

TEST_CASE("The validator sees each kind of fault, and a keyword that it does not know", "[doctor]") {
    const auto faults = [](const char* schema, const char* document) {
        return JsonSchema(json::parse(schema)).faults_of(json::parse(document)).size();
    };
    struct Row {
        const char* schema;
        const char* good;
        const char* bad;
    };
    const std::vector<Row> rows{
        {R"({"type": "integer"})", "1", "1.5"},
        {R"({"type": "number"})", "1.5", "\"1\""},
        {R"({"type": "boolean"})", "true", "0"},
        {R"({"type": ["string", "null"]})", "null", "1"},
        {R"({"const": 1})", "1", "2"},
        {R"({"enum": ["a", 1]})", "\"a\"", "\"b\""},
        {R"({"minimum": 2})", "2", "1"},
        {R"({"pattern": "^a+$"})", "\"aa\"", "\"ab\""},
        {R"({"items": {"type": "null"}})", "[null]", "[null, 1]"},
        {R"({"required": ["a"]})", R"({"a": 1})", "{}"},
        {R"({"additionalProperties": false, "properties": {"a": {"type": "string"}}})", R"({"a": ""})", R"({"b": ""})"},
        {R"({"properties": {"a": {"type": "string"}}})", R"({"b": 1})", R"({"a": 1})"},
        {R"({"$defs": {"a": {"type": "string"}}, "items": {"$ref": "#/$defs/a"}})", "[\"\"]", "[1]"}};
    for (const Row& row : rows) {
        INFO(row.schema);
        CHECK(faults(row.schema, row.good) == 0);
        CHECK(faults(row.schema, row.bad) == 1);
    }
    CHECK(faults(R"({"maxLength": 3})", "\"a\"") == 1);
    CHECK(faults(R"({"additionalProperties": {"type": "string"}})", "{}") == 1);
}

#else

TEST_CASE("The JSON is as the schema says", "[doctor]") { FABRICMEM_SKIP("built without the tools"); }

#endif
