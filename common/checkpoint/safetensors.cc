// The header of one safetensors file: parsed, and refused where it says anything that its bytes do
// not bear out.
#include "common/checkpoint/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "common/io/json.h"

namespace engram::io {
namespace {

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr size_t kDimensionsMax = 16;
constexpr size_t kPrefixBytes = 8;

// Every element type of the format; the sizes place tensors that are never read.
struct Format {
  std::string_view name;
  uint64_t bits;
};
constexpr std::array kFormats = std::to_array<Format>({
    {"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"I16", 16}, {"U16", 16},    {"F8_E5M2FNUZ", 8}, {"F16", 16},    {"BF16", 16},
    {"I32", 32}, {"U32", 32},    {"F32", 32},        {"C64", 64},    {"F64", 64},
    {"I64", 64}, {"U64", 64},
});

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

// nullopt when the product does not fit, or is no whole number of bytes.
std::optional<uint64_t> BytesOf(const std::vector<uint64_t>& shape, uint64_t element_bits) {
  uint64_t bits = element_bits;
  for (const uint64_t size : shape) {
    if (__builtin_mul_overflow(bits, size, &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
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

// The place comes first: it is known even of a tensor whose type or shape is not understood.
Status ParsePlace(const json::value& offsets, uint64_t data_begin, uint64_t data_bytes,
                  const std::string& where, TensorInfo* info) {
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
  info->file_offset = data_begin + *begin;
  info->size_bytes = *end - *begin;
  return OkStatus();
}

Status ParseType(const json::object& object, const std::string& where, TensorInfo* info) {
  const json::value& dtype_name = object.at("dtype");
  if (!dtype_name.is_string()) return InvalidArgument(where + ": \"dtype\" is not a string");
  info->dtype_name = std::string(std::string_view(dtype_name.get_string()));
  const auto format = std::find_if(kFormats.begin(), kFormats.end(), [&](const Format& known) {
    return known.name == info->dtype_name;
  });
  if (format == kFormats.end()) {
    return InvalidArgument(
        fmt::format("{}: dtype \"{}\" is none of the format's", where, info->dtype_name));
  }
  info->dtype = ParseDType(info->dtype_name);
  ASSIGN_OR_RETURN(info->shape, ParseShape(object.at("shape"), where));
  if (BytesOf(info->shape, format->bits) == info->size_bytes) return OkStatus();
  return InvalidArgument(fmt::format("{}: shape [{}] of {} does not fill its {} bytes", where,
                                     fmt::join(info->shape, ","), info->dtype_name,
                                     info->size_bytes));
}

Status ParseTensor(const json::value& value, uint64_t data_begin, uint64_t data_bytes,
                   const std::string& path, TensorInfo* info) {
  const std::string where = fmt::format("{}: tensor \"{}\"", path, info->name);
  if (!value.is_object()) return InvalidArgument(where + ": its description is not an object");
  const json::object& object = value.get_object();
  RETURN_IF_ERROR(CheckMembers(object, where));
  RETURN_IF_ERROR(ParsePlace(object.at("data_offsets"), data_begin, data_bytes, where, info));
  return ParseType(object, where, info);
}

// The format demands that tensors cover the data exactly: no hole, nothing left over. Two that
// overlap are both unusable.
Status CheckCoverage(std::vector<TensorInfo>& tensors, uint64_t data_begin, uint64_t file_bytes,
                     const std::string& path) {
  std::vector<TensorInfo*> sorted;
  for (TensorInfo& info : tensors) {
    if (info.file_offset != 0) sorted.push_back(&info);
  }
  const bool all_placed = sorted.size() == tensors.size();
  std::sort(sorted.begin(), sorted.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->file_offset, a->size_bytes) < std::pair(b->file_offset, b->size_bytes);
  });
  uint64_t expected = data_begin;
  TensorInfo* furthest = nullptr;  // the tensor that ends at `expected`
  for (TensorInfo* info : sorted) {
    if (info->file_offset < expected && info->size_bytes > 0) {
      for (TensorInfo* one : {furthest, info}) {
        if (!one->usable.ok()) continue;
        one->usable = InvalidArgument(fmt::format(
            "{}: two tensors overlap: \"{}\" begins at byte {}, before \"{}\" ends at {}", path,
            info->name, info->file_offset, furthest->name, expected));
      }
    }
    if (info->file_offset > expected && all_placed) {
      return InvalidArgument(
          fmt::format("{}: tensor \"{}\" begins at byte {} where {} was due: bytes of no tensor",
                      path, info->name, info->file_offset, expected));
    }
    const uint64_t end = info->file_offset + info->size_bytes;
    if (end < expected) continue;
    expected = end;
    furthest = info;
  }
  if (expected != file_bytes && all_placed) {
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

uint64_t TensorInfo::element_count() const {
  uint64_t count = 1;
  for (const uint64_t size : shape) count *= size;
  return count;
}

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
  // A copy: the file may change while it is read, and the text is gone through twice.
  const std::string text(reinterpret_cast<const char*>(file.data()) + kPrefixBytes, header_bytes);
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
    TensorInfo& info = tensors.emplace_back();
    info.name = std::string(key);
    info.usable = ParseTensor(value, data_begin, data_bytes, path, &info);
  }
  RETURN_IF_ERROR(CheckCoverage(tensors, data_begin, file.size(), path));
  return tensors;
}

}  // namespace engram::io
