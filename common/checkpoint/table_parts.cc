#include "common/checkpoint/table_parts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace engram::client {
namespace {

using table::RowEncoding;

constexpr std::array<std::string_view, 2> kPrefixes = {"model.", ""};
constexpr uint32_t kPleShardsMax = 1 << 16;

std::string EngramName(std::string_view prefix, int layer_id, std::string_view leaf) {
  return fmt::format("{}layers.{}.engram.embed.{}", prefix, layer_id, leaf);
}

std::string PleName(int layer_id, uint32_t shard) {
  return fmt::format(
      "model.language_model.layers.{}.ple.ple_embedding.ngram_embedding.shard_{}.weight", layer_id,
      shard);
}

const io::TensorInfo* Find(const io::Checkpoint& checkpoint, const std::string& name) {
  const auto found = checkpoint.tensors().find(name);
  return found == checkpoint.tensors().end() ? nullptr : &found->second;
}

// The layer's tensor under whichever prefix the checkpoint uses.
const io::TensorInfo* FindEngram(const io::Checkpoint& checkpoint, int layer_id,
                                 std::string_view leaf) {
  for (const std::string_view prefix : kPrefixes) {
    if (const auto* info = Find(checkpoint, EngramName(prefix, layer_id, leaf))) return info;
  }
  return nullptr;
}

Status NoTensor(const io::Checkpoint& checkpoint, int layer_id, std::string_view leaf) {
  return NotFound(fmt::format(
      "no tensor {} (or {}, or {}) in {}: this folder lacks the Engram table of layer {}",
      EngramName(kPrefixes[0], layer_id, leaf), EngramName(kPrefixes[1], layer_id, leaf),
      PleName(layer_id, 0), checkpoint.directory(), layer_id));
}

Status CheckShape(const io::TensorInfo& info, uint64_t columns) {
  RETURN_IF_ERROR(info.usable);
  if (info.shape.size() == 2 && info.shape[1] == columns && info.shape[0] > 0) return OkStatus();
  return InvalidArgument(fmt::format("tensor {} has shape [{}], expected [rows, {}]", info.name,
                                     fmt::join(info.shape, ", "), columns));
}

Status CheckScale(const io::TensorInfo& scale, const io::TensorInfo& weight, uint64_t columns) {
  RETURN_IF_ERROR(CheckShape(scale, columns));
  if (scale.dtype != DType::kF8E8m0 && scale.dtype != DType::kU8) {
    return InvalidArgument(fmt::format("tensor {} has dtype {}, expected {}", scale.name,
                                       scale.dtype_name, DTypeName(DType::kF8E8m0)));
  }
  if (scale.shape[0] == weight.shape[0]) return OkStatus();
  return InvalidArgument(fmt::format("tensor {} has {} rows, but {} has {}", scale.name,
                                     scale.shape[0], weight.name, weight.shape[0]));
}

Result<RowEncoding> EncodingOf(const io::TensorInfo& weight, RowEncoding of_fp8) {
  if (weight.dtype == DType::kBf16) return RowEncoding::kBf16;
  if (weight.dtype == DType::kF8E4m3) return of_fp8;
  return InvalidArgument(fmt::format("tensor {} has dtype {}, expected {} or {}", weight.name,
                                     weight.dtype_name, DTypeName(DType::kBf16),
                                     DTypeName(DType::kF8E4m3)));
}

// Takes the first tensor's second dimension when head_dim is 0.
uint64_t Columns(const io::TensorInfo& weight, int head_dim) {
  if (head_dim != 0 || weight.shape.size() != 2) return static_cast<uint64_t>(head_dim);
  return weight.shape[1];
}

Result<TableParts> EngramParts(const io::Checkpoint& checkpoint, const io::TensorInfo& weight,
                               int layer_id, int head_dim) {
  const uint64_t columns = Columns(weight, head_dim);
  RETURN_IF_ERROR(CheckShape(weight, columns));
  TableParts table;
  table.layer_id = layer_id;
  table.rows = weight.shape[0];
  ASSIGN_OR_RETURN(table.format.encoding, EncodingOf(weight, RowEncoding::kFp8Scaled));
  table.format.head_dim = static_cast<int>(columns);
  const io::TensorInfo* scale = nullptr;
  if (table.format.encoding == RowEncoding::kFp8Scaled) {
    scale = FindEngram(checkpoint, layer_id, "scale");
    if (scale == nullptr) return NoTensor(checkpoint, layer_id, "scale");
    RETURN_IF_ERROR(CheckScale(*scale, weight, columns / 32));
  }
  table.parts.push_back({0, table.rows, &weight, scale});
  return table;
}

Result<TableParts> PleParts(const io::Checkpoint& checkpoint, const io::TensorInfo& first,
                            int layer_id, int head_dim) {
  RETURN_IF_ERROR(first.usable);
  const uint64_t columns = Columns(first, head_dim);
  TableParts table;
  table.layer_id = layer_id;
  ASSIGN_OR_RETURN(table.format.encoding, EncodingOf(first, RowEncoding::kFp8));
  table.format.head_dim = static_cast<int>(columns);
  for (uint32_t shard = 0; shard < kPleShardsMax; ++shard) {
    const io::TensorInfo* weight = Find(checkpoint, PleName(layer_id, shard));
    if (weight == nullptr) break;
    RETURN_IF_ERROR(CheckShape(*weight, columns));
    if (weight->dtype != first.dtype) {
      return InvalidArgument(fmt::format("tensor {} has dtype {}, but {} has {}", weight->name,
                                         weight->dtype_name, first.name, first.dtype_name));
    }
    table.parts.push_back({table.rows, weight->shape[0], weight, nullptr});
    table.rows += weight->shape[0];
  }
  // A shard left out in the middle would move every row behind it.
  const std::string prefix = PleName(layer_id, 0).substr(0, PleName(layer_id, 0).rfind('_') + 1);
  size_t present = 0;
  for (auto it = checkpoint.tensors().lower_bound(prefix);
       it != checkpoint.tensors().end() && it->first.starts_with(prefix); ++it) {
    present += it->first.ends_with(".weight") ? 1 : 0;
  }
  if (present != table.parts.size()) {
    return InvalidArgument(
        fmt::format("tensor {} is missing in {}, which has {} shards of layer {}",
                    PleName(layer_id, static_cast<uint32_t>(table.parts.size())),
                    checkpoint.directory(), present, layer_id));
  }
  return table;
}

// The N of a tensor "...layers.N.engram..." or "...layers.N.ple..."; -1 of any other.
int LayerOfEngramTensor(std::string_view name) {
  constexpr std::string_view kLayers = "layers.";
  for (const std::string_view kind : {".engram.", ".ple."}) {
    const size_t end = name.find(kind);
    if (end == std::string_view::npos) continue;
    const size_t layers = name.rfind(kLayers, end);
    if (layers == std::string_view::npos) continue;
    int layer = -1;
    const char* first = name.data() + layers + kLayers.size();
    const auto parsed = std::from_chars(first, name.data() + end, layer);
    if (parsed.ec == std::errc() && parsed.ptr == name.data() + end && layer >= 0) return layer;
  }
  return -1;
}

}  // namespace

Status CheckLayersListed(const io::Checkpoint& checkpoint, const std::vector<int>& layer_ids) {
  for (const auto& [name, info] : checkpoint.tensors()) {
    const int layer = LayerOfEngramTensor(name);
    if (layer < 0 || std::find(layer_ids.begin(), layer_ids.end(), layer) != layer_ids.end())
      continue;
    return InvalidArgument(fmt::format(
        "{} holds {}, but its config.json lists {} as Engram layers: layer {} would be run without "
        "its memory; list it in engram_layer_ids (0-based; ple_layer_ids counts from 1)",
        checkpoint.directory(), name,
        layer_ids.empty() ? "none" : fmt::format("[{}]", fmt::join(layer_ids, ", ")), layer));
  }
  return OkStatus();
}

uint64_t TableParts::weight_bytes() const {
  const auto dim = static_cast<uint64_t>(format.head_dim);
  return format.encoding == RowEncoding::kBf16 ? dim * 2 : dim;
}

const TablePart& TableParts::PartOf(uint64_t row) const {
  const auto after = std::upper_bound(
      parts.begin(), parts.end(), row,
      [](uint64_t sought, const TablePart& part) { return sought < part.first_row; });
  return *(after - 1);
}

Result<std::vector<TableParts>> FindTableParts(const io::Checkpoint& checkpoint,
                                               const std::vector<int>& layer_ids, int head_dim) {
  std::vector<TableParts> tables;
  for (const int layer_id : layer_ids) {
    const io::TensorInfo* engram = FindEngram(checkpoint, layer_id, "weight");
    const io::TensorInfo* ple =
        engram == nullptr ? Find(checkpoint, PleName(layer_id, 0)) : nullptr;
    if (engram == nullptr && ple == nullptr) return NoTensor(checkpoint, layer_id, "weight");
    ASSIGN_OR_RETURN(TableParts table, engram != nullptr
                                           ? EngramParts(checkpoint, *engram, layer_id, head_dim)
                                           : PleParts(checkpoint, *ple, layer_id, head_dim));
    if (!tables.empty() && table.format != tables[0].format) {
      const io::TensorInfo& weight = *table.parts[0].weight;
      return InvalidArgument(fmt::format("tensor {} has dtype {}, but the table of layer {} is {}",
                                         weight.name, weight.dtype_name, layer_ids[0],
                                         table::RowEncodingName(tables[0].format.encoding)));
    }
    tables.push_back(std::move(table));
  }
  return tables;
}

}  // namespace engram::client
