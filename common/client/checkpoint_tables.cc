#include "common/client/checkpoint_tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstring>

namespace engram::client {
namespace {

using table::RowEncoding;

constexpr std::array<std::string_view, 2> kPrefixes = {"model.", ""};

std::string TensorName(std::string_view prefix, int layer_id, std::string_view leaf) {
  return fmt::format("{}layers.{}.engram.embed.{}", prefix, layer_id, leaf);
}

// The layer's table under whichever prefix the checkpoint uses.
Result<io::TensorView> FindTensor(const io::Checkpoint& checkpoint, int layer_id,
                                  std::string_view leaf) {
  for (std::string_view prefix : kPrefixes) {
    const std::string name = TensorName(prefix, layer_id, leaf);
    if (checkpoint.Has(name)) return checkpoint.Get(name);
  }
  return NotFound(
      fmt::format("no tensor {} (or {}) in {}: this folder lacks the Engram table of "
                  "layer {}",
                  TensorName(kPrefixes[0], layer_id, leaf),
                  TensorName(kPrefixes[1], layer_id, leaf), checkpoint.directory(), layer_id));
}

Status CheckShape(const io::TensorInfo& info, uint64_t columns) {
  if (info.shape.size() == 2 && info.shape[1] == columns && info.shape[0] > 0) return OkStatus();
  return InvalidArgument(fmt::format("tensor {} has shape [{}], expected [rows, {}]", info.name,
                                     fmt::join(info.shape, ", "), columns));
}

Result<RowEncoding> EncodingOf(const io::TensorInfo& weight) {
  if (weight.dtype == DType::kBf16) return RowEncoding::kBf16;
  if (weight.dtype == DType::kF8E4m3) return RowEncoding::kFp8Scaled;
  return InvalidArgument(fmt::format("tensor {} has dtype {}, expected {} or {}", weight.name,
                                     DTypeName(weight.dtype), DTypeName(DType::kBf16),
                                     DTypeName(DType::kF8E4m3)));
}

}  // namespace

Result<CheckpointTables> CheckpointTables::Open(const io::Checkpoint* checkpoint,
                                                const table::EngramConfig& config) {
  if (config.layer_ids.empty()) {
    return InvalidArgument(fmt::format("the config of {} has no Engram layers (engram_layer_ids)",
                                       checkpoint->directory()));
  }
  CheckpointTables tables;
  const auto head_dim = static_cast<uint64_t>(config.head_dim);
  for (const int layer_id : config.layer_ids) {
    ASSIGN_OR_RETURN(const io::TensorView weight, FindTensor(*checkpoint, layer_id, "weight"));
    RETURN_IF_ERROR(CheckShape(*weight.info, head_dim));
    ASSIGN_OR_RETURN(const RowEncoding encoding, EncodingOf(*weight.info));
    if (tables.tables_.empty()) {
      tables.row_format_ = {encoding, config.head_dim};
    } else if (encoding != tables.row_format_.encoding) {
      return InvalidArgument(fmt::format("tensor {} has dtype {}, but the table of layer {} is {}",
                                         weight.info->name, DTypeName(weight.info->dtype),
                                         config.layer_ids[0],
                                         table::RowEncodingName(tables.row_format_.encoding)));
    }
    Table found = {layer_id, weight.info->shape[0], weight.bytes.data(), nullptr};
    if (encoding == RowEncoding::kFp8Scaled) {
      ASSIGN_OR_RETURN(const io::TensorView scale, FindTensor(*checkpoint, layer_id, "scale"));
      RETURN_IF_ERROR(CheckShape(*scale.info, head_dim / 32));
      if (scale.info->dtype != DType::kF8E8m0 && scale.info->dtype != DType::kU8) {
        return InvalidArgument(fmt::format("tensor {} has dtype {}, expected {}", scale.info->name,
                                           DTypeName(scale.info->dtype),
                                           DTypeName(DType::kF8E8m0)));
      }
      if (scale.info->shape[0] != found.rows) {
        return InvalidArgument(fmt::format("tensor {} has {} rows, but {} has {}", scale.info->name,
                                           scale.info->shape[0], weight.info->name, found.rows));
      }
      found.scale = scale.bytes.data();
    }
    tables.tables_.push_back(found);
  }
  const bool scaled = tables.row_format_.encoding == RowEncoding::kFp8Scaled;
  tables.weight_bytes_ = head_dim * (scaled ? 1 : 2);
  tables.scale_bytes_ = scaled ? head_dim / 32 : 0;
  return tables;
}

Status CheckpointTables::CheckLayout(const table::TableLayout& layout) const {
  if (layout.layers.size() != tables_.size()) {
    return InvalidArgument(fmt::format("the checkpoint holds {} Engram tables, the layout {}",
                                       tables_.size(), layout.layers.size()));
  }
  if (layout.row_format != row_format_) {
    return InvalidArgument(fmt::format(
        "rows of the checkpoint are {} x {}, of the layout {} x {}", row_format_.head_dim,
        table::RowEncodingName(row_format_.encoding), layout.row_format.head_dim,
        table::RowEncodingName(layout.row_format.encoding)));
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    const table::LayerLayout& layer = layout.layers[i];
    if (layer.layer_id != tables_[i].layer_id || layer.total_rows != tables_[i].rows) {
      return InvalidArgument(fmt::format(
          "the Engram table of layer {} has {} rows, but the config asks for {} rows in layer {}",
          tables_[i].layer_id, tables_[i].rows, layer.total_rows, layer.layer_id));
    }
  }
  return OkStatus();
}

void CheckpointTables::CopyRows(uint32_t layer_index, uint64_t first_row, uint64_t count,
                                std::byte* out) const {
  CHECK_LT(layer_index, tables_.size());
  const Table& table = tables_[layer_index];
  CHECK(first_row <= table.rows && count <= table.rows - first_row)
      << "rows " << first_row << " + " << count << " of " << table.rows;
  if (table.scale == nullptr) {
    std::memcpy(out, table.weight + first_row * weight_bytes_, count * weight_bytes_);
    return;
  }
  for (uint64_t row = first_row; row < first_row + count; ++row) {
    std::memcpy(out, table.weight + row * weight_bytes_, weight_bytes_);
    std::memcpy(out + weight_bytes_, table.scale + row * scale_bytes_, scale_bytes_);
    out += weight_bytes_ + scale_bytes_;
  }
}

Result<RowEncoding> DetectEncoding(const io::Checkpoint* checkpoint,
                                   const table::EngramConfig& config) {
  if (checkpoint != nullptr && !config.layer_ids.empty()) {
    const Result<io::TensorView> weight = FindTensor(*checkpoint, config.layer_ids[0], "weight");
    if (weight.ok()) return EncodingOf(*weight->info);
  }
  return config.variant == table::Variant::kV41 ? RowEncoding::kFp8Scaled : RowEncoding::kBf16;
}

}  // namespace engram::client
