// config.json of an engram_v3 model as a struct. Strict: a key that is neither understood nor known
// to be harmless is refused, because ignoring it could change the numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/engram_config.h"
#include "kernels/ops.h"

namespace engram::compute {

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t layer_count = 0;
  int64_t next_token_layers = 0;  // behind those, for other engines' drafts: not run
  int64_t positions_max = 0;      // max_position_embeddings
  float norm_eps = 1e-6f;
  bool tie_embeddings = false;
  std::vector<int32_t> eos_ids;

  // attention
  int64_t q_lora_rank = 0;  // 0 = one q_proj
  kernels::MlaShape attention;
  double rope_theta = 10000;
  std::optional<kernels::YarnScaling> yarn;
  float rope_magnitude = 1;  // on cos and sin, from YaRN

  // feed-forward
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_experts = 0;
  int64_t dense_layers = 0;  // first_k_dense_replace
  kernels::RouteRule route;  // experts = 0: every layer is dense

  // residual
  int64_t streams = 1;  // hc_mult
  int sinkhorn_rounds = 20;

  table::EngramConfig engram;

  bool IsDense(int64_t layer) const { return route.experts == 0 || layer < dense_layers; }
  // Index into engram.layer_ids, or nothing.
  std::optional<uint32_t> EngramIndex(int64_t layer) const;
};

// INVALID_ARGUMENT names `what`, the key and the value. The second adds what folder_files.h reads.
Result<ModelConfig> ParseModelConfig(const json::object& object, const std::string& what);
Result<ModelConfig> LoadModelConfig(const std::string& model_directory);

}  // namespace engram::compute
