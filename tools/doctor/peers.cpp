// SPDX-License-Identifier: Apache-2.0
#include "doctor/peers.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fabricmem/checks.hpp>
#include <nlohmann/json.hpp>

namespace doctor {
namespace {

using nlohmann::json;

constexpr std::size_t kMostCells = 4096;
constexpr std::size_t kMostProbeText = 8192;  // of its bytes in hexadecimal

/// A text of somebody else's, fit to be shown.
std::string shown(const json& in, const char* key, std::size_t most = kPeerTextKept) {
    const auto found = in.find(key);
    if (found == in.end() || !found->is_string()) return {};
    std::string text = found->get<std::string>().substr(0, most);
    for (char& character : text) {
        const auto code = static_cast<unsigned char>(character);
        if (code < 0x20 || code == 0x7f) character = '?';
    }
    return text;
}

bool is_side(std::string_view text) noexcept {
    return text == "none" || text == "here" || text == "there" || text == "between" || text == "unknown";
}

json json_of(const Offer::Probe& probe) { return {{"place", probe.place}, {"bytes", probe.bytes}}; }

Offer::Probe probe_of(const json& in) {
    return {.place = shown(in, "place", 64), .bytes = shown(in, "bytes", kMostProbeText)};
}

json json_of(const Cell& cell) {
    return {{"exporter", cell.exporter}, {"place", cell.place}, {"state", to_string(cell.state)},
            {"check", cell.check},       {"cause", cell.cause}, {"cure", cell.cure},
            {"side", cell.side},         {"peer", cell.peer}};
}

Cell cell_of(const json& in) {
    Cell cell{.exporter = shown(in, "exporter", 32),
              .place = shown(in, "place", 64),
              .check = shown(in, "check", 32),
              .cause = shown(in, "cause"),
              .cure = shown(in, "cure"),
              .side = shown(in, "side", 16),
              .peer = shown(in, "peer")};
    const std::string state = shown(in, "state", 16);
    if (state == "ok") cell.state = Cell::State::ok;
    if (state == "failed") cell.state = Cell::State::failed;
    if (fabricmem::find_check(cell.check) == nullptr) cell.check.clear();  // of a newer version
    if (!is_side(cell.side)) cell.side = "unknown";
    return cell;
}

std::string text_of_json(const json& value) { return value.dump(-1, ' ', true, json::error_handler_t::replace); }

/// An object of these bytes, or null.
json object_in(std::string_view text) {
    json parsed = json::parse(text, nullptr, false);
    return parsed.is_object() ? parsed : json();
}

/// The list at `key`, or null where it is none, too long, or not of objects.
json objects_at(const json& in, const char* key, std::size_t most) {
    const auto found = in.find(key);
    if (found == in.end() || !found->is_array() || found->size() > most) return {};
    const bool all = std::all_of(found->begin(), found->end(), [](const json& value) { return value.is_object(); });
    return all ? *found : json();
}

}  // namespace

std::string_view to_string(Cell::State state) noexcept {
    switch (state) {
        case Cell::State::ok: return "ok";
        case Cell::State::failed: return "failed";
        case Cell::State::unknown: return "unknown";
    }
    return "unknown";
}

std::string to_text(const Offer& offer) {
    json probes = json::array();
    for (const Offer::Probe& probe : offer.probes) probes.push_back(json_of(probe));
    return text_of_json(
        {{"nonce", offer.nonce}, {"probes", probes}, {"check", offer.trouble.check}, {"cause", offer.trouble.cause}});
}

std::string to_text(const Results& results) {
    json cells = json::array();
    for (const Cell& cell : results.cells) cells.push_back(json_of(cell));
    return text_of_json({{"offers", results.offers}, {"cells", cells}});
}

std::optional<Offer> offer_from(std::string_view text) {
    const json said = object_in(text);
    const json probes = objects_at(said, "probes", kMostProbes);
    if (!probes.is_array()) return std::nullopt;
    Offer offer{.nonce = shown(said, "nonce", 64),
                .trouble = {.check = shown(said, "check", 32), .cause = shown(said, "cause")}};
    for (const json& probe : probes) offer.probes.push_back(probe_of(probe));
    return offer;
}

std::optional<Results> results_from(std::string_view text) {
    const json said = object_in(text);
    const json cells = objects_at(said, "cells", kMostCells);
    const auto offers = said.find("offers");
    if (!cells.is_array() || offers == said.end() || !offers->is_object()) return std::nullopt;
    Results results;
    for (const auto& [exporter, nonce] : offers->items())
        results.offers[exporter] = shown(*offers, exporter.c_str(), 64);
    for (const json& cell : cells) results.cells.push_back(cell_of(cell));
    return results;
}

std::string who_mends(const Cell& cell) {
    if (cell.side == "here") return cell.importer;
    if (cell.side == "there") return cell.exporter;
    return {};
}

std::string offer_line(const Offer::Probe& probe) { return text_of_json({{"offer", json_of(probe)}}); }

std::optional<Offer::Probe> probe_from(const std::string& line) {
    const json said = object_in(line);
    if (!said.contains("offer") || !said["offer"].is_object()) return std::nullopt;
    return probe_of(said["offer"]);
}

std::string import_line(const Offer::Probe& probe, std::int64_t timeout_ms) {
    return text_of_json({{"import", json_of(probe)}, {"timeout_ms", timeout_ms}});
}

std::optional<ImportTask> import_from(const std::string& line) {
    const json said = object_in(line);
    if (!said.contains("import") || !said["import"].is_object()) return std::nullopt;
    const auto timeout = said.find("timeout_ms");
    if (timeout == said.end() || !timeout->is_number_integer()) return std::nullopt;
    return ImportTask{.probe = probe_of(said["import"]), .timeout_ms = timeout->get<std::int64_t>()};
}

std::string cell_line(const Cell& cell) { return text_of_json({{"cell", json_of(cell)}}); }

std::optional<Cell> cell_from(const std::string& line) {
    const json said = object_in(line);
    if (!said.contains("cell") || !said["cell"].is_object()) return std::nullopt;
    return cell_of(said["cell"]);
}

std::string to_hex(const std::vector<std::byte>& bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : bytes) {
        text += kDigits[std::to_integer<std::size_t>(byte >> 4)];
        text += kDigits[std::to_integer<std::size_t>(byte & std::byte{15})];
    }
    return text;
}

std::vector<std::byte> from_hex(std::string_view text) {
    std::vector<std::byte> bytes;
    for (; text.size() >= 2; text.remove_prefix(2)) {
        std::uint8_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + 2, value, 16);
        if (error != std::errc() || end != text.data() + 2) return {};
        bytes.push_back(std::byte{value});
    }
    return bytes;
}

}  // namespace doctor
