// Asks for Engram rows as soon as tokens are known and hands them over when a layer needs them. Two
// fetches may be under way: the step being computed and the next chunk. Rows are keyed by
// (sequence, positions, tokens, layer) and checked on consumption: a failure is an error, never a
// wrong row.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/client/row_source.h"
#include "common/table/ngram.h"
#include "common/table/vocab_map.h"

namespace engram::compute {

// The tokens of one step of one sequence, and what preceded them.
struct StepTokens {
  uint64_t sequence = 0;
  int64_t first_position = 0;
  std::span<const int32_t> tokens;
  table::NgramState before;
};

struct PrefetchOptions {
  int64_t deadline_ms = 2000;  // of one step's rows, from Submit
  bool verify = false;         // hash again on consumption and compare
};

struct LayerWait {
  int layer_id = 0;
  int64_t exposed_ns = 0;  // time the engine stood still for this layer's rows
  int64_t waits = 0;
};

// The rows of one step, all Engram layers.
class Fetch {
 public:
  // Waits for one layer: [tokens, rows_per_position, row_bytes]. Errors name the layer and the
  // positions.
  Result<std::span<const std::byte>> Rows(uint32_t layer_index);

 private:
  friend class Prefetcher;
  bool IsFor(const StepTokens& step) const;

  class Prefetcher* owner_ = nullptr;
  bool in_use_ = false;
  uint64_t sequence_ = 0;
  int64_t first_position_ = 0;
  std::vector<int32_t> tokens_;
  table::NgramState before_;                   // as the consumer has it, once taken
  std::vector<int64_t> ids_;                   // compressed tokens
  std::vector<std::vector<uint64_t>> rows_;    // per layer
  std::vector<std::vector<std::byte>> bytes_;  // per layer
  std::unique_ptr<client::Ticket> ticket_;     // last: it writes into bytes_ until destroyed
};

class Prefetcher {
 public:
  // `source` may be null for a model without Engram layers. All references must outlive the
  // prefetcher.
  Prefetcher(client::RowSource* source, const table::TableLayout& layout,
             const table::VocabMap& map, PrefetchOptions options,
             const Clock& clock = Clock::Real());

  // Starts fetching; returns at once. RESOURCE_EXHAUSTED when two fetches are under way already.
  Status Submit(const StepTokens& step);
  // The fetch of exactly these tokens; asks for it now when nobody did (counted as late). Valid
  // until Done.
  Result<Fetch*> Take(const StepTokens& step);
  void Done(Fetch* fetch);
  // Gives up whatever is under way.
  void Cancel();
  // Appends tokens to an n-gram state: what `before` of the following step is.
  Status Advance(std::span<const int32_t> tokens, table::NgramState& state) const;

  const std::vector<LayerWait>& waits() const { return waits_; }
  int64_t late_fetches() const { return late_fetches_; }

 private:
  friend class Fetch;
  Result<Fetch*> Start(const StepTokens& step);
  Status Hash(const StepTokens& step, Fetch& fetch) const;
  Status Verify(const Fetch& fetch, uint32_t layer_index) const;

  client::RowSource* source_;
  const table::TableLayout& layout_;
  const table::VocabMap& map_;
  PrefetchOptions options_;
  const Clock& clock_;
  std::array<Fetch, 2> fetches_;
  std::vector<LayerWait> waits_;
  int64_t late_fetches_ = 0;
};

}  // namespace engram::compute
