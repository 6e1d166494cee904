#include "compute/model/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "compute/model/config_reader.h"
#include "compute/model/folder_files.h"

namespace engram::compute {
namespace {

constexpr int64_t kSizeMax = 1 << 24;  // of any dimension: beyond it a config is a mistake
constexpr int64_t kLayersMax = 1024;

// Keys that cannot change a forward pass.
bool IsHarmless(std::string_view key) {
  static constexpr std::array<std::string_view, 15> kKeys = {
      "architectures", "auto_map",        "aux_loss_alpha",
      "bos_token_id",  "ep_size",         "initializer_range",
      "pad_token_id",  "pretraining_tp",  "router_aux_loss_coef",
      "seq_aux",       "tokenizer_class", "transformers_version",
      "use_cache",     "_name_or_path",   "output_router_logits"};
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end() || key.starts_with("engram_");
}

// Keys that Hugging Face's configs spell in two ways.
void NameAliases(ConfigReader& reader) {
  reader.Alias("n_routed_experts", "num_local_experts");
  reader.Alias("n_routed_experts", "num_experts");
  reader.Alias("n_shared_experts", "num_shared_experts");
  reader.Alias("num_experts_per_tok", "num_experts_per_token");
  reader.Alias("hidden_act", "hidden_activation");
  reader.Alias("rope_scaling", "rope_parameters");
  reader.Alias("torch_dtype", "dtype");
  reader.Find("torch_dtype");  // the tensors say it themselves
}

void ReadAttention(ConfigReader& reader, ModelConfig& config) {
  kernels::MlaShape& shape = config.attention;
  shape.heads = reader.Int("num_attention_heads", 1, 4096);
  shape.nope = reader.Int("qk_nope_head_dim", 1, kSizeMax);
  shape.rope = reader.Int("qk_rope_head_dim", 2, kSizeMax);
  shape.value = reader.Int("v_head_dim", 1, kSizeMax);
  shape.latent = reader.Int("kv_lora_rank", 1, kSizeMax);
  config.q_lora_rank = reader.Int("q_lora_rank", 1, kSizeMax, 0);
  if (shape.rope % 2 != 0) reader.Fail("qk_rope_head_dim", fmt::format("{} is odd", shape.rope));
  reader.Require("num_key_value_heads", shape.heads, "MLA has one key per head");
  reader.Require("qk_head_dim", shape.nope + shape.rope, "nope + rope");
  reader.Require("head_dim", shape.rope, "in DeepSeek-V3's configs, the rope part");
  reader.Require("attention_bias", false, "no projection has a bias");
  reader.Double("attention_dropout", 0.0, 1.0, 0.0);  // training only
  reader.Require("rope_interleave", true, "pairs are interleaved");
}

void ReadYarn(ConfigReader& reader, ModelConfig& config) {
  kernels::YarnScaling yarn;
  yarn.factor = reader.Double("factor", 1.0, 1e6);
  yarn.original_positions = reader.Double("original_max_position_embeddings", 1.0, 1e9, 4096.0);
  yarn.beta_fast = reader.Double("beta_fast", 1e-3, 1e6, 32.0);
  yarn.beta_slow = reader.Double("beta_slow", 1e-3, 1e6, 1.0);
  yarn.mscale = reader.Double("mscale", 0.0, 1e3, 1.0);
  yarn.mscale_all_dim = reader.Double("mscale_all_dim", 0.0, 1e3, 0.0);
  config.yarn = yarn;
  config.rope_magnitude = static_cast<float>(kernels::YarnMscale(yarn.factor, yarn.mscale) /
                                             kernels::YarnMscale(yarn.factor, yarn.mscale_all_dim));
}

// rope_scaling: no type and "default" change nothing. rope_theta may stand in it, as newer configs
// have it.
void ReadRopeScaling(const json::object& object, ConfigReader& outer, ModelConfig& config) {
  ConfigReader reader(object, "rope_scaling");
  reader.Alias("rope_type", "type");
  const json::value* type = reader.Find("rope_type");
  if (type != nullptr && *type == "yarn") {
    ReadYarn(reader, config);
  } else if (type != nullptr && *type != "default") {
    reader.Fail("rope_type", fmt::format("{} is not supported, only \"yarn\" and \"default\"",
                                         json::serialize(*type)));
  }
  if (const json::value* theta = outer.Find("rope_theta")) {
    reader.Require("rope_theta", *theta, "what the config says outside of it");
  } else {
    config.rope_theta = reader.Double("rope_theta", 1.0, 1e12, 10000.0);
  }
  if (const auto unread = reader.FirstUnread([](std::string_view) { return false; })) {
    reader.Fail(*unread, fmt::format("{} is not understood", json::serialize(object.at(*unread))));
  }
  if (!reader.status().ok()) outer.Fail("rope_scaling", reader.status().message());
}

void ReadRope(ConfigReader& reader, ModelConfig& config) {
  config.rope_theta = reader.Double("rope_theta", 1.0, 1e12, 10000.0);
  if (const json::value* scaling = reader.Find("rope_scaling")) {
    if (!scaling->is_object()) return reader.Fail("rope_scaling", "an object or null is expected");
    ReadRopeScaling(scaling->get_object(), reader, config);
  }
  double scale =
      1.0 / std::sqrt(static_cast<double>(config.attention.nope + config.attention.rope));
  if (config.yarn && config.yarn->mscale_all_dim != 0) {
    const double mscale = kernels::YarnMscale(config.yarn->factor, config.yarn->mscale_all_dim);
    scale *= mscale * mscale;
  }
  config.attention.scale = static_cast<float>(scale);
}

void ReadFeedForward(ConfigReader& reader, ModelConfig& config) {
  reader.Require("hidden_act", "silu", "SwiGLU");
  config.intermediate_size = reader.Int("intermediate_size", 1, kSizeMax);
  kernels::RouteRule& route = config.route;
  route.experts = static_cast<int>(reader.Int("n_routed_experts", 0, 65536, 0));
  config.dense_layers = reader.Int("first_k_dense_replace", 0, kLayersMax, 0);
  config.shared_experts = reader.Int("n_shared_experts", 0, 1024, 0);
  const bool moe = route.experts > 0;
  config.moe_intermediate_size =
      reader.Int("moe_intermediate_size", 1, kSizeMax, moe ? std::optional<int64_t>() : 1);
  route.experts_per_token = static_cast<int>(
      reader.Int("num_experts_per_tok", 1, 4096, moe ? std::optional<int64_t>() : 1));
  route.groups = static_cast<int>(reader.Int("n_group", 1, 4096, 1));
  route.groups_kept = static_cast<int>(reader.Int("topk_group", 1, 4096, 1));
  route.normalize = reader.Bool("norm_topk_prob", true);
  route.scaling = static_cast<float>(reader.Double("routed_scaling_factor", -1e6, 1e6, 1.0));
  reader.Require("scoring_func", "sigmoid", "DeepSeek-V3's router");
  reader.Require("topk_method", "noaux_tc", "DeepSeek-V3's router");
  reader.Require("moe_layer_freq", 1, "every layer after the dense ones");
  if (!moe) return;
  const int in_group = route.experts / route.groups;
  if (route.experts % route.groups != 0 || (route.groups > 1 && in_group < 2)) {
    reader.Fail("n_group", fmt::format("{} groups do not divide {} experts into two or more each",
                                       route.groups, route.experts));
  } else if (route.groups_kept > route.groups ||
             route.experts_per_token > in_group * route.groups_kept) {
    reader.Fail("num_experts_per_tok",
                fmt::format("{} of {} groups of {} experts", route.experts_per_token,
                            route.groups_kept, in_group));
  }
}

Status CheckEngram(const ModelConfig& config, const std::string& what) {
  for (const int layer : config.engram.layer_ids) {
    if (layer < 0 || layer >= config.layer_count) {
      return InvalidArgument(
          fmt::format("{}: key 'engram_layer_ids': layer {} of a model of {} layers", what, layer,
                      config.layer_count));
    }
  }
  if (config.engram.layer_ids.empty() || config.engram.variant != table::Variant::kPaper)
    return OkStatus();
  if (config.engram.conv_kernel < 1 || config.engram.conv_kernel > 64) {
    return InvalidArgument(fmt::format("{}: key 'engram_conv_kernel': {} is not 1..64", what,
                                       config.engram.conv_kernel));
  }
  return OkStatus();
}

}  // namespace

std::optional<uint32_t> ModelConfig::EngramIndex(int64_t layer) const {
  const auto at =
      std::find(engram.layer_ids.begin(), engram.layer_ids.end(), static_cast<int>(layer));
  if (at == engram.layer_ids.end()) return std::nullopt;
  return static_cast<uint32_t>(at - engram.layer_ids.begin());
}

Result<ModelConfig> ParseModelConfig(const json::object& object, const std::string& what) {
  ModelConfig config;
  ConfigReader reader(object, what);
  NameAliases(reader);
  if (reader.Find("model_type") == nullptr)
    reader.Fail("model_type", "missing; engram_v3 is expected");
  reader.Require("model_type", "engram_v3", "this engine's architecture");
  config.vocab_size = reader.Int("vocab_size", 1, kSizeMax);
  config.hidden_size = reader.Int("hidden_size", 1, kSizeMax);
  config.layer_count = reader.Int("num_hidden_layers", 1, kLayersMax);
  config.next_token_layers = reader.Int("num_nextn_predict_layers", 0, kLayersMax, 0);
  config.positions_max = reader.Int("max_position_embeddings", 1, 1 << 26, 4096);
  config.norm_eps = static_cast<float>(reader.Double("rms_norm_eps", 0.0, 1.0, 1e-6));
  config.tie_embeddings = reader.Bool("tie_word_embeddings", false);
  config.eos_ids = reader.TokenIds("eos_token_id", config.vocab_size);
  ReadAttention(reader, config);
  ReadRope(reader, config);
  ReadFeedForward(reader, config);
  config.streams = reader.Int("hc_mult", 1, kernels::kHyperStreamsMax, 1);
  config.sinkhorn_rounds = static_cast<int>(reader.Int("hc_sinkhorn_iters", 1, 1000, 20));
  if (const auto unread = reader.FirstUnread(IsHarmless)) {
    reader.Fail(*unread, fmt::format("{} is not understood; ignoring it could change the numbers",
                                     json::serialize(object.at(*unread))));
  }
  RETURN_IF_ERROR(reader.status());
  Result<table::EngramConfig> engram = table::ParseEngramConfig(object);
  if (!engram.ok()) return engram.status().WithContext(what);
  config.engram = std::move(*engram);
  RETURN_IF_ERROR(CheckEngram(config, what));
  return config;
}

Result<ModelConfig> LoadModelConfig(const std::string& model_directory) {
  const std::string path = model_directory + "/config.json";
  ASSIGN_OR_RETURN(const json::value value, io::ParseJsonFile(path));
  if (!value.is_object()) return InvalidArgument(path + ": a JSON object is expected");
  ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(value.get_object(), path));
  RETURN_IF_ERROR(ReadEosIds(model_directory, config));
  return config;
}

}  // namespace engram::compute
