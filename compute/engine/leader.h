// Rank 0's side of an engine of several ranks: says what is computed before it computes its own
// part. With one rank nothing else here does anything. The engine's thread.
#pragma once

#include <span>
#include <vector>

#include "compute/engine/rank_messages.h"
#include "compute/memory/layer_rows.h"
#include "compute/model/sequence_state.h"
#include "compute/parallel/collective.h"

namespace engram::compute {

class RankLeader {
 public:
  explicit RankLeader(parallel::Collective& ranks) : ranks_(ranks) {}

  // Before Transformer::Forward, where there are several ranks. segments[i] belongs to
  // sequences[i].
  void StartStep(std::vector<uint64_t> alive, std::span<const uint64_t> sequences,
                 std::span<const Segment> segments);
  // Before Transformer::Logits.
  void StartLogits(std::span<const float> hidden);
  // The others' Follow returns.
  void End();
  // The first failure of what the ranks do together; ok with one rank.
  Status status() const { return ranks_.status(); }
  parallel::Collective& ranks() { return ranks_; }

 private:
  parallel::Collective& ranks_;
};

// The rows of a step on their way to all ranks: a layer's are passed on once they are there.
class SharedRows : public LayerRows {
 public:
  SharedRows(LayerRows& inner, size_t runs, parallel::Collective& ranks)
      : inner_(inner), runs_(runs), ranks_(ranks) {}
  void Wait(uint32_t layer_index) override;
  std::span<const std::byte> Rows(size_t run, uint32_t layer_index) const override {
    return inner_.Rows(run, layer_index);
  }

 private:
  LayerRows& inner_;
  const size_t runs_;
  parallel::Collective& ranks_;
};

}  // namespace engram::compute
