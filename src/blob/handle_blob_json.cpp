// SPDX-License-Identifier: Apache-2.0
// The blob's JSON spelling; docs/blob-format.md is the format. The one file of the blob that knows the JSON library,
// none of whose exceptions leaves it: it is asked for types before values.
#include <fabricmem/handle_blob.hpp>

#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>

#include "blob/bad_blob.hpp"
#include "blob/hex.hpp"
#include "blob/layout.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

using detail::refuse_blob;
using detail::layout::kLeastReaderWritten;
using Writing = nlohmann::ordered_json;  // people read it: the order is ours
using Reading = nlohmann::json;

constexpr std::pair<HandleKind, const char*> kKindNames[] = {
    {HandleKind::fabric, "fabric"},
    {HandleKind::posix_fd, "posix_fd"},
    {HandleKind::cuda_ipc, "cuda_ipc"},
};

// Writing

Writing value_of(const Id128& id) { return to_string(id); }
template <typename T>
Writing value_of(const T& value) {
    static_assert(std::is_integral_v<T>);
    return value;
}

template <typename T>
void put_known(Writing& object, const char* name, const std::optional<T>& value) {
    if (value) object[name] = value_of(*value);
}

/// The names, and the bits that have none as one number.
Writing names_of(HandleKinds kinds) {
    Writing names = Writing::array();
    std::uint32_t rest = kinds.bits();
    for (const auto& [kind, name] : kKindNames) {
        if (!kinds.has(kind)) continue;
        names.push_back(name);
        rest &= ~static_cast<std::uint32_t>(kind);
    }
    if (rest != 0) names.push_back(rest);
    return names;
}

Writing location_of(const HandleBlob& blob) {
    Writing location = Writing::object();
    location["kind"] = blob.location_kind == LocationKind::device ? "device" : "host_numa";
    put_known(location, "numa_node", blob.numa_node);
    put_known(location, "device_ordinal", blob.device_ordinal);
    put_known(location, "device_uuid", blob.device_uuid);
    return location;
}

// Reading

std::uint64_t number_of(const Reading& value, const char* name, std::uint64_t most) {
    if (!value.is_number_unsigned()) refuse_blob(detail::formatted("JSON: \"{}\" is not a whole number from 0", name));
    const auto number = value.get<std::uint64_t>();
    if (number > most) refuse_blob(detail::formatted("JSON: \"{}\" is {}, more than {}", name, number, most));
    return number;
}

/// The string's text; a view of `value`.
std::string_view text_of(const Reading& value, const char* name) {
    const auto* const text = value.get_ptr<const std::string*>();
    if (text == nullptr) refuse_blob(detail::formatted("JSON: \"{}\" is not a string", name));
    return *text;
}

void read_value(const Reading& value, const char* name, bool& out) {
    if (!value.is_boolean()) refuse_blob(detail::formatted("JSON: \"{}\" is not true or false", name));
    out = value.get<bool>();
}
template <typename T>
void read_value(const Reading& value, const char* name, T& out) {
    static_assert(std::is_integral_v<T>);
    out = static_cast<T>(number_of(value, name, static_cast<std::uint64_t>(std::numeric_limits<T>::max())));
}
template <std::size_t N>
void read_value(const Reading& value, const char* name, std::array<std::uint8_t, N>& out) {
    detail::from_hex(text_of(value, name), out, detail::formatted("JSON: \"{}\"", name));
}
void read_value(const Reading& value, const char* name, Id128& out) { read_value(value, name, out.bytes); }

const Reading* find(const Reading& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
}

const Reading& require(const Reading& object, const char* name) {
    const Reading* const value = find(object, name);
    if (value == nullptr) refuse_blob(detail::formatted("JSON: \"{}\" is missing", name));
    return *value;
}

const Reading& require_object(const Reading& value, const char* name) {
    if (!value.is_object()) refuse_blob(detail::formatted("JSON: {} is not an object", name));
    return value;
}

template <typename T>
void read(const Reading& object, const char* name, T& out) {
    read_value(require(object, name), name, out);
}
template <typename T>
void read(const Reading& object, const char* name, std::optional<T>& out) {
    if (const Reading* const value = find(object, name)) read_value(*value, name, out.emplace());
}
/// For a field that means nothing where it is absent.
template <typename T>
void read_or_keep(const Reading& object, const char* name, T& out) {
    if (const Reading* const value = find(object, name)) read_value(*value, name, out);
}

/// The bits of one entry; a name that this version does not know has none, as its memory can't be imported so here.
std::uint32_t bits_of_kind(const Reading& entry) {
    if (entry.is_number()) {
        return static_cast<std::uint32_t>(number_of(entry, "kinds", std::numeric_limits<std::uint32_t>::max()));
    }
    const std::string_view text = text_of(entry, "kinds");
    for (const auto& [kind, name] : kKindNames) {
        if (text == name) return static_cast<std::uint32_t>(kind);
    }
    return 0;
}

HandleKinds read_kinds(const Reading& value) {
    if (!value.is_array()) refuse_blob("JSON: \"kinds\" is not an array");
    std::uint32_t bits = 0;
    for (const Reading& entry : value) bits |= bits_of_kind(entry);
    return HandleKinds::from_bits(bits);
}

void read_location(const Reading& location, HandleBlob& blob) {
    const std::string_view kind = text_of(require(location, "kind"), "kind");
    if (kind != "device" && kind != "host_numa") {
        refuse_blob("JSON: the location's \"kind\" is neither \"device\" nor \"host_numa\"");
    }
    blob.location_kind = kind == "device" ? LocationKind::device : LocationKind::host_numa;
    read(location, "numa_node", blob.numa_node);
    read(location, "device_ordinal", blob.device_ordinal);
    read(location, "device_uuid", blob.device_uuid);
}

void read_fabric(const Reading& root, HandleBlob& blob) {
    const Reading* const value = find(root, "fabric");
    if (value == nullptr) return;
    const Reading& fabric = require_object(*value, "\"fabric\"");
    FabricPlace& place = blob.fabric.emplace();
    read(fabric, "cluster_uuid", place.cluster_uuid);
    read(fabric, "clique", place.clique);
}

void require_version(const Reading& root) {
    std::uint16_t version = 0;
    std::uint16_t least = 0;
    read(root, "version", version);
    read(root, "least_reader_version", least);
    if (least > HandleBlob::kVersion) {
        refuse_blob(detail::formatted("JSON: version {} needs a reader of version {}, this one is of version {}",
                                      version, least, HandleBlob::kVersion));
    }
}

/// The text as a tree. The JSON library neither parses nor destroys by recursion, so nesting costs no stack.
Reading parse(std::string_view text) {
    if (text.size() > HandleBlob::kMaxJsonBytes) {
        refuse_blob(detail::formatted("JSON: {} bytes of text, more than {}", text.size(), HandleBlob::kMaxJsonBytes));
    }
    // The parser takes a NUL for the end and would not see what follows it.
    if (text.find('\0') != std::string_view::npos) refuse_blob("JSON: a NUL byte in the text");
    Reading root = Reading::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
    if (root.is_discarded()) refuse_blob("JSON: the text is not JSON");
    require_object(root, "the text");
    return root;
}

}  // namespace

std::string HandleBlob::to_json() const {
    validate();
    Writing root = Writing::object();
    root["version"] = kVersion;
    root["least_reader_version"] = kLeastReaderWritten;
    root["kinds"] = names_of(kinds);
    root["location"] = location_of(*this);
    put_known(root, "allocation_id", allocation_id);
    root["peer"] = value_of(peer);
    root["generation"] = generation;
    put_known(root, "host_id", host_id);
    put_known(root, "boot_id", boot_id);
    put_known(root, "process_id", process_id);
    put_known(root, "pid_namespace", pid_namespace);
    put_known(root, "process_start", process_start);
    put_known(root, "imex_channel", imex_channel);
    if (fabric) root["fabric"] = {{"cluster_uuid", value_of(fabric->cluster_uuid)}, {"clique", fabric->clique}};
    root["mapped_bytes"] = mapped_bytes;
    root["offset"] = offset;
    root["bytes"] = bytes;
    put_known(root, "granularity", granularity);
    put_known(root, "rdma", rdma);
    put_known(root, "created_ns", created_ns);
    root["handle"] = detail::to_hex(handle);
    put_known(root, "descriptor_token", descriptor_token);
    return root.dump();
}

HandleBlob HandleBlob::from_json(std::string_view json) {
    const Reading root = parse(json);
    require_version(root);
    HandleBlob blob;
    blob.kinds = read_kinds(require(root, "kinds"));
    read_location(require_object(require(root, "location"), "\"location\""), blob);
    read(root, "allocation_id", blob.allocation_id);
    read_or_keep(root, "peer", blob.peer);
    read_or_keep(root, "generation", blob.generation);
    read(root, "host_id", blob.host_id);
    read(root, "boot_id", blob.boot_id);
    read(root, "process_id", blob.process_id);
    read(root, "pid_namespace", blob.pid_namespace);
    read(root, "process_start", blob.process_start);
    read(root, "imex_channel", blob.imex_channel);
    read_fabric(root, blob);
    read(root, "mapped_bytes", blob.mapped_bytes);
    read(root, "offset", blob.offset);
    read(root, "bytes", blob.bytes);
    read(root, "granularity", blob.granularity);
    read(root, "rdma", blob.rdma);
    read(root, "created_ns", blob.created_ns);
    read(root, "handle", blob.handle);
    read(root, "descriptor_token", blob.descriptor_token);
    blob.validate();
    return blob;
}

}  // namespace fabricmem
