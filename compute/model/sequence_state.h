// Everything the model carries from one step of a sequence to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "compute/model/latent_cache.h"
#include "compute/model/model_config.h"

namespace engram::compute {

struct SequenceState {
  SequenceState(const ModelConfig& config, int64_t positions_max);

  int64_t length = 0;  // positions computed so far
  LatentCache cache;
  std::vector<std::vector<float>> conv_history;  // per Engram layer, see kernels::PaperFusion
};

}  // namespace engram::compute
