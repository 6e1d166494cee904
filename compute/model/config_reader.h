// Reads the members of a JSON object one by one, remembers which were asked for and the first thing
// wrong, so that the caller reads like a list of keys.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::compute {

class ConfigReader {
 public:
  ConfigReader(const json::object& object, std::string what)
      : object_(object), what_(std::move(what)) {}

  // A missing or null key gives `fallback`, or an error when there is none.
  int64_t Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback = {});
  double Double(std::string_view key, double min, double max, std::optional<double> fallback = {});
  bool Bool(std::string_view key, bool fallback);
  // One id or a list of them, each below `vocab_size`; none when missing or null.
  std::vector<int32_t> TokenIds(std::string_view key, int64_t vocab_size);
  // The member when present and not null; marks the key as read.
  const json::value* Find(std::string_view key);
  // From now on `other` is another spelling of `key`: it stands in where `key` is absent or null,
  // and is refused where it says something else.
  void Alias(std::string_view key, std::string_view other) { aliases_.emplace_back(key, other); }
  // Refuses any value but `only`; a missing or null key passes.
  void Require(std::string_view key, const json::value& only, std::string_view why);

  void Fail(std::string_view key, const std::string& problem);
  // A key of the object, with a value, that no call asked for.
  std::optional<std::string> FirstUnread(bool (*harmless)(std::string_view key)) const;
  Status status() const { return status_; }

 private:
  const json::value* Get(std::string_view key);

  const json::object& object_;
  std::string what_;
  std::vector<std::pair<std::string, std::string>> aliases_;  // key, other spelling
  std::set<std::string, std::less<>> read_;
  Status status_;
};

}  // namespace engram::compute
