#include "common/checkpoint/checkpoint_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "common/table/row_codec.h"
#include "common/table/row_copy.h"

namespace engram::client {
namespace {

using table::RowEncoding;

}  // namespace

Result<CheckpointTables> CheckpointTables::Open(const io::Checkpoint* checkpoint,
                                                const table::EngramConfig& config) {
  if (config.layer_ids.empty()) {
    return InvalidArgument(fmt::format("the config of {} has no Engram layers (engram_layer_ids)",
                                       checkpoint->directory()));
  }
  CheckpointTables tables;
  tables.checkpoint_ = checkpoint;
  ASSIGN_OR_RETURN(tables.tables_, FindTableParts(*checkpoint, config.layer_ids, config.head_dim));
  tables.row_format_ = tables.tables_[0].format;
  for (const TableParts& table : tables.tables_) {
    for (const TablePart& part : table.parts) {
      for (const io::TensorInfo* tensor : {part.weight, part.scale}) {
        if (tensor == nullptr) continue;
        const bool known = std::any_of(
            tables.shards_.begin(), tables.shards_.end(),
            [&](const io::TensorInfo* other) { return other->file_index == tensor->file_index; });
        if (!known) tables.shards_.push_back(tensor);
      }
    }
  }
  return tables;
}

Status CheckpointTables::CheckUnchanged() const {
  for (const io::TensorInfo* tensor : shards_)
    RETURN_IF_ERROR(checkpoint_->CheckUnchanged(*tensor));
  return OkStatus();
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
  const TableParts& table = tables_[layer_index];
  CHECK(first_row <= table.rows && count <= table.rows - first_row)
      << "rows " << first_row << " + " << count << " of " << table.rows;
  const uint64_t weight_bytes = table.weight_bytes();
  const uint64_t scale_bytes = table.scale_bytes();
  while (count > 0) {
    const TablePart& part = table.PartOf(first_row);
    const uint64_t at = first_row - part.first_row;
    const uint64_t some = std::min(count, part.rows - at);
    const std::byte* weight = checkpoint_->Bytes(*part.weight).data() + at * weight_bytes;
    if (part.scale == nullptr) {
      std::memcpy(out, weight, some * weight_bytes);
      out += some * weight_bytes;
    } else {
      const std::byte* scale = checkpoint_->Bytes(*part.scale).data() + at * scale_bytes;
      table::InterleaveRows(weight, weight_bytes, scale, scale_bytes, some, out);
      out += some * (weight_bytes + scale_bytes);
    }
    first_row += some;
    count -= some;
  }
}

void CheckpointTables::GatherRows(uint32_t layer_index, std::span<const uint64_t> rows,
                                  std::byte* out) const {
  CHECK_LT(layer_index, tables_.size());
  const TableParts& table = tables_[layer_index];
  const size_t weight_bytes = table.weight_bytes();
  const size_t scale_bytes = table.scale_bytes();
  std::array<const std::byte*, table::kRowsTogether> weights;
  std::array<const std::byte*, table::kRowsTogether> scales;
  for (size_t first = 0; first < rows.size(); first += table::kRowsTogether) {
    const auto block = rows.subspan(first, std::min(table::kRowsTogether, rows.size() - first));
    const size_t scale_count = scale_bytes == 0 ? 0 : block.size();
    for (size_t i = 0; i < block.size(); ++i) {
      CHECK_LT(block[i], table.rows);
      const TablePart& part = table.PartOf(block[i]);
      const uint64_t at = block[i] - part.first_row;
      weights[i] = checkpoint_->Bytes(*part.weight).data() + at * weight_bytes;
      if (scale_count > 0) scales[i] = checkpoint_->Bytes(*part.scale).data() + at * scale_bytes;
    }
    table::PrefetchRows(std::span(weights).first(block.size()), weight_bytes);
    table::PrefetchRows(std::span(scales).first(scale_count), scale_bytes);
    for (size_t i = 0; i < block.size(); ++i, out += weight_bytes + scale_bytes) {
      table::CopyRow(out, weights[i], weight_bytes);
      if (scale_count > 0) table::CopyRow(out + weight_bytes, scales[i], scale_bytes);
    }
  }
}

Result<RowEncoding> DetectEncoding(const io::Checkpoint* checkpoint,
                                   const table::EngramConfig& config) {
  if (checkpoint != nullptr && !config.layer_ids.empty()) {
    const auto tables = FindTableParts(*checkpoint, {config.layer_ids[0]}, config.head_dim);
    if (tables.ok()) return (*tables)[0].format.encoding;
    if (tables.status().code() != Code::kNotFound) return tables.status();
  }
  return config.variant == table::Variant::kV41 ? RowEncoding::kFp8Scaled : RowEncoding::kBf16;
}

}  // namespace engram::client
