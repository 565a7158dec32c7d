// SPDX-License-Identifier: Apache-2.0
// A validator of JSON Schema for the keywords that our schemas use, and no other: one that it does not know is an
// error, so that no schema says more than is checked.
#pragma once

#include <cstddef>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace fabricmem::test {

class JsonSchema {
public:
    explicit JsonSchema(nlohmann::json schema) : schema_(std::move(schema)) {}

    [[nodiscard]] static JsonSchema from_file(const std::string& path) {
        std::ifstream file(path);
        return JsonSchema(nlohmann::json::parse(file));
    }

    /// What is wrong with the document, or with the schema, each with its path; empty: nothing.
    [[nodiscard]] std::vector<std::string> faults_of(const nlohmann::json& document) const {
        std::vector<std::string> faults;
        validate(schema_, document, "$", faults);
        return faults;
    }

private:
    using Json = nlohmann::json;
    using Faults = std::vector<std::string>;

    static bool has_type(const Json& value, const std::string& type) {
        if (type == "integer") return value.is_number_integer();
        if (type == "number") return value.is_number();
        if (type == "string") return value.is_string();
        if (type == "boolean") return value.is_boolean();
        if (type == "null") return value.is_null();
        if (type == "array") return value.is_array();
        return type == "object" && value.is_object();
    }

    static bool has_one_type(const Json& value, const Json& types) {
        if (types.is_string()) return has_type(value, types.get<std::string>());
        for (const Json& type : types) {
            if (has_type(value, type.get<std::string>())) return true;
        }
        return false;
    }

    void validate_object(const Json& schema, const Json& value, const std::string& at, Faults& faults) const {
        const Json properties = schema.value("properties", Json::object());
        for (const auto& [name, member] : value.items()) {
            if (properties.contains(name)) {
                validate(properties[name], member, at + "." + name, faults);
            } else if (schema.contains("additionalProperties")) {
                faults.push_back(at + ": there is no property " + name);
            }
        }
        for (const Json& name : schema.value("required", Json::array())) {
            if (!value.contains(name.get<std::string>())) faults.push_back(at + ": lacks " + name.get<std::string>());
        }
    }

    void validate(const Json& schema, const Json& value, const std::string& at, Faults& faults) const {
        static const std::set<std::string> known{"$schema", "$id",        "$defs",    "$ref",    "title",
                                                 "type",    "properties", "required", "items",   "additionalProperties",
                                                 "enum",    "const",      "minimum",  "pattern", "description"};
        for (const auto& [keyword, content] : schema.items()) {
            if (known.count(keyword) == 0) faults.push_back(at + ": this validator does not know " + keyword);
            if (keyword == "additionalProperties" && content != false)
                faults.push_back(at + ": additionalProperties is not false");
        }
        if (schema.contains("$ref")) {
            const auto pointer = schema["$ref"].get<std::string>().substr(1);
            validate(schema_.at(Json::json_pointer(pointer)), value, at, faults);
        }
        if (schema.contains("type") && !has_one_type(value, schema["type"]))
            faults.push_back(at + ": " + value.dump() + " is not of type " + schema["type"].dump());
        if (schema.contains("const") && value != schema["const"])
            faults.push_back(at + ": is not " + schema["const"].dump());
        if (schema.contains("enum") &&
            std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
            faults.push_back(at + ": " + value.dump() + " is none of " + schema["enum"].dump());
        if (schema.contains("minimum") && value.is_number() && value < schema["minimum"])
            faults.push_back(at + ": " + value.dump() + " is too small");
        if (schema.contains("pattern") && value.is_string() &&
            !std::regex_search(value.get<std::string>(), std::regex(schema["pattern"].get<std::string>())))
            faults.push_back(at + ": " + value.dump() + " is not like " + schema["pattern"].dump());
        if (value.is_object()) validate_object(schema, value, at, faults);
        if (value.is_array() && schema.contains("items")) {
            for (std::size_t i = 0; i < value.size(); ++i)
                validate(schema["items"], value[i], at + "[" + std::to_string(i) + "]", faults);
        }
    }

    Json schema_;
};

}  // namespace fabricmem::test
