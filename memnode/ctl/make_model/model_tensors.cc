#include "memnode/ctl/make_model/model_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace engram::ctl {
namespace {

using Kind = TensorRule::Kind;

// Deviations that keep activations near 1 and next tokens neither flat nor fixed.
constexpr float kNormDeviation = 0.1f;
constexpr float kBiasDeviation = 0.05f;
constexpr float kHeadGain = 2.5f;   // logits' deviation: about 3 nats below a flat distribution
constexpr float kTableGain = 2.0f;  // rows have deviation 1/2
constexpr float kHyperAlpha = 0.5f;
constexpr float kResidualDiagonal = 2.0f;  // streams mostly keep to themselves
constexpr float kConvDeviation = 0.3f;

// Collects tensors under a prefix.
class List {
 public:
  explicit List(std::vector<ModelTensor>& tensors) : tensors_(tensors) {}

  void SetPrefix(std::string prefix) { prefix_ = std::move(prefix); }

  void Add(std::string_view name, DType dtype, std::vector<int64_t> shape, TensorRule rule) {
    ModelTensor tensor;
    tensor.declaration.name = prefix_ + std::string(name);
    tensor.declaration.dtype = dtype;
    tensor.declaration.shape.assign(shape.begin(), shape.end());
    tensor.rule = rule;
    tensors_.push_back(std::move(tensor));
  }
  // [out, in], deviation gain / sqrt(in).
  void Linear(std::string_view name, int64_t out, int64_t in, float gain = 1) {
    const float deviation = gain / std::sqrt(static_cast<float>(in));
    Add(name, DType::kBf16, {out, in}, {Kind::kNormal, 0, deviation});
  }
  void Norm(std::string_view name, int64_t width) {
    Add(name, DType::kBf16, {width}, {Kind::kNormal, 1, kNormDeviation});
  }
  void Bias(std::string_view name, int64_t width, DType dtype) {
    Add(name, dtype, {width}, {Kind::kNormal, 0, kBiasDeviation});
  }
  void SwiGlu(const std::string& name, int64_t hidden, int64_t width) {
    Linear(name + ".gate_proj.weight", width, hidden);
    Linear(name + ".up_proj.weight", width, hidden);
    Linear(name + ".down_proj.weight", hidden, width);
  }

 private:
  std::vector<ModelTensor>& tensors_;
  std::string prefix_;
};

void AddAttention(const ModelPreset& p, List& list) {
  const int64_t query_rows = p.heads * (p.nope_head_dim + p.rope_head_dim);
  if (p.q_lora_rank == 0) {
    list.Linear("self_attn.q_proj.weight", query_rows, p.hidden_size);
  } else {
    list.Linear("self_attn.q_a_proj.weight", p.q_lora_rank, p.hidden_size);
    list.Norm("self_attn.q_a_layernorm.weight", p.q_lora_rank);
    list.Linear("self_attn.q_b_proj.weight", query_rows, p.q_lora_rank);
  }
  list.Linear("self_attn.kv_a_proj_with_mqa.weight", p.kv_lora_rank + p.rope_head_dim,
              p.hidden_size);
  list.Norm("self_attn.kv_a_layernorm.weight", p.kv_lora_rank);
  list.Linear("self_attn.kv_b_proj.weight", p.heads * (p.nope_head_dim + p.value_head_dim),
              p.kv_lora_rank);
  list.Linear("self_attn.o_proj.weight", p.hidden_size, p.heads * p.value_head_dim);
}

void AddFeedForward(const ModelPreset& p, bool dense, List& list) {
  if (dense) return list.SwiGlu("mlp", p.hidden_size, p.intermediate_size);
  list.Linear("mlp.gate.weight", p.routed_experts, p.hidden_size);
  list.Bias("mlp.gate.e_score_correction_bias", p.routed_experts, DType::kF32);
  for (int64_t e = 0; e < p.routed_experts; ++e) {
    list.SwiGlu(fmt::format("mlp.experts.{}", e), p.hidden_size, p.moe_intermediate_size);
  }
  if (p.shared_experts > 0) {
    list.SwiGlu("mlp.shared_experts", p.hidden_size, p.shared_experts * p.moe_intermediate_size);
  }
}

void AddHyperConnection(const ModelPreset& p, const std::string& name, List& list) {
  const int64_t streams = p.streams;
  if (streams == 1) return;  // a plain residual has no tensors
  const int64_t width = streams * p.hidden_size;
  list.Norm(name + ".norm.weight", width);
  list.Linear(name + ".phi_pre.weight", streams, width);
  list.Linear(name + ".phi_post.weight", streams, width);
  list.Linear(name + ".phi_res.weight", streams * streams, width);
  for (const char* alpha : {".alpha_pre", ".alpha_post", ".alpha_res"}) {
    list.Add(name + alpha, DType::kF32, {1}, {Kind::kNormal, kHyperAlpha, kBiasDeviation});
  }
  list.Bias(name + ".b_pre", streams, DType::kF32);
  list.Bias(name + ".b_post", streams, DType::kF32);
  list.Add(name + ".b_res", DType::kF32, {streams, streams},
           {Kind::kDiagonal, kResidualDiagonal, kBiasDeviation});
}

void AddEngram(const ModelPreset& p, List& list) {
  const int64_t width = p.engram.embedding_width();
  const int64_t hidden = p.hidden_size;
  if (p.engram.variant == table::Variant::kV41) {
    list.Linear("engram.wkv.weight", hidden * (p.streams + 1), width, kTableGain);
    for (const char* name : {"engram.q_weight", "engram.k_weight"}) {
      list.Add(name, DType::kF32, {p.streams, hidden}, {Kind::kNormal, 1, kNormDeviation});
    }
    return;
  }
  list.Linear("engram.value_proj.weight", hidden, width, kTableGain);
  list.Bias("engram.value_proj.bias", hidden, DType::kBf16);
  for (int64_t g = 0; g < p.streams; ++g) {
    list.Linear(fmt::format("engram.key_proj.{}.weight", g), hidden, width, kTableGain);
    list.Bias(fmt::format("engram.key_proj.{}.bias", g), hidden, DType::kBf16);
    for (const char* norm : {"key_norm", "query_norm", "conv_norm"}) {
      list.Norm(fmt::format("engram.{}.{}.weight", norm, g), hidden);
    }
  }
  list.Add("engram.conv.weight", DType::kBf16, {p.streams * hidden, 1, p.engram.conv_kernel},
           {Kind::kNormal, 0, kConvDeviation});
}

}  // namespace

uint64_t ModelTensor::element_count() const {
  uint64_t count = 1;
  for (const uint64_t size : declaration.shape) count *= size;
  return count;
}

uint64_t ModelTensor::size_bytes() const { return element_count() * SizeOf(declaration.dtype); }

std::vector<ModelTensor> BackboneTensors(const ModelPreset& preset) {
  std::vector<ModelTensor> tensors;
  List list(tensors);
  list.Add("model.embed_tokens.weight", DType::kBf16, {preset.vocab_size, preset.hidden_size},
           {Kind::kNormal, 0, 1});
  for (int64_t layer = 0; layer < preset.layer_count; ++layer) {
    list.SetPrefix(fmt::format("model.layers.{}.", layer));
    const std::vector<int>& engram_layers = preset.engram.layer_ids;
    if (std::count(engram_layers.begin(), engram_layers.end(), layer) > 0) AddEngram(preset, list);
    AddHyperConnection(preset, "attn_hc", list);
    list.Norm("input_layernorm.weight", preset.hidden_size);
    AddAttention(preset, list);
    AddHyperConnection(preset, "mlp_hc", list);
    list.Norm("post_attention_layernorm.weight", preset.hidden_size);
    AddFeedForward(preset, layer < preset.dense_layers, list);
  }
  list.SetPrefix("");
  list.Norm("model.norm.weight", preset.hidden_size);
  list.Linear("lm_head.weight", preset.vocab_size, preset.hidden_size, kHeadGain);
  return tensors;
}

std::vector<ModelTensor> TableTensors(const table::TableLayout& layout,
                                      const table::LayerLayout& layer) {
  std::vector<ModelTensor> tensors;
  List list(tensors);
  list.SetPrefix(fmt::format("model.layers.{}.engram.embed.", layer.layer_id));
  const bool fp8 = layout.row_format.encoding == table::RowEncoding::kFp8Scaled;
  const auto rows = static_cast<int64_t>(layer.total_rows);
  const int64_t head_dim = layout.row_format.head_dim;
  list.Add("weight", fp8 ? DType::kF8E4m3 : DType::kBf16, {rows, head_dim}, {Kind::kRow, 0, 0.5f});
  if (fp8) list.Add("scale", DType::kF8E8m0, {rows, head_dim / 32}, {Kind::kScale, 0, 0});
  return tensors;
}

}  // namespace engram::ctl
