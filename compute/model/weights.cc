#include "compute/model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>

#include "common/obs/log.h"

namespace engram::compute {
namespace {

constexpr DType kFloats[] = {DType::kBf16, DType::kF32};
constexpr DType kProjections[] = {DType::kBf16, DType::kF32, DType::kF8E4m3};
constexpr DType kScales[] = {DType::kF8E8m0};

// Takes tensors by name and remembers the first failure, so that the loading below reads as the
// list of names.
class Loader {
 public:
  explicit Loader(const io::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  bool Has(const std::string& name) const { return checkpoint_.Has(name); }

  io::TensorView Take(const std::string& name, std::vector<uint64_t> shape,
                      std::span<const DType> allowed) {
    used_.insert(name);
    Result<io::TensorView> view = checkpoint_.Get(name, shape, allowed);
    if (!view.ok()) {
      if (status_.ok()) status_ = view.status();
      return {};
    }
    mapped_bytes_ += view->bytes.size();
    return *view;
  }

  Matrix Weight(const std::string& name, int64_t rows, int64_t columns) {
    return AsMatrix(Take(name, {Size(rows), Size(columns)}, kFloats), rows, columns);
  }

  std::vector<float> Values(const std::string& name, std::vector<uint64_t> shape) {
    const io::TensorView view = Take(name, std::move(shape), kFloats);
    if (view.info == nullptr) return {};
    const auto count = static_cast<int64_t>(view.info->element_count());
    std::vector<float> values(Size(count));
    kernels::DecodeWeights(AsMatrix(view, 1, count), 0, values);
    return values;
  }

  std::vector<float> Vector(const std::string& name, int64_t count) {
    return Values(name, {Size(count)});
  }

  float Scalar(const std::string& name) {
    const std::vector<float> values = Vector(name, 1);
    return values.empty() ? 0.0f : values[0];
  }

  static Matrix AsMatrix(const io::TensorView& view, int64_t rows, int64_t columns) {
    if (view.info == nullptr) return {};
    return {view.bytes.data(), *view.info->dtype, rows, columns, columns};  // an allowed one
  }
  static uint64_t Size(int64_t n) { return static_cast<uint64_t>(n); }

  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }
  uint64_t mapped_bytes() const { return mapped_bytes_; }

  // A tensor of the model's layers that is not used is a part of them that the config leaves out:
  // an error. Any other is a warning.
  Status CheckUnused(const ModelConfig& config) const {
    std::string first;
    int count = 0;
    for (const auto& [name, info] : checkpoint_.tensors()) {
      if (used_.contains(name) || name.find(".engram.embed.") != std::string::npos) continue;
      if (const int64_t layer = LayerOf(name);
          layer >= 0 && !name.ends_with(kComputedFrequencies)) {
        RETURN_IF_ERROR(CheckLayerIsNotRun(config, name, layer));
      }
      if (count++ == 0) first = name;
    }
    if (count > 0) {
      obs::LogWarn(fmt::format(
          "checkpoint holds tensors this architecture does not use count={} first={} dir={}", count,
          first, checkpoint_.directory()));
    }
    return OkStatus();
  }

 private:
  static constexpr std::string_view kComputedFrequencies = ".rotary_emb.inv_freq";

  // The N of "model.layers.N....", -1 of any other name.
  static int64_t LayerOf(std::string_view name) {
    constexpr std::string_view kLayers = "model.layers.";
    if (!name.starts_with(kLayers)) return -1;
    int64_t layer = -1;
    const char* const end = name.data() + name.size();
    const auto [stopped, error] = std::from_chars(name.data() + kLayers.size(), end, layer);
    return error == std::errc() && stopped != end && *stopped == '.' ? layer : -1;
  }

  // Layers that draft the tokens after next take the last layer's output in by these.
  bool IsDraft(int64_t layer) const {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    return Has(prefix + "eh_proj.weight") || Has(prefix + "enorm.weight");
  }

  Status CheckLayerIsNotRun(const ModelConfig& config, const std::string& name,
                            int64_t layer) const {
    const int64_t layers = config.layer_count + config.next_token_layers;
    if (layer >= config.layer_count && (layer < layers || IsDraft(layer))) return OkStatus();
    const std::string& folder = checkpoint_.directory();
    if (layer >= layers) {
      return InvalidArgument(fmt::format(
          "{} holds {}, but its config.json says num_hidden_layers {} and num_nextn_predict_layers "
          "{}: the model would be run without its last layers",
          folder, name, config.layer_count, config.next_token_layers));
    }
    return InvalidArgument(fmt::format(
        "{} holds {}, but nothing in its config.json asks for it: layer {} would be run without a "
        "part of it; add the key that names that part, or take the tensor out",
        folder, name, layer));
  }

  const io::Checkpoint& checkpoint_;
  std::set<std::string> used_;
  Status status_;
  uint64_t mapped_bytes_ = 0;
};

// The embedding again. A folder that has a head of its own, other than the embedding, contradicts
// its config.
Matrix LoadTiedHead(Loader& load, const io::Checkpoint& checkpoint, const ModelConfig& config,
                    const Matrix& embedding) {
  constexpr const char* kHead = "lm_head.weight";
  if (!load.Has(kHead)) return embedding;
  const Matrix head = load.Weight(kHead, config.vocab_size, config.hidden_size);
  if (head.data == nullptr || embedding.data == nullptr) return embedding;  // the loader knows why
  const size_t bytes =
      static_cast<size_t>(config.vocab_size * config.hidden_size) * SizeOf(head.dtype);
  if (head.dtype != embedding.dtype || std::memcmp(head.data, embedding.data, bytes) != 0) {
    load.Fail(InvalidArgument(fmt::format(
        "{} holds {}, which differs from model.embed_tokens.weight, but its config.json says "
        "tie_word_embeddings true: which of them makes the logits is unclear",
        checkpoint.directory(), kHead)));
  }
  return embedding;
}

// One matrix of the rows of several, in memory of the weights' own: fp32 unless all are bf16.
Matrix Stack(Loader& load, std::initializer_list<Matrix> parts, Weights& weights) {
  Matrix all{nullptr, DType::kBf16, 0, 0, 0, nullptr};
  for (const Matrix& part : parts) {
    if (part.data == nullptr) return {};  // the loader knows why
    if (part.dtype != DType::kBf16) all.dtype = DType::kF32;
    all.rows += part.rows;
    all.columns = all.stride = part.columns;
  }
  const size_t row_bytes = static_cast<size_t>(all.columns) * SizeOf(all.dtype);
  Result<std::span<std::byte>> memory =
      weights.memory.Take(static_cast<size_t>(all.rows) * row_bytes);
  if (!memory.ok()) {
    load.Fail(memory.status());
    return {};
  }
  all.data = memory->data();
  std::vector<float> row(static_cast<size_t>(all.columns));
  std::byte* to = memory->data();
  for (const Matrix& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r, to += row_bytes) {
      if (all.dtype == DType::kF32) kernels::DecodeWeights(part, r, row);
      std::memcpy(to, all.dtype == DType::kF32 ? static_cast<const void*>(row.data()) : part.row(r),
                  row_bytes);
    }
  }
  return all;
}

HyperWeights LoadHyper(Loader& load, const std::string& prefix, const ModelConfig& config,
                       Weights& weights) {
  HyperWeights hyper;
  if (config.streams == 1) return hyper;
  const int64_t g = config.streams;
  const int64_t width = g * config.hidden_size;
  hyper.norm = load.Vector(prefix + "norm.weight", width);
  hyper.phi = Stack(load,
                    {load.Weight(prefix + "phi_pre.weight", g, width),
                     load.Weight(prefix + "phi_post.weight", g, width),
                     load.Weight(prefix + "phi_res.weight", g * g, width)},
                    weights);
  hyper.alpha_pre = load.Scalar(prefix + "alpha_pre");
  hyper.alpha_post = load.Scalar(prefix + "alpha_post");
  hyper.alpha_residual = load.Scalar(prefix + "alpha_res");
  hyper.bias_pre = load.Vector(prefix + "b_pre", g);
  hyper.bias_post = load.Vector(prefix + "b_post", g);
  hyper.bias_residual = load.Values(prefix + "b_res", {Loader::Size(g), Loader::Size(g)});
  return hyper;
}

AttentionWeights LoadAttention(Loader& load, const std::string& prefix, const ModelConfig& config) {
  AttentionWeights attention;
  const kernels::MlaShape& s = config.attention;
  const int64_t q_rows = s.heads * (s.nope + s.rope);
  if (config.q_lora_rank > 0) {
    attention.q_a = load.Weight(prefix + "q_a_proj.weight", config.q_lora_rank, config.hidden_size);
    attention.q_a_norm = load.Vector(prefix + "q_a_layernorm.weight", config.q_lora_rank);
    attention.q = load.Weight(prefix + "q_b_proj.weight", q_rows, config.q_lora_rank);
  } else {
    attention.q = load.Weight(prefix + "q_proj.weight", q_rows, config.hidden_size);
  }
  attention.kv_a =
      load.Weight(prefix + "kv_a_proj_with_mqa.weight", s.latent + s.rope, config.hidden_size);
  attention.kv_a_norm = load.Vector(prefix + "kv_a_layernorm.weight", s.latent);
  attention.kv_b = load.Weight(prefix + "kv_b_proj.weight", s.heads * (s.nope + s.value), s.latent);
  attention.out = load.Weight(prefix + "o_proj.weight", config.hidden_size, s.heads * s.value);
  return attention;
}

MlpWeights LoadMlp(Loader& load, const std::string& prefix, int64_t hidden, int64_t width) {
  return {load.Weight(prefix + "gate_proj.weight", width, hidden),
          load.Weight(prefix + "up_proj.weight", width, hidden),
          load.Weight(prefix + "down_proj.weight", hidden, width)};
}

MoeWeights LoadMoe(Loader& load, const std::string& prefix, const ModelConfig& config) {
  MoeWeights moe;
  moe.gate = load.Weight(prefix + "gate.weight", config.route.experts, config.hidden_size);
  moe.bias = load.Vector(prefix + "gate.e_score_correction_bias", config.route.experts);
  for (int e = 0; e < config.route.experts; ++e) {
    moe.experts.push_back(LoadMlp(load, fmt::format("{}experts.{}.", prefix, e), config.hidden_size,
                                  config.moe_intermediate_size));
  }
  if (config.shared_experts > 0) {
    moe.shared = LoadMlp(load, prefix + "shared_experts.", config.hidden_size,
                         config.shared_experts * config.moe_intermediate_size);
  }
  return moe;
}

std::vector<float> LoadOptionalBias(Loader& load, const std::string& name, int64_t count) {
  return load.Has(name) ? load.Vector(name, count) : std::vector<float>();
}

// Per-stream vectors `prefix{g}.weight` [D], one after the other.
std::vector<float> LoadStreamNorms(Loader& load, const std::string& prefix,
                                   const ModelConfig& config) {
  std::vector<float> all;
  for (int64_t g = 0; g < config.streams; ++g) {
    const std::vector<float> one =
        load.Vector(fmt::format("{}.{}.weight", prefix, g), config.hidden_size);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

EngramWeights LoadPaperEngram(Loader& load, const std::string& prefix, const ModelConfig& config) {
  EngramWeights engram;
  const int64_t d = config.hidden_size;
  const int64_t e = config.engram.embedding_width();
  engram.value = load.Weight(prefix + "value_proj.weight", d, e);
  engram.value_bias = LoadOptionalBias(load, prefix + "value_proj.bias", d);
  for (int64_t g = 0; g < config.streams; ++g) {
    engram.keys.push_back(load.Weight(fmt::format("{}key_proj.{}.weight", prefix, g), d, e));
    engram.key_biases.push_back(
        LoadOptionalBias(load, fmt::format("{}key_proj.{}.bias", prefix, g), d));
  }
  engram.key_norm = LoadStreamNorms(load, prefix + "key_norm", config);
  engram.query_norm = LoadStreamNorms(load, prefix + "query_norm", config);
  engram.conv_norm = LoadStreamNorms(load, prefix + "conv_norm", config);
  engram.conv = load.Values(prefix + "conv.weight", {Loader::Size(config.streams * d), 1,
                                                     Loader::Size(config.engram.conv_kernel)});
  return engram;
}

EngramWeights LoadV41Engram(Loader& load, const std::string& prefix, const ModelConfig& config,
                            Weights& weights) {
  EngramWeights engram;
  const int64_t d = config.hidden_size;
  const int64_t rows = d * (config.streams + 1);
  const int64_t e = config.engram.embedding_width();
  const std::vector<uint64_t> per_stream = {Loader::Size(config.streams), Loader::Size(d)};
  const io::TensorView wkv =
      load.Take(prefix + "wkv.weight", {Loader::Size(rows), Loader::Size(e)}, kProjections);
  engram.key_value = Loader::AsMatrix(wkv, rows, e);
  engram.qk_weight = load.Values(prefix + "q_weight", per_stream);
  const std::vector<float> k_weight = load.Values(prefix + "k_weight", per_stream);
  if (engram.qk_weight.size() == k_weight.size()) {
    for (size_t i = 0; i < k_weight.size(); ++i) engram.qk_weight[i] *= k_weight[i];
  }
  if (wkv.info == nullptr || wkv.info->dtype != DType::kF8E4m3) return engram;

  const io::TensorView scales = load.Take(
      prefix + "wkv.scale", {Loader::Size((rows + 31) / 32), Loader::Size((e + 31) / 32)}, kScales);
  if (scales.info == nullptr) return engram;
  std::vector<Bf16> widened(Loader::Size(rows * e));
  if (!kernels::DequantizeBlocks(wkv.bytes, scales.bytes, rows, e, widened) || e % 32 != 0) {
    load.Fail(
        InvalidArgument(fmt::format("tensor {}wkv.weight: an fp8 value times its scale is not a "
                                    "finite bf16 number, or its width {} is not "
                                    "a multiple of 32",
                                    prefix, e)));
  }
  weights.widened.push_back(std::move(widened));
  engram.key_value = kernels::MatrixOf(weights.widened.back(), rows, e);
  engram.quantize_activations = true;
  return engram;
}

LayerWeights LoadLayer(Loader& load, int64_t index, const ModelConfig& config, Weights& weights) {
  LayerWeights layer;
  const std::string prefix = fmt::format("model.layers.{}.", index);
  layer.input_norm = load.Vector(prefix + "input_layernorm.weight", config.hidden_size);
  layer.post_attention_norm =
      load.Vector(prefix + "post_attention_layernorm.weight", config.hidden_size);
  layer.attention_hyper = LoadHyper(load, prefix + "attn_hc.", config, weights);
  layer.mlp_hyper = LoadHyper(load, prefix + "mlp_hc.", config, weights);
  layer.attention = LoadAttention(load, prefix + "self_attn.", config);
  if (config.IsDense(index)) {
    layer.dense = LoadMlp(load, prefix + "mlp.", config.hidden_size, config.intermediate_size);
  } else {
    layer.moe = LoadMoe(load, prefix + "mlp.", config);
  }
  if (config.EngramIndex(index)) {
    layer.engram = config.engram.variant == table::Variant::kPaper
                       ? LoadPaperEngram(load, prefix + "engram.", config)
                       : LoadV41Engram(load, prefix + "engram.", config, weights);
  }
  return layer;
}

}  // namespace

Result<Weights> LoadWeights(const io::Checkpoint& checkpoint, const ModelConfig& config) {
  Weights weights;
  Loader load(checkpoint);
  weights.embedding =
      load.Weight("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  weights.lm_head = config.tie_embeddings
                        ? LoadTiedHead(load, checkpoint, config, weights.embedding)
                        : load.Weight("lm_head.weight", config.vocab_size, config.hidden_size);
  weights.norm = load.Vector("model.norm.weight", config.hidden_size);
  for (int64_t i = 0; i < config.layer_count && load.status().ok(); ++i) {
    weights.layers.push_back(LoadLayer(load, i, config, weights));
  }
  RETURN_IF_ERROR(load.status());
  RETURN_IF_ERROR(load.CheckUnused(config));
  weights.mapped_bytes = load.mapped_bytes();
  return weights;
}

}  // namespace engram::compute
