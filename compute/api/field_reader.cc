#include "compute/api/field_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "common/text/utf8.h"

namespace engram::compute {
namespace {

constexpr double kTwoTo63 = 9223372036854775808.0;

// The number when it is whole and an int64; a whole number written as 5.0 is what some clients
// send.
std::optional<int64_t> WholeOf(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (!value.is_double()) return std::nullopt;
  const double number = value.get_double();
  if (number != std::floor(number) || number < -kTwoTo63 || number >= kTwoTo63) return std::nullopt;
  return static_cast<int64_t>(number);
}

bool IsWhole(const json::value& value) {
  if (value.is_double()) return value.get_double() == std::floor(value.get_double());
  return value.is_number();
}

}  // namespace

std::string ShownValue(const json::value& value) {
  std::string text = json::serialize(value);
  if (text.size() <= 60) return text;
  text.resize(text::ValidUtf8Prefix(std::string_view(text).substr(0, 60)));
  return text + "...";
}

const json::value* FieldReader::Find(std::string_view field) const {
  const json::value* const value = object_.if_contains(field);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void FieldReader::Fail(ApiError error) {
  if (ok()) error_ = std::move(error);
}

void FieldReader::Fail(std::string_view field, std::string message) {
  Fail(FieldError(field, std::move(message)));
}

void FieldReader::FailType(std::string_view field, std::string_view expected,
                           const json::value& found) {
  Fail(field, fmt::format("{} must be {}; it is {}", field, expected, ShownValue(found)));
}

int64_t FieldReader::Int(std::string_view field, int64_t min, int64_t max, int64_t fallback) {
  const json::value* const value = Find(field);
  if (value == nullptr) return fallback;
  if (!IsWhole(*value)) {
    FailType(field, "an integer", *value);
    return fallback;
  }
  const std::optional<int64_t> number = WholeOf(*value);  // none: beyond what any field may be
  if (number && *number >= min && *number <= max) return *number;
  FailType(field, fmt::format("an integer in {}..{}", min, max), *value);
  return fallback;
}

double FieldReader::Double(std::string_view field, double min, double max, double fallback) {
  const json::value* const value = Find(field);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->to_number<double>() : NAN;
  if (number >= min && number <= max) return number;
  FailType(field, fmt::format("a number in {}..{}", min, max), *value);
  return fallback;
}

bool FieldReader::Bool(std::string_view field, bool fallback) {
  const json::value* const value = Find(field);
  if (value == nullptr) return fallback;
  if (value->is_bool()) return value->get_bool();
  FailType(field, "true or false", *value);
  return fallback;
}

std::string FieldReader::String(std::string_view field, std::string fallback) {
  const json::value* const value = Find(field);
  if (value == nullptr) return fallback;
  if (value->is_string()) return std::string(value->get_string());
  FailType(field, "a string", *value);
  return fallback;
}

}  // namespace engram::compute
