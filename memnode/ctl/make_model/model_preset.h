// The sizes of the seeded models that make-model writes, and their config.json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/engram_config.h"

namespace engram::ctl {

// DeepSeek-V3's sizes by its own names, hyper-connections and Engram.
struct ModelPreset {
  std::string name;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t layer_count = 0;
  int64_t heads = 0;
  int64_t q_lora_rank = 0;  // 0 = one q_proj
  int64_t kv_lora_rank = 0;
  int64_t rope_head_dim = 0;
  int64_t nope_head_dim = 0;
  int64_t value_head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t dense_layers = 1;
  int64_t routed_experts = 0;
  int64_t shared_experts = 1;
  int64_t experts_per_token = 0;
  int64_t groups = 1;
  int64_t groups_kept = 1;
  double routed_scaling = 1.0;
  int64_t streams = 4;  // hc_mult
  int64_t positions_max = 4096;
  uint64_t shard_bytes_max = 0;  // of a backbone shard
  table::EngramConfig engram;
};

// "tiny", "small", "dense" or "bench"; `table_gib` sizes bench's tables and is 0 otherwise.
// INVALID_ARGUMENT names what does not fit.
Result<ModelPreset> FindPreset(std::string_view name, table::Variant variant, double table_gib);

// The config.json of the model, with the compressed vocabulary size in preset.engram.
json::object ModelConfigJson(const ModelPreset& preset);

}  // namespace engram::ctl
