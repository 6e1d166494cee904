// What rank 0 of an engine tells the others: which tokens a step computes, the Engram rows of a
// layer, hidden states whose logits are wanted, the end. Same program, same machine type: plain
// 64-bit numbers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "compute/memory/layer_rows.h"
#include "compute/model/sequence_state.h"
#include "compute/parallel/collective.h"

namespace engram::compute {

enum class RankCommand : int64_t { kStep = 1, kLogits = 2, kEnd = 3 };

struct RankStep {
  struct Run {
    uint64_t sequence = 0;
    int64_t first = 0;   // position
    bool fresh = false;  // its state begins anew, behind the page before `first`
    std::vector<int32_t> pages;
    std::vector<int32_t> tokens;
  };
  std::vector<uint64_t> alive;  // states of other sequences may be forgotten
  std::vector<Run> runs;
};

std::vector<std::byte> EncodeStep(const RankStep& step);
std::vector<std::byte> EncodeLogits(int64_t floats);  // the hidden states follow by themselves
std::vector<std::byte> EncodeEnd();

struct RankMessage {
  RankCommand command = RankCommand::kEnd;
  RankStep step;
  int64_t floats = 0;
};
// INTERNAL: not one of the above.
Result<RankMessage> DecodeRankMessage(std::span<const std::byte> bytes);

// The rows of one layer for all runs of a step.
std::vector<std::byte> EncodeRows(const LayerRows& rows, size_t runs, uint32_t layer_index);
// Views into `bytes`, one a run. INTERNAL: of another number of runs, or cut off.
Result<std::vector<std::span<const std::byte>>> DecodeRows(std::span<const std::byte> bytes,
                                                           size_t runs);

}  // namespace engram::compute
