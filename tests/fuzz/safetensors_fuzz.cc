// Fuzzes what is read of a checkpoint before any tensor: the header of one file, and the index.
// Whatever is accepted must hold: every usable tensor inside the file, none over another, and
// nothing left when all are usable.
//
// Input: 'f' and a file; 'h', two bytes (data bytes, little-endian) and a header's JSON, to which
// the length is put; 'i' and an index.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/check.h"
#include "common/checkpoint/safetensors.h"
#include "common/io/json.h"

namespace {

using namespace engram;
using namespace engram::io;

void CheckFile(std::string_view file) {
  const auto tensors =
      ParseSafetensorsHeader(std::as_bytes(std::span(file.data(), file.size())), "fuzzed");
  if (!tensors.ok()) {
    CHECK(!tensors.status().message().empty());
    return;
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  std::vector<const TensorInfo*> in_order;
  std::set<std::string_view> names;
  bool all_usable = true;
  for (const TensorInfo& tensor : *tensors) {
    CHECK(names.insert(tensor.name).second) << tensor.name;
    if (!tensor.usable.ok()) {
      CHECK(!tensor.usable.message().empty());
      all_usable = false;
      continue;
    }
    in_order.push_back(&tensor);
    uint64_t elements = 1;
    for (const uint64_t size : tensor.shape)
      CHECK(!__builtin_mul_overflow(elements, size, &elements));
    CHECK_EQ(elements, tensor.element_count());
    if (tensor.dtype) CHECK_EQ(elements * SizeOf(*tensor.dtype), tensor.size_bytes);
  }
  std::sort(in_order.begin(), in_order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->file_offset, a->size_bytes) < std::pair(b->file_offset, b->size_bytes);
  });
  uint64_t at = sizeof(header_bytes) + header_bytes;
  for (const TensorInfo* tensor : in_order) {
    if (all_usable && tensor->size_bytes > 0) CHECK_EQ(tensor->file_offset, at);
    if (tensor->size_bytes == 0) continue;
    CHECK_GE(tensor->file_offset, at);
    at = tensor->file_offset + tensor->size_bytes;
  }
  CHECK_LE(at, file.size());
  if (all_usable) CHECK_EQ(at, file.size());
}

void CheckHeader(std::string_view input) {
  uint16_t data_bytes = 0;
  if (input.size() < sizeof(data_bytes)) return;
  std::memcpy(&data_bytes, input.data(), sizeof(data_bytes));
  const std::string_view text = input.substr(sizeof(data_bytes));
  const uint64_t header_bytes = text.size();
  std::string file(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  file += text;
  file.append(data_bytes, '\0');
  CheckFile(file);
}

void CheckIndex(std::string_view text) {
  const auto weight_map = ParseSafetensorsIndex(text, "fuzzed");
  if (!weight_map.ok()) {
    CHECK(!weight_map.status().message().empty());
    return;
  }
  CHECK(!weight_map->empty());
  for (const auto& [tensor, shard] : *weight_map) {
    CHECK(!shard.empty() && shard.find('/') == std::string::npos && shard != "..") << shard;
    CHECK(shard.find('\0') == std::string::npos) << "a name that the file system would cut";
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.empty()) return 0;
  if (input[0] == 'f') CheckFile(input.substr(1));
  if (input[0] == 'h') CheckHeader(input.substr(1));
  if (input[0] == 'i') CheckIndex(input.substr(1));
  return 0;
}
