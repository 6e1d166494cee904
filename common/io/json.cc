#include "common/io/json.h"

#include <fmt/format.h>

#include <cmath>

#include "common/io/read_file.h"

namespace engram::io {
namespace {

constexpr size_t kDepthMax = 64;
constexpr uint64_t kFileBytesMax = uint64_t{1}
                                   << 28;  // an index of 10,000 shards has some megabytes

Result<const json::value*> Member(const json::object& object, std::string_view key,
                                  std::string_view what) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) return InvalidArgument(fmt::format("{}: no \"{}\"", what, key));
  return value;
}

Status WrongType(const json::value& value, std::string_view key, std::string_view what,
                 std::string_view wanted) {
  constexpr size_t kShownMax = 80;
  std::string shown = json::serialize(value);
  if (shown.size() > kShownMax) shown = shown.substr(0, kShownMax) + "...";
  return InvalidArgument(fmt::format("{}: \"{}\" is {}, not {}", what, key, shown, wanted));
}

}  // namespace

Result<json::value> ParseJson(std::string_view text, std::string_view what) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  json::stream_parser parser({}, options);
  json::error_code error;
  // write_some says how far it got, which is what the message needs.
  const size_t used = parser.write_some(text.data(), text.size(), error);
  if (!error && used < text.size()) error = json::error::extra_data;
  if (!error) parser.finish(error);
  if (error) {
    return InvalidArgument(
        fmt::format("{}: not valid JSON at byte {}: {}", what, used, error.message()));
  }
  return parser.release();
}

Result<json::value> ParseJsonFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  return ParseJson(text, path);
}

Result<int64_t> GetInt(const json::object& object, std::string_view key, std::string_view what) {
  ASSIGN_OR_RETURN(const json::value* value, Member(object, key, what));
  if (!value->is_int64()) return WrongType(*value, key, what, "a 64-bit integer");
  return value->get_int64();
}

Result<double> GetDouble(const json::object& object, std::string_view key, std::string_view what) {
  ASSIGN_OR_RETURN(const json::value* value, Member(object, key, what));
  if (value->is_int64()) return static_cast<double>(value->get_int64());
  if (value->is_uint64()) return static_cast<double>(value->get_uint64());
  if (!value->is_double()) return WrongType(*value, key, what, "a number");
  return value->get_double();
}

Result<bool> GetBool(const json::object& object, std::string_view key, std::string_view what) {
  ASSIGN_OR_RETURN(const json::value* value, Member(object, key, what));
  if (!value->is_bool()) return WrongType(*value, key, what, "true or false");
  return value->get_bool();
}

Result<std::string> GetString(const json::object& object, std::string_view key,
                              std::string_view what) {
  ASSIGN_OR_RETURN(const json::value* value, Member(object, key, what));
  if (!value->is_string()) return WrongType(*value, key, what, "a string");
  return std::string(value->get_string());
}

}  // namespace engram::io
