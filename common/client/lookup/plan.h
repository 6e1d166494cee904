// Which rows of one lookup each node is asked for: distinct rows, by owner, cut into messages.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/damage_reports.h"
#include "common/client/lookup/row_set.h"
#include "common/client/row_source.h"
#include "common/table/layout.h"
#include "common/table/owners.h"
#include "common/table/placement.h"

namespace engram::client {

// What every lookup of a client is planned by; constant once the client is connected.
struct PlanContext {
  bool check_rows = true;  // false in benchmarks only (LookupClientOptions)
  table::TableLayout layout;
  std::vector<table::LayerPartitions> partitions;  // per layer
  table::OwnerTable owners;                        // node indices, R for each partition
  std::vector<std::string> node_labels;            // "m0 (127.0.0.1:7400)"
  uint32_t id_bytes = 4;                           // on the wire
  uint32_t request_rows_max = 0;                   // ids that fit one message
  std::shared_ptr<DamageReports> damage;           // shared with the loop, which tells the nodes

  std::span<const uint16_t> OwnersOf(uint32_t layer_index, uint64_t row) const {
    return owners.Of(layer_index, partitions[layer_index].PartitionOf(row));
  }
  // How messages name a layer: by the model's layer id, as everywhere else.
  int LayerId(uint32_t layer_index) const { return layout.layers[layer_index].layer_id; }
  // Notes a row of a node whose check failed.
  void ReportDamaged(uint32_t node, uint32_t layer_index, uint64_t row) const {
    damage->Add(node, layer_index, row);
  }
};
// Cuts every layer and places it over the map's members.
PlanContext MakePlanContext(const table::TableLayout& layout, const table::ClusterMap& map,
                            std::vector<std::string> node_labels);

inline constexpr uint32_t kNoPosition = ~uint32_t{0};

// What a row costs at each node; of a row's owners the cheapest is asked. Every row that is given
// to a node makes it dearer by one, so that owners of one cost share the rows.
using NodeCosts = std::vector<uint64_t>;
inline constexpr uint64_t kCannotServe = uint64_t{1} << 62;  // and more

// One layer of one lookup. Vectors keep their capacity from lookup to lookup.
struct LayerPlan {
  bool asked = false;
  std::span<std::byte> out;
  TimePoint deadline;                    // the layer's own, as the caller gave it
  std::vector<uint64_t> rows;            // distinct, in order of first use
  std::vector<uint32_t> first_position;  // per distinct row: first place in `out`
  std::vector<uint32_t> next_position;   // per place: the next one of the same row, or kNoPosition
  std::vector<uint32_t> by_node;         // indices into `rows`, node after node
  // Per node: where its part of by_node starts; one more at the end.
  std::vector<uint32_t> node_first;
};

// The rows of one layer inside one request.
struct Section {
  uint32_t layer_index = 0;
  std::span<const uint32_t> rows;  // indices into the layer's rows
};

// One message to one node.
struct NodeRequest {
  uint32_t node = 0;
  uint32_t rows = 0;
  Path path = Path::kGather;
  std::span<const Section> sections = {};
};

// Requests for rows that did not come from the node that was asked first.
struct Detour {
  std::vector<NodeRequest> requests;
  std::vector<Section> sections;
  std::vector<uint32_t> rows;
};

// Made by the caller's thread; only read afterwards.
class LookupPlan {
 public:
  explicit LookupPlan(std::shared_ptr<const PlanContext> context);

  // Errors as CheckLookups; OUT_OF_RANGE names a row past its layer's end. Then nothing may be
  // sent. `costs` is counted up.
  Status Make(std::span<const LayerLookup> layers, NodeCosts& costs);

  const PlanContext& context() const { return *context_; }
  uint64_t rows_asked() const { return rows_asked_; }
  uint64_t rows_distinct() const { return rows_distinct_; }
  const std::vector<LayerPlan>& layers() const { return layers_; }
  const std::vector<NodeRequest>& requests() const { return requests_; }
  std::vector<NodeRequest>& requests() { return requests_; }
  // Ids of rows [first, first + rows.size()) of the section.
  void CopyIds(const Section& section, uint32_t first, std::span<uint64_t> rows) const;

 private:
  Status PlanLayer(const LayerLookup& lookup, NodeCosts& costs);
  Status RemoveDuplicates(const LayerLookup& lookup, LayerPlan& plan);
  void GroupByNode(uint32_t layer_index, LayerPlan& plan, NodeCosts& costs);
  void MakeRequests();

  const std::shared_ptr<const PlanContext> context_;  // shared: a ticket may outlive its client
  uint64_t rows_asked_ = 0;
  uint64_t rows_distinct_ = 0;
  std::vector<LayerPlan> layers_;  // one for each layer of the layout; never resized
  std::vector<NodeRequest> requests_;
  std::vector<Section> sections_;
  std::vector<uint32_t> section_counts_;  // scratch of MakeRequests
  RowSet distinct_;                       // scratch of RemoveDuplicates
  std::vector<uint16_t> owner_of_row_;    // scratch of GroupByNode
};

}  // namespace engram::client
