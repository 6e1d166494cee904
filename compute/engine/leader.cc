#include "compute/engine/leader.h"

#include <cstring>

namespace engram::compute {

using parallel::Patience;

void RankLeader::StartStep(std::vector<uint64_t> alive, std::span<const uint64_t> sequences,
                           std::span<const Segment> segments) {
  RankStep step;
  step.alive = std::move(alive);
  for (size_t i = 0; i < segments.size(); ++i) {
    const SequenceState& state = *segments[i].state;
    step.runs.push_back({sequences[i],
                         state.length,
                         state.fresh,
                         state.pages,
                         {segments[i].tokens.begin(), segments[i].tokens.end()}});
  }
  std::vector<std::byte> bytes = EncodeStep(step);
  ranks_.Broadcast(bytes, Patience::kBusy);
}

void RankLeader::StartLogits(std::span<const float> hidden) {
  if (ranks_.size() == 1) return;
  std::vector<std::byte> bytes = EncodeLogits(static_cast<int64_t>(hidden.size()));
  ranks_.Broadcast(bytes, Patience::kBusy);
  bytes.resize(hidden.size_bytes());
  std::memcpy(bytes.data(), hidden.data(), hidden.size_bytes());
  ranks_.Broadcast(bytes, Patience::kBusy);
}

void RankLeader::End() {
  if (ranks_.size() == 1) return;
  std::vector<std::byte> bytes = EncodeEnd();
  ranks_.Broadcast(bytes, Patience::kBusy);
}

void SharedRows::Wait(uint32_t layer_index) {
  inner_.Wait(layer_index);
  if (ranks_.size() == 1) return;
  std::vector<std::byte> bytes = EncodeRows(inner_, runs_, layer_index);
  ranks_.Broadcast(bytes, Patience::kBusy);
}

}  // namespace engram::compute
