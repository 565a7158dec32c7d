// SPDX-License-Identifier: Apache-2.0
// What is JSON's alone: names, shapes, and what is refused. test/handle_blob_test.cpp has the round trips.
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <fabricmem/error.hpp>
#include <fabricmem/handle_blob.hpp>

#include "support/blobs.hpp"
#include "support/refused.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("JSON has the fields under their names, and only those that are known", "[blob]") {
    const auto json = nlohmann::json::parse(example_blob().to_json());
    CHECK(json["version"] == 1);
    CHECK(json["least_reader_version"] == 1);
    CHECK(json["kinds"] == nlohmann::json::parse(R"(["fabric", "posix_fd"])"));
    CHECK(json["location"]["kind"] == "device");
    CHECK(json["handle"].get<std::string>().size() == 128);
    CHECK(json["imex_channel"] == 0);
    CHECK_FALSE(json.contains("descriptor_token"));
    CHECK_FALSE(json["location"].contains("numa_node"));
    CHECK(nlohmann::json::parse(bare_blob().to_json()).size() == 10);
}

TEST_CASE("JSON keeps kinds that have no name as a number", "[blob]") {
    HandleBlob blob = bare_blob();
    blob.kinds = HandleKinds::from_bits(0x80000008U | 1U);
    const auto json = nlohmann::json::parse(blob.to_json());
    CHECK(json["kinds"] == nlohmann::json::parse(R"(["fabric", 2147483656])"));
    CHECK((HandleBlob::from_json(blob.to_json()) == blob));
}

TEST_CASE("JSON's unknown names are ignored", "[blob]") {
    auto json = nlohmann::json::parse(example_blob().to_json());
    json["colour"] = {1, 2, {{"a", nullptr}}};
    json["location"]["rack"] = 4;
    json["fabric"]["plane"] = "x";
    json["kinds"].push_back("pigeon");
    json["version"] = 2;
    CHECK((HandleBlob::from_json(json.dump(2)) == example_blob()));
    json.erase("peer");
    json.erase("generation");
    HandleBlob expected = example_blob();
    expected.peer = {};
    expected.generation = 0;
    CHECK((HandleBlob::from_json(json.dump()) == expected));
}

TEST_CASE("JSON of a wrong shape is refused by the name of what is wrong", "[blob]") {
    struct Damage {
        const char* path;
        const char* value;  ///< JSON; null: the name is taken away
        const char* text;
    };
    const Damage table[] = {
        {"/version", nullptr, "\"version\" is missing"},
        {"/version", "\"1\"", "\"version\" is not a whole number"},
        {"/version", "65536", "\"version\" is 65536, more than 65535"},
        {"/least_reader_version", nullptr, "\"least_reader_version\" is missing"},
        {"/least_reader_version", "2", "needs a reader of version 2, this one is of version 1"},
        {"/kinds", nullptr, "\"kinds\" is missing"},
        {"/kinds", "[]", "no kind"},
        {"/kinds", "[\"pigeon\"]", "no kind"},
        {"/kinds", "\"fabric\"", "\"kinds\" is not an array"},
        {"/kinds", "{\"fabric\":true}", "\"kinds\" is not an array"},
        {"/kinds", "[null]", "\"kinds\" is not a string"},
        {"/kinds", "[[\"fabric\"]]", "\"kinds\" is not a string"},
        {"/kinds", "[-1]", "\"kinds\" is not a whole number"},
        {"/kinds", "[1.0]", "\"kinds\" is not a whole number"},
        {"/kinds", "[4294967296]", "\"kinds\" is 4294967296, more than 4294967295"},
        {"/location", nullptr, "\"location\" is missing"},
        {"/location", "\"device\"", "\"location\" is not an object"},
        {"/location", "[]", "\"location\" is not an object"},
        {"/location/kind", nullptr, "\"kind\" is missing"},
        {"/location/kind", "1", "\"kind\" is not a string"},
        {"/location/kind", "\"host_nearest\"", "neither \"device\" nor \"host_numa\""},
        {"/location/numa_node", "-1", "\"numa_node\" is not a whole number"},
        {"/location/device_ordinal", "2147483648", "\"device_ordinal\" is 2147483648, more than 2147483647"},
        {"/location/device_uuid", "\"a0\"", "\"device_uuid\" has 32 hexadecimal digits, not 2"},
        {"/location/device_uuid", "7", "\"device_uuid\" is not a string"},
        {"/imex_channel", "-1", "\"imex_channel\" is not a whole number"},
        {"/imex_channel", "4294967296", "\"imex_channel\" is 4294967296"},
        {"/allocation_id", "null", "\"allocation_id\" is not a string"},
        {"/allocation_id", "\"b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbebf\"", "not 36"},
        {"/allocation_id", "\"g0b1b2b3b4b5b6b7b8b9babbbcbdbebf\"", "character 0 is not a hexadecimal digit"},
        {"/allocation_id", "[]", "\"allocation_id\" is not a string"},
        {"/peer", "0", "\"peer\" is not a string"},
        {"/generation", "-1", "\"generation\" is not a whole number"},
        {"/generation", "18446744073709551616", "\"generation\" is not a whole number"},
        {"/generation", "1.5", "\"generation\" is not a whole number"},
        {"/generation", "1e3", "\"generation\" is not a whole number"},
        {"/generation", "\"2\"", "\"generation\" is not a whole number"},
        {"/generation", "true", "\"generation\" is not a whole number"},
        {"/host_id", "{}", "\"host_id\" is not a string"},
        {"/boot_id", "false", "\"boot_id\" is not a string"},
        {"/process_id", "4294967296", "\"process_id\" is 4294967296"},
        {"/pid_namespace", "-4", "\"pid_namespace\" is not a whole number"},
        {"/process_start", "null", "\"process_start\" is not a whole number"},
        {"/fabric", "7", "\"fabric\" is not an object"},
        {"/fabric/clique", nullptr, "\"clique\" is missing"},
        {"/fabric/cluster_uuid", nullptr, "\"cluster_uuid\" is missing"},
        {"/fabric/clique", "4294967296", "\"clique\" is 4294967296"},
        {"/mapped_bytes", nullptr, "\"mapped_bytes\" is missing"},
        {"/mapped_bytes", "0", "mapped_bytes is 0"},
        {"/mapped_bytes", "140737488355329", "mapped_bytes is 140737488355329"},
        {"/mapped_bytes", "4194304.0", "\"mapped_bytes\" is not a whole number"},
        {"/offset", nullptr, "\"offset\" is missing"},
        {"/offset", "18446744073709551615", "leaves the 4194304 mapped bytes"},
        {"/bytes", nullptr, "\"bytes\" is missing"},
        {"/bytes", "0", "bytes is 0"},
        {"/bytes", "2097153", "leaves the 4194304 mapped bytes"},
        {"/granularity", "0", "granularity is 0"},
        {"/granularity", "8388608", "not a multiple of the granularity"},
        {"/rdma", "1", "\"rdma\" is not true or false"},
        {"/rdma", "\"true\"", "\"rdma\" is not true or false"},
        {"/created_ns", "1.7e18", "\"created_ns\" is not a whole number"},
        {"/handle", nullptr, "\"handle\" is missing"},
        {"/handle", "\"\"", "\"handle\" has 128 hexadecimal digits, not 0"},
        {"/handle", "[1,2,3]", "\"handle\" is not a string"},
        {"/descriptor_token", "\"zz\"", "\"descriptor_token\" has 32 hexadecimal digits"},
    };
    for (const Damage& damage : table) {
        CAPTURE(damage.path, damage.text);
        auto json = nlohmann::json::parse(example_blob().to_json());
        const nlohmann::json::json_pointer path(damage.path);
        if (damage.value != nullptr) {
            json[path] = nlohmann::json::parse(damage.value);
        } else {
            json[path.parent_pointer()].erase(path.back());
        }
        check_refused(damage.text, [&] { (void)HandleBlob::from_json(json.dump()); });
    }
}

TEST_CASE("Text that is no JSON object is refused, however deep or long", "[blob]") {
    const auto refused = [](std::string_view text, const std::string& json) {
        CAPTURE(json.substr(0, 60));
        check_refused(text, [&] { (void)HandleBlob::from_json(json); });
    };
    const std::string good = full_blob().to_json();
    for (std::size_t length = 0; length < good.size(); ++length) refused("not JSON", good.substr(0, length));
    refused("not JSON", good + "x");
    refused("not JSON", good + good);
    refused("NUL byte", good + std::string(1, '\0'));
    refused("NUL byte", good + std::string(1, '\0') + "}{");
    refused("not JSON", "{\"version\":1e999}");
    refused("not JSON", "{\"version\":\"\xff\xfe\"}");
    refused("not JSON", "{\"version\":\"\\ud800\"}");
    refused("not JSON", "{'version':1}");
    refused("not JSON", "{\"version\":NaN}");
    refused("not JSON", "// a comment\n" + good);
    for (const char* other : {"[]", "null", "7", "\"x\"", "true"}) refused("the text is not an object", other);
    refused("\"version\" is missing", "{}");

    constexpr std::size_t kDeep = 30000;
    refused("not JSON", std::string(kDeep, '['));
    refused("not JSON", std::string(kDeep, '{'));
    refused("the text is not an object", std::string(kDeep, '[') + std::string(kDeep, ']'));
    refused("\"version\" is missing", "{\"a\":" + std::string(kDeep, '[') + std::string(kDeep, ']') + "}");
    std::string nested = "1";
    for (std::size_t i = 0; i < 10000; ++i) nested.insert(0, "{\"a\":");
    refused("\"version\" is missing", nested + std::string(10000, '}'));

    const std::string padded = good + std::string(HandleBlob::kMaxJsonBytes - good.size(), ' ');
    CHECK((HandleBlob::from_json(padded) == full_blob()));
    refused("65537 bytes of text, more than 65536", padded + " ");
}

TEST_CASE("Random damage to JSON ends in a value or in bad_blob", "[blob]") {
    std::mt19937_64 random(11);
    const std::string good = full_blob().to_json();
    constexpr std::string_view kLetters = "{}[]\":,0123456789-+.eEtrufalsn\\ \x80\xff";
    int refusals = 0;
    for (int round = 0; round < 5000; ++round) {
        std::string json = good;
        for (std::uint64_t change = random() % 3; change < 3; ++change) {
            json[random() % json.size()] = kLetters[random() % kLetters.size()];
        }
        try {
            HandleBlob::from_json(json).validate();
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::bad_blob) FAIL_CHECK(error.what());
            ++refusals;
        } catch (const std::exception& error) {
            FAIL_CHECK(json << ": " << error.what());
        }
    }
    CHECK(refusals > 1000);
}
