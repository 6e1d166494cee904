#include "compute/model/sequence_state.h"

namespace engram::compute {

SequenceState::SequenceState(const PageShape& shape)
    : conv_history(static_cast<size_t>(shape.engram_layers),
                   std::vector<float>(static_cast<size_t>(shape.history_floats))) {}

int64_t TokenCount(std::span<const Segment> segments) {
  int64_t count = 0;
  for (const Segment& segment : segments) count += segment.count();
  return count;
}

}  // namespace engram::compute
