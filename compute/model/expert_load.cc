#include "compute/model/expert_load.h"

#include <algorithm>

namespace engram::compute {

ExpertLoad::ExpertLoad(const ModelConfig& config) {
  const int64_t experts = config.route.experts;
  if (experts == 0) return;
  const int64_t layers_max = std::max<int64_t>(1, kExpertsMax / experts);
  const int64_t with_experts = config.layer_count - config.dense_layers;
  stride_ = std::max<int64_t>(1, (with_experts + layers_max - 1) / layers_max);
  for (int64_t id = config.dense_layers; id < config.layer_count; id += stride_) {
    layers_.push_back({id, std::vector<int64_t>(static_cast<size_t>(experts))});
  }
}

std::span<int64_t> ExpertLoad::Of(int64_t layer_id) {
  const int64_t from_first = layers_.empty() ? -1 : layer_id - layers_.front().layer_id;
  if (from_first < 0 || from_first % stride_ != 0) return {};
  return layers_[static_cast<size_t>(from_first / stride_)].tokens;
}

}  // namespace engram::compute
