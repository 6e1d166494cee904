// How many tokens each expert was given since the start. One thread's own; copies are shown.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/model/model_config.h"

namespace engram::compute {

class ExpertLoad {
 public:
  // Of models with more experts than this, all layers together, only every n-th layer with experts
  // is counted, the first one among them: n is the smallest that leaves no more.
  static constexpr int64_t kExpertsMax = 2048;

  struct Layer {
    int64_t layer_id = 0;
    std::vector<int64_t> tokens;  // [experts]; a token counts for each expert it chose
  };

  ExpertLoad() = default;  // of no layer
  explicit ExpertLoad(const ModelConfig& config);

  // The counts of a layer, to be added to; empty where it is not counted.
  std::span<int64_t> Of(int64_t layer_id);
  const std::vector<Layer>& layers() const { return layers_; }  // ascending

 private:
  int64_t stride_ = 1;  // of layers counted
  std::vector<Layer> layers_;
};

}  // namespace engram::compute
