// Boost.JSON with Results instead of exceptions. The only place that includes the library.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram {
namespace json = boost::json;
}

namespace engram::io {

// Parses one JSON document. Numbers keep 64-bit integer precision. INVALID_ARGUMENT names `what`
// and the byte offset.
Result<json::value> ParseJson(std::string_view text, std::string_view what);
Result<json::value> ParseJsonFile(const std::string& path);

// Typed access to an object's members; the error names `what`, the key and what was found instead.
Result<int64_t> GetInt(const json::object& object, std::string_view key, std::string_view what);
Result<double> GetDouble(const json::object& object, std::string_view key, std::string_view what);
Result<bool> GetBool(const json::object& object, std::string_view key, std::string_view what);
Result<std::string> GetString(const json::object& object, std::string_view key,
                              std::string_view what);

}  // namespace engram::io
