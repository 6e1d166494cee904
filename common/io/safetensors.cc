// The header of one safetensors file: parsed, and refused where it says anything that its bytes do
// not bear out.
#include "common/io/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "common/io/json.h"

namespace engram::io {
namespace {

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr size_t kDimensionsMax = 16;
constexpr size_t kPrefixBytes = 8;

std::optional<uint64_t> AsUnsigned(const json::value& value) {
  if (value.is_uint64()) return value.get_uint64();
  if (value.is_int64() && value.get_int64() >= 0) {
    return static_cast<uint64_t>(value.get_int64());
  }
  return std::nullopt;
}

// The DOM keeps the last of several equal keys, so repeated names are looked for in the text.
// `text` is valid JSON, `distinct` the number of different keys. Returns the first repeated key of
// the outermost object.
std::optional<std::string> RepeatedKey(std::string_view text, size_t distinct) {
  std::unordered_set<std::string_view> seen;
  int depth = 0;
  bool expects_key = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '{' || c == '[') {
      ++depth;
      expects_key = depth == 1;
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',' && depth == 1) {
      expects_key = true;
    } else if (c == '"') {
      const size_t begin = ++i;
      for (; text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
      }
      const std::string_view key = text.substr(begin, i - begin);
      if (depth == 1 && expects_key && !seen.insert(key).second) return std::string(key);
      if (depth == 1) expects_key = false;
    }
  }
  // Two spellings of one name, by escapes.
  if (seen.size() != distinct) return "a name with an escape";
  return std::nullopt;
}

Result<std::vector<uint64_t>> ParseShape(const json::value& value, const std::string& where) {
  if (!value.is_array()) return InvalidArgument(where + ": \"shape\" is not a list");
  if (value.get_array().size() > kDimensionsMax) {
    return InvalidArgument(fmt::format("{}: {} dimensions, at most {} are read", where,
                                       value.get_array().size(), kDimensionsMax));
  }
  std::vector<uint64_t> shape;
  for (const json::value& dimension : value.get_array()) {
    const std::optional<uint64_t> size = AsUnsigned(dimension);
    if (!size) {
      return InvalidArgument(fmt::format("{}: \"shape\" holds {}, which is not a size", where,
                                         json::serialize(dimension)));
    }
    shape.push_back(*size);
  }
  return shape;
}

// nullopt when the product does not fit.
std::optional<uint64_t> BytesOf(const std::vector<uint64_t>& shape, DType dtype) {
  uint64_t bytes = SizeOf(dtype);
  for (const uint64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

Status CheckMembers(const json::object& object, const std::string& where) {
  for (const auto& [key, value] : object) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return InvalidArgument(fmt::format("{}: unknown member \"{}\"", where, std::string(key)));
    }
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!object.contains(key)) return InvalidArgument(fmt::format("{}: no \"{}\"", where, key));
  }
  return OkStatus();
}

Result<TensorInfo> ParseTensor(std::string name, const json::value& value, uint64_t data_begin,
                               uint64_t data_bytes, const std::string& path) {
  const std::string where = fmt::format("{}: tensor \"{}\"", path, name);
  if (!value.is_object()) return InvalidArgument(where + ": its description is not an object");
  const json::object& object = value.get_object();
  RETURN_IF_ERROR(CheckMembers(object, where));
  TensorInfo info;
  info.name = std::move(name);
  const json::value& dtype_name = object.at("dtype");
  if (!dtype_name.is_string()) return InvalidArgument(where + ": \"dtype\" is not a string");
  const std::optional<DType> dtype = ParseDType(std::string_view(dtype_name.get_string()));
  if (!dtype) {
    return InvalidArgument(
        fmt::format("{}: dtype {} is not one that can be read (F32, BF16, "
                    "F8_E4M3, F8_E8M0, I32, I64, U8)",
                    where, json::serialize(dtype_name)));
  }
  info.dtype = *dtype;
  ASSIGN_OR_RETURN(info.shape, ParseShape(object.at("shape"), where));

  const json::value& offsets = object.at("data_offsets");
  std::optional<uint64_t> begin, end;
  if (offsets.is_array() && offsets.get_array().size() == 2) {
    begin = AsUnsigned(offsets.get_array()[0]);
    end = AsUnsigned(offsets.get_array()[1]);
  }
  if (!begin || !end || *begin > *end || *end > data_bytes) {
    return InvalidArgument(
        fmt::format("{}: data_offsets {} are not a range inside the file's {} data bytes", where,
                    json::serialize(offsets), data_bytes));
  }
  info.file_offset = data_begin + *begin;
  info.size_bytes = *end - *begin;
  const std::optional<uint64_t> expected = BytesOf(info.shape, info.dtype);
  if (!expected || *expected != info.size_bytes) {
    return InvalidArgument(fmt::format("{}: shape [{}] of {} does not fill its {} bytes", where,
                                       fmt::join(info.shape, ","), DTypeName(info.dtype),
                                       info.size_bytes));
  }
  return info;
}

// The format demands that tensors cover the data exactly: no overlap, no hole, nothing left over.
Status CheckCoverage(const std::vector<TensorInfo>& tensors, uint64_t data_begin,
                     uint64_t file_bytes, const std::string& path) {
  std::vector<const TensorInfo*> sorted;
  sorted.reserve(tensors.size());
  for (const TensorInfo& info : tensors) sorted.push_back(&info);
  std::sort(sorted.begin(), sorted.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->file_offset, a->size_bytes) < std::pair(b->file_offset, b->size_bytes);
  });
  uint64_t expected = data_begin;
  for (const TensorInfo* info : sorted) {
    if (info->file_offset != expected) {
      return InvalidArgument(
          fmt::format("{}: tensor \"{}\" begins at byte {} where {} was due: {}", path, info->name,
                      info->file_offset, expected,
                      info->file_offset < expected ? "two tensors overlap" : "bytes of no tensor"));
    }
    expected += info->size_bytes;
  }
  if (expected != file_bytes) {
    return InvalidArgument(fmt::format("{}: {} bytes follow the last tensor; the file is damaged",
                                       path, file_bytes - expected));
  }
  return OkStatus();
}

Status CheckMetadata(const json::value& value, const std::string& path) {
  auto refused = InvalidArgument(path + ": \"__metadata__\" is not an object of strings");
  if (!value.is_object()) return refused;
  for (const auto& [key, text] : value.get_object()) {
    if (!text.is_string()) return refused;
  }
  return OkStatus();
}

}  // namespace

uint64_t TensorInfo::element_count() const { return size_bytes / SizeOf(dtype); }

Result<std::vector<TensorInfo>> ParseSafetensorsHeader(std::span<const std::byte> file,
                                                       const std::string& path) {
  if (file.size() < kPrefixBytes) {
    return InvalidArgument(fmt::format(
        "{}: {} bytes are too few for a safetensors file; it is cut short", path, file.size()));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), kPrefixBytes);
  if (header_bytes > kHeaderBytesMax) {
    return InvalidArgument(fmt::format("{}: header length {} is above {}; not a safetensors file?",
                                       path, header_bytes, kHeaderBytesMax));
  }
  if (header_bytes > file.size() - kPrefixBytes) {
    return InvalidArgument(
        fmt::format("{}: a header of {} bytes does not fit a file of {}; it is cut short", path,
                    header_bytes, file.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kPrefixBytes,
                              header_bytes);
  ASSIGN_OR_RETURN(const json::value document, ParseJson(text, path + ": header"));
  if (!document.is_object()) return InvalidArgument(path + ": the header is not a JSON object");
  if (const auto repeated = RepeatedKey(text, document.get_object().size())) {
    return InvalidArgument(fmt::format("{}: \"{}\" is described twice", path, *repeated));
  }
  const uint64_t data_begin = kPrefixBytes + header_bytes;
  const uint64_t data_bytes = file.size() - data_begin;
  std::vector<TensorInfo> tensors;
  for (const auto& [key, value] : document.get_object()) {
    if (key == "__metadata__") {
      RETURN_IF_ERROR(CheckMetadata(value, path));
      continue;
    }
    ASSIGN_OR_RETURN(TensorInfo info,
                     ParseTensor(std::string(key), value, data_begin, data_bytes, path));
    tensors.push_back(std::move(info));
  }
  RETURN_IF_ERROR(CheckCoverage(tensors, data_begin, file.size(), path));
  return tensors;
}

}  // namespace engram::io
