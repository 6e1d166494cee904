// One step's lookup between Submit and its last row: which distinct rows each node is asked for,
// where they go in the caller's buffers, and what has arrived. Filled in by the caller's thread,
// finished by the client's IO thread.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/damage_reports.h"
#include "common/client/lookup/row_set.h"
#include "common/client/row_source.h"
#include "common/table/layout.h"
#include "common/table/placement.h"

namespace engram::client {

// What every step is planned by; constant once the client is connected.
struct PlanContext {
  bool check_rows = true;  // false in benchmarks only (LookupClientOptions)
  table::TableLayout layout;
  std::vector<table::LayerPartitions> partitions;  // per layer
  std::vector<std::vector<uint16_t>> owners;       // per layer: partition -> node
  std::vector<std::string> node_labels;            // "m0 (127.0.0.1:7400)"
  uint32_t id_bytes = 4;                           // on the wire
  uint32_t request_rows_max = 0;                   // ids that fit one message
  std::shared_ptr<DamageReports> damage;           // shared with the loop, which tells the nodes

  // Notes a row whose check failed.
  void ReportDamaged(uint32_t layer_index, uint64_t row) const {
    damage->Add(owners[layer_index][partitions[layer_index].PartitionOf(row)], layer_index, row);
  }
};
// Cuts every layer and places it over the map's members.
PlanContext MakePlanContext(const table::TableLayout& layout, const table::ClusterMap& map,
                            std::vector<std::string> node_labels);

inline constexpr uint32_t kNoPosition = ~uint32_t{0};

// One layer of one step. Vectors keep their capacity from step to step.
struct LayerPlan {
  bool asked = false;
  std::span<std::byte> out;
  std::vector<uint64_t> rows;            // distinct, in order of first use
  std::vector<uint32_t> first_position;  // per distinct row: first place in `out`
  std::vector<uint32_t> next_position;   // per place: the next one of the same row, or kNoPosition
  std::vector<uint32_t> by_node;         // indices into `rows`, node after node
  std::vector<uint32_t>
      node_first;  // per node: where its part of by_node starts; one more at the end
  // Under the step's mutex once it is posted:
  std::vector<uint8_t> arrived;  // per distinct row
  uint32_t missing = 0;          // distinct rows not in place
  TimePoint deadline;
  Status status;
  std::atomic<bool> done = false;  // set last, under the mutex
};

// The rows of one layer inside one request: by_node[first .. first + count).
struct Section {
  uint32_t layer_index = 0;
  uint32_t first = 0;
  uint32_t count = 0;
};

// One message to one node.
struct NodeRequest {
  uint32_t node = 0;
  uint32_t first_section = 0;
  uint32_t section_count = 0;
  uint32_t rows = 0;
  Path path = Path::kGather;
  bool served = false;  // by the caller itself, out of mapped memory
};

// What a node has delivered.
struct NodeCounters {
  std::atomic<uint64_t> rows_fetched = 0;
  std::atomic<uint64_t> bytes_fetched = 0;
  std::atomic<uint64_t> requests = 0;
  std::array<std::atomic<uint64_t>, kPathCount> rows_by_path = {};
};

// Rows of one section as they arrived: where each stored row lies.
struct ArrivedRows {
  const Section& section;
  uint32_t first = 0;  // in the section
  std::span<const std::byte* const> addresses;
};
inline constexpr uint32_t kPlacedRowsMax = 512;  // in one PlaceRows

class Step {
 public:
  explicit Step(std::shared_ptr<const PlanContext> context);

  // Removes duplicates and splits by owner. INVALID_ARGUMENT or OUT_OF_RANGE name the layer and the
  // value; then nothing must be sent.
  Status Plan(std::span<const LayerLookup> layers, const SubmitOptions& options);

  // Instead of Plan: the caller puts all rows in place before any Wait. Errors as Plan, but
  // for the rows' range.
  Status FinishAtOnce(std::span<const LayerLookup> layers);

  const PlanContext& context() const { return *context_; }
  TimePoint deadline() const { return deadline_; }
  TimePoint LayerDeadline(uint32_t layer_index) const { return layers_[layer_index].deadline; }
  Priority priority() const { return priority_; }
  uint64_t rows_asked() const { return rows_asked_; }
  uint64_t rows_distinct() const { return rows_distinct_; }
  const std::vector<NodeRequest>& requests() const { return requests_; }
  std::vector<NodeRequest>& requests() { return requests_; }
  std::span<const Section> SectionsOf(const NodeRequest& request) const {
    return std::span(sections_).subspan(request.first_section, request.section_count);
  }
  const LayerPlan& layer(uint32_t layer_index) const { return layers_[layer_index]; }
  // Ids of rows [first, first + rows.size()) of the section.
  void CopyIds(const Section& section, uint32_t first, std::span<uint64_t> rows) const;

  // IO thread. Checks stored rows and copies them to every place they were asked for; at most
  // kPlacedRowsMax. DATA_LOSS when one is damaged, not the row asked for, or had arrived before.
  Status PlaceRows(const ArrivedRows& arrived, Path path, NodeCounters& counters);
  // IO thread. Ends every unfinished layer of `request` with `why` and the number of its rows
  // missing.
  void Fail(const NodeRequest& request, const Status& why);

  // Caller. Blocks until the layer is done; ends it with DEADLINE_EXCEEDED when the deadline passes
  // first.
  Status Wait(uint32_t layer_index, const Clock& clock, Nanos spin);
  // Caller. True once the layer is done, whatever the time.
  bool Done(uint32_t layer_index) const;
  // Caller. True when Wait would return at once.
  bool Ready(uint32_t layer_index, const Clock& clock) const;
  // Caller. From Plan until the last layer was done; zero while one is not, or after FinishAtOnce.
  Nanos took() const;
  // The client's own question whether a node answers; until the next Plan.
  void MarkProbe() { probe_ = true; }
  bool probe() const { return probe_; }
  // Caller. After this returns nothing is written into the caller's buffers any more.
  void Detach();

 private:
  // How messages name a layer: by the model's layer id, as everywhere else.
  int LayerId(uint32_t layer_index) const { return context_->layout.layers[layer_index].layer_id; }
  Status CheckLookup(const LayerLookup& lookup) const;
  Status PlanLayer(const LayerLookup& lookup);
  Status RemoveDuplicates(const LayerLookup& lookup, LayerPlan& plan);
  void GroupByNode(uint32_t layer_index, LayerPlan& plan);
  void MakeRequests();
  void Spread(LayerPlan& plan, std::span<const uint32_t> indices);
  void Finish(LayerPlan& plan, Status status);  // under the mutex
  std::string DescribeMissing(uint32_t layer_index) const;

  const std::shared_ptr<const PlanContext> context_;  // shared: a ticket may outlive its client
  TimePoint planned_;                                 // zero: everything was done at once
  TimePoint finished_;                                // the last layer so far; under the mutex
  TimePoint deadline_;
  Priority priority_ = Priority::kDecode;
  bool probe_ = false;
  uint64_t rows_asked_ = 0;
  uint64_t rows_distinct_ = 0;
  std::vector<LayerPlan> layers_;  // one for each layer of the layout; never resized
  std::vector<NodeRequest> requests_;
  std::vector<Section> sections_;
  RowSet distinct_;                     // scratch of RemoveDuplicates
  std::vector<uint16_t> owner_of_row_;  // scratch of GroupByNode

  mutable std::mutex
      mutex_;  // guards what of the layers changes after posting, and the caller's buffers
  std::condition_variable changed_;
};

}  // namespace engram::client
