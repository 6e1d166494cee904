// Reads the fields of a request one by one and remembers the first thing wrong, so that the caller
// reads like a list of fields. A missing or null field is its default.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/io/json.h"
#include "compute/api/api_error.h"

namespace engram::compute {

// A value as messages quote it, cut when it is long.
std::string ShownValue(const json::value& value);

class FieldReader {
 public:
  explicit FieldReader(const json::object& object) : object_(object) {}

  // The field when present and not null.
  const json::value* Find(std::string_view field) const;
  bool Has(std::string_view field) const { return Find(field) != nullptr; }
  int64_t Int(std::string_view field, int64_t min, int64_t max, int64_t fallback);
  double Double(std::string_view field, double min, double max, double fallback);
  bool Bool(std::string_view field, bool fallback);
  std::string String(std::string_view field, std::string fallback);

  // Keeps the first failure.
  void Fail(ApiError error);
  void Fail(std::string_view field, std::string message);
  void FailType(std::string_view field, std::string_view expected, const json::value& found);
  bool ok() const { return error_.ok(); }
  const ApiError& error() const { return error_; }

 private:
  const json::object& object_;
  ApiError error_;
};

}  // namespace engram::compute
