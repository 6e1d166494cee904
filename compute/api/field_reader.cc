#include "compute/api/field_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/text/utf8.h"

namespace engram::compute {
namespace {

std::string Shown(const json::value& value) {
  std::string text = json::serialize(value);
  if (text.size() <= 60) return text;
  text.resize(text::ValidUtf8Prefix(std::string_view(text).substr(0, 60)));
  return text + "...";
}

}  // namespace

const json::value* FieldReader::Find(std::string_view field) {
  known_.emplace(field);
  const json::value* const value = object_.if_contains(field);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void FieldReader::Fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::Fail(std::string_view field, std::string message) {
  Fail(FieldError(field, std::move(message)));
}

void FieldReader::FailType(std::string_view field, std::string_view expected,
                           const json::value& found) {
  Fail(field, fmt::format("{} must be {}; it is {}", field, expected, Shown(found)));
}

int64_t FieldReader::Int(std::string_view field, int64_t min, int64_t max, int64_t fallback) {
  const json::value* const value = Find(field);
  if (value == nullptr) return fallback;
  std::optional<int64_t> number;
  if (value->is_int64()) number = value->get_int64();
  if (value->is_uint64()) number = INT64_MAX;  // above it
  // A whole number written as 5.0 is what some clients send.
  if (value->is_double() &&
      value->get_double() ==
          static_cast<double>(static_cast<int64_t>(std::clamp(value->get_double(), -9e15, 9e15)))) {
    number = static_cast<int64_t>(value->get_double());
  }
  if (!number) {
    FailType(field, "an integer", *value);
  } else if (*number < min || *number > max) {
    FailType(field, fmt::format("an integer in {}..{}", min, max), *value);
  } else {
    return *number;
  }
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

void FieldReader::Refuse(std::string_view field, const json::value& only) {
  const json::value* const value = Find(field);
  if (value == nullptr || *value == only || *value == json::value(false)) return;
  if (value->is_array() && value->get_array().empty()) return;
  if (!error_) {
    error_ = ApiError{400, fmt::format("{} is not supported; leave it out", field),
                      std::string(field), "unsupported_parameter"};
  }
}

std::vector<std::string> FieldReader::Unknown() const {
  std::vector<std::string> unknown;
  for (const auto& member : object_) {
    if (!known_.contains(member.key())) unknown.emplace_back(member.key());
  }
  return unknown;
}

}  // namespace engram::compute
