#include "memnode/load/tables.h"

#include <utility>

#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/safetensors.h"

namespace engram::memnode::load {
namespace {

class ProceduralReference : public RowReference {
 public:
  ProceduralReference(const table::RowFormat& format, uint64_t seed)
      : format_(format), seed_(seed) {}
  void Fill(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const override {
    table::FillProceduralRow(format_, seed_, layer_index, row, out);
  }

 private:
  const table::RowFormat format_;
  const uint64_t seed_;
};

class CheckpointReference : public RowReference {
 public:
  CheckpointReference(std::unique_ptr<io::Checkpoint> checkpoint, client::CheckpointTables tables)
      : checkpoint_(std::move(checkpoint)), tables_(std::move(tables)) {}
  void Fill(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const override {
    tables_.CopyRows(layer_index, row, 1, out.data());
  }
  Status CheckUnchanged() const override { return tables_.CheckUnchanged(); }

 private:
  const std::unique_ptr<io::Checkpoint> checkpoint_;  // outlives the tables
  const client::CheckpointTables tables_;
};

}  // namespace

std::unique_ptr<RowReference> MakeProceduralReference(const table::TableLayout& layout,
                                                      uint64_t seed) {
  return std::make_unique<ProceduralReference>(layout.row_format, seed);
}

Result<std::unique_ptr<RowReference>> OpenCheckpointReference(const std::string& model_dir,
                                                              const table::TableLayout& layout) {
  ASSIGN_OR_RETURN(io::Checkpoint opened, io::Checkpoint::Open(model_dir));
  auto checkpoint = std::make_unique<io::Checkpoint>(std::move(opened));
  table::EngramConfig config;
  config.head_dim = layout.row_format.head_dim;
  for (const table::LayerLayout& layer : layout.layers) config.layer_ids.push_back(layer.layer_id);
  ASSIGN_OR_RETURN(client::CheckpointTables tables,
                   client::CheckpointTables::Open(checkpoint.get(), config));
  RETURN_IF_ERROR(tables.CheckLayout(layout));
  return std::unique_ptr<RowReference>(
      std::make_unique<CheckpointReference>(std::move(checkpoint), std::move(tables)));
}

Result<LoadTables> OpenTables(const TableOptions& options, bool with_reference) {
  LoadTables tables;
  if (!options.procedural.layout.empty()) {
    ASSIGN_OR_RETURN(tables.layout, table::MakeProceduralLayout(options.procedural));
    tables.identity = table::MakeProceduralIdentity(options.procedural, tables.layout);
    tables.reference = MakeProceduralReference(tables.layout, options.procedural.seed);
    return tables;
  }
  ASSIGN_OR_RETURN(
      client::ModelTables model,
      client::LoadModelTables(options.model_dir, options.model_name, options.model_version));
  if (const Status known = table::CheckCanHash(model.config); !known.ok()) {
    return known.WithContext(options.model_dir);
  }
  tables.layout = std::move(model.layout);
  tables.identity = std::move(model.identity);
  tables.map = std::move(model.map);
  tables.model_dir = options.model_dir;
  if (with_reference) {
    ASSIGN_OR_RETURN(tables.reference, OpenCheckpointReference(options.model_dir, tables.layout));
  }
  return tables;
}

}  // namespace engram::memnode::load
