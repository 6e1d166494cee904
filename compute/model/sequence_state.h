// Everything the model carries from one step of a sequence to the next, and the tokens of one step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/model/page_pool.h"

namespace engram::compute {

struct SequenceState {
  SequenceState() = default;
  explicit SequenceState(const PageShape& shape);

  int64_t length = 0;  // positions computed so far
  bool fresh = true;   // no step has computed with it yet
  // pages[i] holds positions [i * n, (i + 1) * n). Those of a step's positions must be there before
  // it; a page that is written must be this sequence's alone.
  std::vector<int32_t> pages;
  std::vector<std::vector<float>> conv_history;  // per Engram layer, see kernels::PaperFusion
};

// Consecutive tokens of one sequence, computed in one step: positions state->length onwards. A
// sequence has at most one segment a step.
struct Segment {
  std::span<const int32_t> tokens;
  SequenceState* state = nullptr;

  int64_t count() const { return static_cast<int64_t>(tokens.size()); }
};
int64_t TokenCount(std::span<const Segment> segments);

}  // namespace engram::compute
