// Reads the members of a JSON object one by one and keeps the first thing wrong, so that the caller
// reads like a list of members. What is read after an error is of no use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/io/json.h"

namespace engram::io {

class ObjectReader {
 public:
  // Errors are INVALID_ARGUMENT and begin with `what`. The JSON must outlive the reader.
  ObjectReader(const json::object& object, std::string_view what) : object_(object), what_(what) {}
  // Of a value that should be an object.
  ObjectReader(const json::value& value, std::string_view what);

  bool Has(std::string_view key) const { return object_.contains(key); }
  void String(std::string_view key, std::string& out) { Take(GetString(object_, key, what_), out); }
  void Bool(std::string_view key, bool& out) { Take(GetBool(object_, key, what_), out); }
  template <typename T>
  void Int(std::string_view key, int64_t min, int64_t max, T& out) {
    out = static_cast<T>(IntWithin(key, min, max));
  }
  // A 64-bit number (int64_t, uint64_t) written as text: few readers of JSON keep so many bits.
  template <typename T>
  void Number(std::string_view key, T& out, int base = 10);
  template <typename T>
  void Numbers(std::string_view key, size_t items_max, std::vector<T>& out);  // a list of them
  // Empty ones after an error.
  const json::object& Object(std::string_view key);
  const json::array& Array(std::string_view key, size_t items_max);

  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }

 private:
  template <typename T>
  void Take(Result<T> result, T& out) {
    result.ok() ? void(out = std::move(*result)) : Fail(result.status());
  }
  int64_t IntWithin(std::string_view key, int64_t min, int64_t max);
  template <typename T>
  void Parse(std::string_view key, const json::value& value, int base, T& out);

  const json::object& object_;
  const std::string what_;
  Status status_;
};

}  // namespace engram::io
