#include "common/io/object_reader.h"

#include <fmt/format.h>

#include <charconv>

namespace engram::io {
namespace {

const json::object kNoObject;
const json::array kNoArray;

}  // namespace

ObjectReader::ObjectReader(const json::value& value, std::string_view what)
    : object_(value.is_object() ? value.get_object() : kNoObject), what_(what) {
  if (!value.is_object()) Fail(InvalidArgument(fmt::format("{}: not an object", what)));
}

const json::object& ObjectReader::Object(std::string_view key) {
  const json::value* const value = object_.if_contains(key);
  if (value != nullptr && value->is_object()) return value->get_object();
  Fail(InvalidArgument(fmt::format("{}: no object \"{}\"", what_, key)));
  return kNoObject;
}

const json::array& ObjectReader::Array(std::string_view key, size_t items_max) {
  const json::value* const value = object_.if_contains(key);
  if (value != nullptr && value->is_array() && value->get_array().size() <= items_max) {
    return value->get_array();
  }
  Fail(InvalidArgument(
      fmt::format("{}: \"{}\" is not a list of at most {} items", what_, key, items_max)));
  return kNoArray;
}

int64_t ObjectReader::IntWithin(std::string_view key, int64_t min, int64_t max) {
  int64_t value = min;
  Take(GetInt(object_, key, what_), value);
  if (value >= min && value <= max) return value;
  Fail(InvalidArgument(
      fmt::format("{}: \"{}\" is {}, expected {} to {}", what_, key, value, min, max)));
  return min;
}

template <typename T>
void ObjectReader::Parse(std::string_view key, const json::value& value, int base, T& out) {
  const json::string* const text = value.if_string();
  const char* const end = text == nullptr ? nullptr : text->data() + text->size();
  if (text != nullptr) {
    const auto parsed = std::from_chars(text->data(), end, out, base);
    if (parsed.ec == std::errc() && parsed.ptr == end) return;
  }
  Fail(InvalidArgument(fmt::format("{}: \"{}\" is {:.60}, expected a number as text", what_, key,
                                   json::serialize(value))));
}

template <typename T>
void ObjectReader::Number(std::string_view key, T& out, int base) {
  const json::value* const value = object_.if_contains(key);
  if (value != nullptr) return Parse(key, *value, base, out);
  Fail(InvalidArgument(fmt::format("{}: no \"{}\"", what_, key)));
}

template <typename T>
void ObjectReader::Numbers(std::string_view key, size_t items_max, std::vector<T>& out) {
  for (const json::value& item : Array(key, items_max)) Parse(key, item, 10, out.emplace_back());
}

template void ObjectReader::Number(std::string_view, int64_t&, int);
template void ObjectReader::Number(std::string_view, uint64_t&, int);
template void ObjectReader::Numbers(std::string_view, size_t, std::vector<int64_t>&);
template void ObjectReader::Numbers(std::string_view, size_t, std::vector<uint64_t>&);

}  // namespace engram::io
