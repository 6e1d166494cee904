#include "compute/model/config_reader.h"

#include <fmt/format.h>

namespace engram::compute {
namespace {

// 10000 and 10000.0 are the same.
bool SameValue(const json::value& a, const json::value& b) {
  return a == b ||
         (a.is_number() && b.is_number() && a.to_number<double>() == b.to_number<double>());
}

}  // namespace

void ConfigReader::Fail(std::string_view key, const std::string& problem) {
  if (status_.ok()) status_ = InvalidArgument(fmt::format("{}: key '{}': {}", what_, key, problem));
}

const json::value* ConfigReader::Get(std::string_view key) {
  read_.emplace(key);
  const json::value* value = object_.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const json::value* ConfigReader::Find(std::string_view key) {
  const json::value* value = Get(key);
  std::string_view spelling = key;
  for (const auto& [name, other] : aliases_) {
    if (name != key) continue;
    const json::value* second = Get(other);
    if (second == nullptr) continue;
    if (value == nullptr) {
      value = second;
      spelling = other;
    } else if (!SameValue(*value, *second)) {
      Fail(other, fmt::format("{} where '{}', another spelling of it, says {}",
                              json::serialize(*second), spelling, json::serialize(*value)));
    }
  }
  return value;
}

int64_t ConfigReader::Int(std::string_view key, int64_t min, int64_t max,
                          std::optional<int64_t> fallback) {
  const json::value* value = Find(key);
  if (value == nullptr) {
    if (!fallback) Fail(key, "missing");
    return fallback.value_or(min);
  }
  json::error_code error;
  const int64_t number = value->to_number<int64_t>(error);
  if (error || number < min || number > max) {
    Fail(key, fmt::format("{} where an integer from {} to {} is expected", json::serialize(*value),
                          min, max));
    return min;
  }
  return number;
}

double ConfigReader::Double(std::string_view key, double min, double max,
                            std::optional<double> fallback) {
  const json::value* value = Find(key);
  if (value == nullptr) {
    if (!fallback) Fail(key, "missing");
    return fallback.value_or(min);
  }
  json::error_code error;
  const double number = value->to_number<double>(error);
  if (error || !(number >= min && number <= max)) {
    Fail(key, fmt::format("{} where a number from {} to {} is expected", json::serialize(*value),
                          min, max));
    return min;
  }
  return number;
}

bool ConfigReader::Bool(std::string_view key, bool fallback) {
  const json::value* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) {
    Fail(key, fmt::format("{} where true or false is expected", json::serialize(*value)));
    return fallback;
  }
  return value->get_bool();
}

std::vector<int32_t> ConfigReader::TokenIds(std::string_view key, int64_t vocab_size) {
  std::vector<int32_t> ids;
  const json::value* value = Find(key);
  if (value == nullptr) return ids;
  const json::array items = value->is_array() ? value->get_array() : json::array{*value};
  for (const json::value& item : items) {
    if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() >= vocab_size) {
      Fail(key, fmt::format("{} is not a token id, or a list of them, below vocab_size {}",
                            json::serialize(*value), vocab_size));
      return {};
    }
    ids.push_back(static_cast<int32_t>(item.get_int64()));
  }
  return ids;
}

void ConfigReader::Require(std::string_view key, const json::value& only, std::string_view why) {
  const json::value* value = Find(key);
  if (value == nullptr || SameValue(*value, only)) return;
  Fail(key, fmt::format("{} is not supported, only {} ({})", json::serialize(*value),
                        json::serialize(only), why));
}

std::optional<std::string> ConfigReader::FirstUnread(bool (*harmless)(std::string_view key)) const {
  for (const auto& member : object_) {
    const std::string_view key(member.key().data(), member.key().size());
    if (member.value().is_null()) continue;  // as if it were not there
    if (!read_.contains(key) && !harmless(key)) return std::string(key);
  }
  return std::nullopt;
}

}  // namespace engram::compute
