#include "compute/model/sequence_state.h"

namespace engram::compute {

SequenceState::SequenceState(const ModelConfig& config, int64_t positions_max)
    : cache(config.layer_count, positions_max, config.attention.latent + config.attention.rope) {
  const table::EngramConfig& engram = config.engram;
  const int64_t lookback =
      engram.variant == table::Variant::kPaper
          ? (engram.conv_kernel - 1) * static_cast<int64_t>(engram.max_ngram_size)
          : 0;
  conv_history.assign(
      engram.layer_ids.size(),
      std::vector<float>(static_cast<size_t>(lookback * config.streams * config.hidden_size)));
}

}  // namespace engram::compute
