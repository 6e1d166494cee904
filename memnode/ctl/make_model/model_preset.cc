#include "memnode/ctl/make_model/model_preset.h"

#include <fmt/format.h>

#include <cmath>

#include "common/table/layout.h"

namespace engram::ctl {
namespace {

using table::Variant;

constexpr double kTableGibMax = 1024;
constexpr double kSmallTableGib = 0.5;
constexpr double kBenchTableGib = 2;

// The paper's tables have orders 2 and 3, V4.1's also 4.
table::EngramConfig Engram(Variant variant, int heads, int head_dim, std::vector<int> layer_ids) {
  table::EngramConfig engram;
  engram.layer_ids = std::move(layer_ids);
  engram.max_ngram_size = variant == Variant::kPaper ? 3 : 4;
  engram.heads_per_order = heads;
  engram.head_dim = head_dim;
  engram.variant = variant;
  return engram;
}

void RequestVocabulary(table::EngramConfig& engram, uint64_t per_order) {
  engram.requested_vocab_sizes.assign(static_cast<size_t>(engram.order_count()), per_order);
}

uint64_t VocabularyForGib(const table::EngramConfig& engram, double gib) {
  const table::RowFormat format{engram.variant == Variant::kPaper ? table::RowEncoding::kBf16
                                                                  : table::RowEncoding::kFp8Scaled,
                                engram.head_dim};
  const double columns = static_cast<double>(engram.rows_per_position()) *
                         static_cast<double>(engram.layer_ids.size());
  return static_cast<uint64_t>(gib * 0x1p30 / format.row_bytes() / columns);
}

ModelPreset Tiny(Variant variant) {
  ModelPreset preset;
  preset.name = "tiny";
  preset.vocab_size = 768;
  preset.hidden_size = 64;
  preset.layer_count = 4;
  preset.heads = 4;
  preset.kv_lora_rank = 32;
  preset.rope_head_dim = 16;
  preset.nope_head_dim = 16;
  preset.value_head_dim = 16;
  preset.intermediate_size = 128;
  preset.moe_intermediate_size = 32;
  preset.routed_experts = 8;
  preset.experts_per_token = 2;
  preset.groups = 2;
  preset.groups_kept = 1;
  preset.routed_scaling = 1.5;
  preset.shard_bytes_max = 512 << 10;
  preset.engram = Engram(variant, 4, 32, {1, 2});
  RequestVocabulary(preset.engram, 2000);
  return preset;
}

ModelPreset Small(Variant variant, double table_gib) {
  ModelPreset preset;
  preset.name = "small";
  preset.vocab_size = 3072;
  preset.hidden_size = 512;
  preset.layer_count = 10;
  preset.heads = 8;
  preset.q_lora_rank = 256;
  preset.kv_lora_rank = 128;
  preset.rope_head_dim = 32;
  preset.nope_head_dim = 64;
  preset.value_head_dim = 64;
  preset.intermediate_size = 1536;
  preset.moe_intermediate_size = 320;
  preset.routed_experts = 16;
  preset.experts_per_token = 4;
  preset.groups = 4;
  preset.groups_kept = 2;
  preset.routed_scaling = 1.5;
  preset.positions_max = 16384;
  preset.shard_bytes_max = 64 << 20;
  preset.engram = Engram(variant, 8, 64, {1, 5});
  RequestVocabulary(preset.engram, VocabularyForGib(preset.engram, table_gib));
  return preset;
}

// As small, without experts: every token reads all weights, so that a batch shares them.
ModelPreset Dense(Variant variant) {
  ModelPreset preset = Small(variant, kSmallTableGib);
  preset.name = "dense";
  preset.dense_layers = preset.layer_count;
  preset.intermediate_size = 4096;
  return preset;
}

}  // namespace

Result<ModelPreset> FindPreset(std::string_view name, Variant variant, double table_gib) {
  if (name != "tiny" && name != "small" && name != "dense" && name != "bench") {
    return InvalidArgument(
        fmt::format("unknown preset \"{}\"; there are tiny, small, dense and bench", name));
  }
  if (table_gib != 0 && name != "bench") {
    return InvalidArgument(
        fmt::format("--table-gib sizes the tables of preset bench; {} has its own", name));
  }
  if (!std::isfinite(table_gib) || table_gib < 0 || table_gib > kTableGibMax) {
    return InvalidArgument(
        fmt::format("--table-gib {} is not between 0 and {}", table_gib, kTableGibMax));
  }
  if (name == "tiny") return Tiny(variant);
  if (name == "small") return Small(variant, kSmallTableGib);
  if (name == "dense") return Dense(variant);
  ModelPreset preset = Small(variant, table_gib == 0 ? kBenchTableGib : table_gib);
  preset.name = "bench";
  if (preset.engram.requested_vocab_sizes[0] < 2) {
    return InvalidArgument(fmt::format("--table-gib {} leaves no rows", table_gib));
  }
  return preset;
}

json::object ModelConfigJson(const ModelPreset& preset) {
  const table::EngramConfig& engram = preset.engram;
  const std::string_view variant = table::VariantName(engram.variant);
  json::object config{
      {"architectures", json::array{"EngramV3ForCausalLM"}},
      {"model_type", "engram_v3"},
      {"torch_dtype", "bfloat16"},
      {"vocab_size", preset.vocab_size},
      {"hidden_size", preset.hidden_size},
      {"intermediate_size", preset.intermediate_size},
      {"moe_intermediate_size", preset.moe_intermediate_size},
      {"num_hidden_layers", preset.layer_count},
      {"num_attention_heads", preset.heads},
      {"num_key_value_heads", preset.heads},
      {"kv_lora_rank", preset.kv_lora_rank},
      {"q_lora_rank", preset.q_lora_rank == 0 ? json::value() : json::value(preset.q_lora_rank)},
      {"qk_rope_head_dim", preset.rope_head_dim},
      {"qk_nope_head_dim", preset.nope_head_dim},
      {"v_head_dim", preset.value_head_dim},
      {"attention_bias", false},
      {"hidden_act", "silu"},
      {"first_k_dense_replace", preset.dense_layers},
      {"moe_layer_freq", 1},
      {"n_routed_experts", preset.routed_experts},
      {"n_shared_experts", preset.shared_experts},
      {"num_experts_per_tok", preset.experts_per_token},
      {"n_group", preset.groups},
      {"topk_group", preset.groups_kept},
      {"topk_method", "noaux_tc"},
      {"scoring_func", "sigmoid"},
      {"norm_topk_prob", true},
      {"routed_scaling_factor", preset.routed_scaling},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000.0},
      {"rope_scaling", nullptr},
      {"max_position_embeddings", preset.positions_max},
      {"tie_word_embeddings", false},
      {"bos_token_id", 0},
      {"eos_token_id", 1},
      {"pad_token_id", engram.pad_id},
      {"hc_mult", preset.streams},
      {"hc_sinkhorn_iters", 20},
      {"engram_variant", json::string(variant.data(), variant.size())},
      {"engram_layer_ids", json::array(engram.layer_ids.begin(), engram.layer_ids.end())},
      {"engram_max_ngram_size", engram.max_ngram_size},
      {"engram_n_heads", engram.heads_per_order},
      {"engram_head_dim", engram.head_dim},
      {"engram_vocab_size", engram.requested_vocab_sizes[0]},
      {"engram_pad_token_id", engram.pad_id},
      {"engram_compressed_vocab_size", engram.compressed_vocab_size},
      {"engram_seed", engram.seed}};
  if (engram.variant == Variant::kPaper) config["engram_conv_kernel"] = engram.conv_kernel;
  if (engram.variant == Variant::kV41) config["engram_norm_eps"] = engram.norm_eps;
  return config;
}

}  // namespace engram::ctl
