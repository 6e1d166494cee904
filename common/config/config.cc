#include "common/config/config.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "common/base/check.h"
#include "common/config/nearest.h"

namespace engram::config {
namespace {

using Field = Fields::Field;

// Where a value came from, for messages: "configs/memnode.yaml" or "--set".
Status Wrong(std::string_view what, const Field& field, std::string_view value,
             std::string_view expected) {
  return InvalidArgument(
      fmt::format("{}: {} = '{}': expected {}", what, field.key, value, expected));
}

std::string Expected(const Field& field) {
  if (field.min == INT64_MIN && field.max == INT64_MAX) return "a whole number";
  return fmt::format("a whole number from {} to {}", field.min, field.max);
}

Status Assign(const Field& field, const YAML::Node& node, std::string_view what) {
  const bool wants_list = std::holds_alternative<std::vector<std::string>*>(field.target);
  if (wants_list) {
    std::vector<std::string> items;
    if (node.IsScalar()) {  // "a,b" is a list too: that is how --set writes one
      const std::string& text = node.Scalar();
      for (size_t begin = 0; begin <= text.size() && !text.empty();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        items.push_back(text.substr(begin, end - begin));
        begin = end + 1;
      }
    } else if (node.IsSequence()) {
      for (const YAML::Node& item : node) {
        if (!item.IsScalar()) return Wrong(what, field, "...", "a list of plain values");
        items.push_back(item.Scalar());
      }
    } else if (!node.IsNull()) {
      return Wrong(what, field, "{...}", "a list");
    }
    *std::get<std::vector<std::string>*>(field.target) = std::move(items);
    return OkStatus();
  }
  if (!node.IsScalar() && !node.IsNull()) return Wrong(what, field, "[...]", "one value");
  const std::string text = node.IsNull() ? "" : node.Scalar();
  if (auto* const* target = std::get_if<std::string*>(&field.target)) {
    **target = text;
    return OkStatus();
  }
  if (auto* const* target = std::get_if<bool*>(&field.target)) {
    if (!YAML::convert<bool>::decode(node, **target))
      return Wrong(what, field, text, "true or false");
    return OkStatus();
  }
  if (auto* const* target = std::get_if<double*>(&field.target)) {
    if (!YAML::convert<double>::decode(node, **target)) return Wrong(what, field, text, "a number");
    return OkStatus();
  }
  int64_t value = 0;
  if (!YAML::convert<int64_t>::decode(node, value) || value < field.min || value > field.max) {
    return Wrong(what, field, text, Expected(field));
  }
  *std::get<int64_t*>(field.target) = value;
  return OkStatus();
}

const Field* Find(const Fields& fields, std::string_view key) {
  for (const Field& field : fields.all()) {
    if (field.key == key) return &field;
  }
  return nullptr;
}

Status UnknownKey(const Fields& fields, std::string_view key, std::string_view what) {
  std::vector<std::string> known;
  for (const Field& field : fields.all()) known.push_back(field.key);
  return InvalidArgument(
      fmt::format("{}: unknown key '{}'; did you mean '{}'?", what, key, Nearest(key, known)));
}

bool IsSection(const Fields& fields, const std::string& key) {
  return std::any_of(fields.all().begin(), fields.all().end(),
                     [&](const Field& field) { return field.key.starts_with(key + "."); });
}

// Walks the YAML tree; a known dotted key takes its value, a known prefix is descended into.
Status AssignTree(const Fields& fields, const std::string& prefix, const YAML::Node& node,
                  std::string_view what) {
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar())
      return InvalidArgument(fmt::format("{}: a key is not plain text", what));
    const std::string key = prefix + entry.first.Scalar();
    if (!seen.insert(key).second)
      return InvalidArgument(fmt::format("{}: key '{}' appears twice", what, key));
    if (const Field* field = Find(fields, key)) {
      RETURN_IF_ERROR(Assign(*field, entry.second, what));
    } else if (IsSection(fields, key)) {
      if (entry.second.IsNull()) continue;
      if (!entry.second.IsMap()) {
        return InvalidArgument(
            fmt::format("{}: '{}' is a section with keys below it, not a value", what, key));
      }
      RETURN_IF_ERROR(AssignTree(fields, key + ".", entry.second, what));
    } else {
      return UnknownKey(fields, key, what);
    }
  }
  return OkStatus();
}

Status AssignDocument(const Fields& fields, const YAML::Node& root, std::string_view what) {
  if (root.IsNull()) return OkStatus();
  if (!root.IsMap()) return InvalidArgument(fmt::format("{}: expected 'key: value' lines", what));
  return AssignTree(fields, "", root, what);
}

Status ApplyOverride(const Fields& fields, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return InvalidArgument(fmt::format("--set {}: expected key=value", text));
  }
  const std::string key = text.substr(0, equals);
  const Field* field = Find(fields, key);
  if (field == nullptr) return UnknownKey(fields, key, "--set");
  return Assign(*field, YAML::Node(text.substr(equals + 1)), "--set");
}

// YAML double-quoted scalar; plain text stays plain.
std::string Quote(const std::string& text) {
  YAML::Emitter out;
  out << YAML::DoubleQuoted << text;
  return out.c_str();
}

std::string ValueText(const Fields::Target& target) {
  struct Visitor {
    std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
    std::string operator()(const int64_t* v) const { return std::to_string(*v); }
    std::string operator()(const double* v) const { return fmt::format("{}", *v); }
    std::string operator()(const std::string* v) const { return Quote(*v); }
    std::string operator()(const std::vector<std::string>* v) const {
      std::string text;
      for (const std::string& item : *v) text += (text.empty() ? "" : ", ") + Quote(item);
      return "[" + text + "]";
    }
  };
  return std::visit(Visitor{}, target);
}

}  // namespace

void Fields::Add(std::string dotted_key, Target target, std::string help) {
  fields_.push_back({std::move(dotted_key), target, std::move(help)});
}

void Fields::Add(std::string dotted_key, int64_t* target, int64_t min, int64_t max,
                 std::string help) {
  CHECK(*target >= min && *target <= max) << "default of " << dotted_key;
  fields_.push_back({std::move(dotted_key), target, std::move(help), min, max});
}

Status LoadText(std::string_view yaml, std::string_view what, Fields& fields) {
  try {
    return AssignDocument(fields, YAML::Load(std::string(yaml)), what);
  } catch (const YAML::Exception& e) {
    return InvalidArgument(fmt::format("{}: not valid YAML: {}", what, e.what()));
  }
}

Status Load(const std::string& yaml_path, std::span<const std::string> overrides, Fields& fields) {
  try {
    if (!yaml_path.empty()) {
      RETURN_IF_ERROR(AssignDocument(fields, YAML::LoadFile(yaml_path), yaml_path));
    }
    for (const std::string& text : overrides) RETURN_IF_ERROR(ApplyOverride(fields, text));
  } catch (const YAML::BadFile&) {
    return NotFound(fmt::format("cannot read the configuration file {}", yaml_path));
  } catch (const YAML::Exception& e) {
    return InvalidArgument(fmt::format("{}: not valid YAML: {}", yaml_path, e.what()));
  }
  return OkStatus();
}

std::string Dump(const Fields& fields, bool with_help) {
  std::string text;
  std::string section;
  for (const Field& field : fields.all()) {
    const size_t dot = field.key.rfind('.');
    const std::string prefix = dot == std::string::npos ? "" : field.key.substr(0, dot);
    CHECK(prefix.find('.') == std::string::npos) << "keys have at most one section: " << field.key;
    if (prefix != section) {
      if (!prefix.empty()) text += (with_help && !text.empty() ? "\n" : "") + prefix + ":\n";
      section = prefix;
    }
    const std::string indent = prefix.empty() ? "" : "  ";
    if (with_help) text += indent + "# " + field.help + "\n";
    text += indent + field.key.substr(dot == std::string::npos ? 0 : dot + 1) + ": " +
            ValueText(field.target) + "\n";
  }
  return text;
}

}  // namespace engram::config
