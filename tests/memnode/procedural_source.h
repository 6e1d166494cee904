// A table source whose rows are computed: what tests import, and compare with afterwards.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "common/checkpoint/table_source.h"
#include "common/table/procedural.h"
#include "memnode/store/row_store.h"
#include "memnode/upkeep/importer.h"

namespace engram::memnode {

class ProceduralSource : public client::TableSource {
 public:
  explicit ProceduralSource(const table::ProceduralSpec& spec)
      : spec_(spec), layout_(*table::MakeProceduralLayout(spec)) {}

  const table::TableLayout& layout() const { return layout_; }
  table::TableIdentity Identity(const std::string& version) const {
    return table::MakeIdentity(layout_, "procedural", version);
  }
  std::vector<std::byte> Row(uint32_t layer_index, uint64_t row) const {
    std::vector<std::byte> bytes(layout_.row_format.row_bytes());
    table::FillProceduralRow(layout_.row_format, spec_.seed, layer_index, row, bytes);
    return bytes;
  }

  const table::RowFormat& row_format() const override { return layout_.row_format; }
  uint32_t layer_count() const override { return static_cast<uint32_t>(layout_.layers.size()); }
  uint64_t rows(uint32_t layer_index) const override {
    return layout_.layers[layer_index].total_rows;
  }
  Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                  std::byte* out) const override {
    const size_t row_bytes = layout_.row_format.row_bytes();
    for (uint64_t i = 0; i < count; ++i) {
      table::FillProceduralRow(layout_.row_format, spec_.seed, layer_index, first + i,
                               {out + i * row_bytes, row_bytes});
    }
    return OkStatus();
  }
  std::string Fingerprint() const override { return std::to_string(spec_.seed); }
  Status CheckUnchanged() const override { return OkStatus(); }

 private:
  const table::ProceduralSpec spec_;
  const table::TableLayout layout_;
};

// Imports the share of `member` as version `version` of model "procedural".
inline Result<Manifest> ImportProcedural(const ProceduralSource& source, const std::string& version,
                                         const table::ClusterMap& map, const std::string& member,
                                         RowStore& store) {
  const table::TableIdentity identity = source.Identity(version);
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(identity, map, member));
  return ImportTables(source, identity, map, plan, store);
}

}  // namespace engram::memnode
