// Asks for Engram rows as soon as tokens are known and hands them over when a layer needs them. A
// fetch holds the rows of several sequences' tokens (one lookup: duplicates are removed across
// them); a step takes its rows from as many fetches as there are: the prompt chunks asked for while
// the step before computed, the decodes asked for right after sampling. Rows are keyed by
// (sequence, positions, tokens, layer) and checked on consumption; what was not asked for is asked
// for then, and counted. Not thread-safe: the engine's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/client/row_source.h"
#include "common/obs/buckets.h"
#include "common/table/ngram.h"
#include "common/table/vocab_map.h"
#include "compute/memory/layer_rows.h"

namespace engram::compute {

// Consecutive tokens of one sequence, and what preceded them.
struct TokenRun {
  uint64_t sequence = 0;
  int64_t first_position = 0;
  std::span<const int32_t> tokens;
  table::NgramState before;
};

struct PrefetchOptions {
  int64_t deadline_ms = 2000;  // of one fetch, from Submit
  bool verify = false;         // hash again on consumption and compare
};

struct LayerWait {
  int layer_id = 0;
  int64_t exposed_ns = 0;  // time the engine stood still for this layer's rows
  int64_t waits = 0;       // steps that took rows of it
};

struct Fetch;  // one lookup under way and its buffers

// The rows of one step. Holds its fetches until destroyed; at most one at a time.
class StepRows : public LayerRows {
 public:
  StepRows(StepRows&&) = default;
  // Waits for one layer's rows of every run. When a lookup of several runs fails, each is asked for
  // again by itself (unless the time is up), so that what does not come is the failure of the run
  // that needs it, and no other run's.
  void Wait(uint32_t layer_index) override;
  // [tokens, rows_per_position, row_bytes] of run i, as given to Take; empty when they did not
  // come. After Wait for the layer.
  std::span<const std::byte> Rows(size_t run, uint32_t layer_index) const override;
  // Why rows of run i did not come, naming layer and positions; ok so far otherwise.
  const Status& status(size_t run) const { return parts_[run].status; }

 private:
  friend class Prefetcher;
  struct Part {
    Fetch* fetch = nullptr;  // null: no rows are needed, or none could be asked for
    size_t first_token = 0;  // within the fetch
    TokenRun run;            // as the consumer has it; its tokens are the caller's
    Status status;
  };
  explicit StepRows(class Prefetcher* owner) : owner_(owner) {}
  void WaitForFetches(uint32_t layer_index);
  void AskAgainAlone(uint32_t layer_index);
  class Prefetcher* owner_;
  std::vector<Part> parts_;
};

class Prefetcher {
 public:
  static constexpr size_t kFetchesMax = 64;  // a few a step; one a run when a lookup failed

  // `source` may be null for a model without Engram layers. All references must outlive the
  // prefetcher.
  Prefetcher(client::RowSource* source, const table::TableLayout& layout,
             const table::VocabMap& map, PrefetchOptions options,
             const Clock& clock = Clock::Real());
  ~Prefetcher();

  // Starts one fetch of all these runs; returns at once. A failure is not remembered: Take tries
  // again. RESOURCE_EXHAUSTED when kFetchesMax are under way.
  Status Submit(std::span<const TokenRun> runs, client::Priority priority);
  // The rows of exactly these runs; those not asked for yet are asked for now, in one late fetch.
  // The runs' tokens must stay until EndStep.
  StepRows Take(std::span<const TokenRun> runs);
  // Ends a step: its fetches' buffers are free again. A fetch that the step after the one it was
  // submitted in did not use is given up.
  void EndStep(StepRows rows);
  // Gives up whatever is under way.
  void Cancel();
  // Appends tokens to an n-gram state: what `before` of the following run is.
  Status Advance(std::span<const int32_t> tokens, table::NgramState& state) const;

  const std::vector<LayerWait>& waits() const { return waits_; }
  int64_t exposed_ns() const;                           // of all layers
  client::SourceStats source_stats() const;             // any thread
  int64_t late_tokens() const { return late_tokens_; }  // not asked for before their step
  // Of fetches that were used: from asking until the last row was there.
  const obs::Buckets& fetch_seconds() const { return fetch_seconds_; }

 private:
  friend class StepRows;
  Result<Fetch*> Start(std::span<const TokenRun> runs, client::Priority priority);
  Status Hash(std::span<const TokenRun> runs, Fetch& fetch) const;
  Status Verify(const StepRows::Part& part, uint32_t layer_index) const;
  bool Find(const TokenRun& run, StepRows::Part& part) const;

  client::RowSource* source_;
  const table::TableLayout& layout_;
  const table::VocabMap& map_;
  PrefetchOptions options_;
  const Clock& clock_;
  std::vector<std::unique_ptr<Fetch>> fetches_;  // reused
  std::vector<LayerWait> waits_;
  int64_t late_tokens_ = 0;
  obs::Buckets fetch_seconds_;
};

}  // namespace engram::compute
