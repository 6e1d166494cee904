#include "tests/compute/tiny_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/base/rng.h"

namespace engram::compute {
namespace {

constexpr int64_t kVocab = 97;

class TensorMaker {
 public:
  TensorMaker(uint64_t seed, DType dtype) : rng_(seed), dtype_(dtype) {}
  void set_dtype(DType dtype) { dtype_ = dtype; }

  void Add(const std::string& name, std::vector<uint64_t> shape, double scale, double mean = 0) {
    size_t count = 1;
    for (const uint64_t n : shape) count *= n;
    NamedTensor tensor{name, dtype_, std::move(shape),
                       std::vector<std::byte>(count * SizeOf(dtype_))};
    for (size_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(mean + rng_.NextNormal() * scale);
      if (dtype_ == DType::kF32) {
        std::memcpy(tensor.bytes.data() + 4 * i, &value, 4);
      } else {
        const Bf16 rounded = ToBf16(value);
        std::memcpy(tensor.bytes.data() + 2 * i, &rounded, 2);
      }
    }
    tensors.push_back(std::move(tensor));
  }
  // A linear weight [out, in] whose outputs are of order 1.
  void Linear(const std::string& name, uint64_t out, uint64_t in) {
    Add(name, {out, in}, 1.0 / std::sqrt(static_cast<double>(in)));
  }
  void Norm(const std::string& name, uint64_t width) { Add(name, {width}, 0.1, 1.0); }
  void Bytes(const std::string& name, DType dtype, std::vector<uint64_t> shape, uint64_t low,
             uint64_t span) {
    NamedTensor tensor{name, dtype, shape, std::vector<std::byte>(shape[0] * shape[1])};
    for (std::byte& b : tensor.bytes) b = static_cast<std::byte>(low + rng_.NextBelow(span));
    tensors.push_back(std::move(tensor));
  }

  std::vector<NamedTensor> tensors;

 private:
  Rng rng_;
  DType dtype_;
};

void AddMlp(TensorMaker& make, const std::string& prefix, uint64_t hidden, uint64_t width) {
  make.Linear(prefix + "gate_proj.weight", width, hidden);
  make.Linear(prefix + "up_proj.weight", width, hidden);
  make.Linear(prefix + "down_proj.weight", hidden, width);
}

void AddHyper(TensorMaker& make, const std::string& prefix, uint64_t g, uint64_t d) {
  if (g == 1) return;
  make.Norm(prefix + "norm.weight", g * d);
  make.Linear(prefix + "phi_pre.weight", g, g * d);
  make.Linear(prefix + "phi_post.weight", g, g * d);
  make.Linear(prefix + "phi_res.weight", g * g, g * d);
  for (const char* name : {"alpha_pre", "alpha_post", "alpha_res"})
    make.Add(prefix + name, {1}, 0.1, 0.5);
  make.Add(prefix + "b_pre", {g}, 0.5);
  make.Add(prefix + "b_post", {g}, 0.5);
  make.Add(prefix + "b_res", {g, g}, 0.5);
}

void AddEngram(TensorMaker& make, const std::string& prefix, const TinyOptions& options, uint64_t d,
               uint64_t e) {
  const auto g = static_cast<uint64_t>(options.streams);
  if (options.variant == "v41") {
    if (options.fp8_wkv) {
      make.Bytes(prefix + "wkv.weight", DType::kF8E4m3, {d * (g + 1), e}, 0x20, 0x18);
      make.Bytes(prefix + "wkv.scale", DType::kF8E8m0, {(d * (g + 1) + 31) / 32, (e + 31) / 32},
                 124, 4);
    } else {
      make.Linear(prefix + "wkv.weight", d * (g + 1), e);
    }
    make.Add(prefix + "q_weight", {g, d}, 0.1, 1.0);
    make.Add(prefix + "k_weight", {g, d}, 0.1, 1.0);
    return;
  }
  make.Linear(prefix + "value_proj.weight", d, e);
  make.Add(prefix + "value_proj.bias", {d}, 0.1);
  for (uint64_t s = 0; s < g; ++s) {
    make.Linear(fmt::format("{}key_proj.{}.weight", prefix, s), d, e);
    if (s == 0) make.Add(fmt::format("{}key_proj.{}.bias", prefix, s), {d}, 0.1);
    for (const char* norm : {"key_norm", "query_norm", "conv_norm"}) {
      make.Norm(fmt::format("{}{}.{}.weight", prefix, norm, s), d);
    }
  }
  make.Add(prefix + "conv.weight", {g * d, 1, 4}, 0.5);
}

void AddAttention(TensorMaker& make, const std::string& p, const TinyOptions& options) {
  const uint64_t q_in = options.q_lora ? 24 : 32;
  if (options.q_lora) {
    make.Linear(p + "q_a_proj.weight", 24, 32);
    make.Norm(p + "q_a_layernorm.weight", 24);
  }
  make.Linear(p + (options.q_lora ? "q_b_proj.weight" : "q_proj.weight"), 4 * (8 + 4), q_in);
  make.Linear(p + "kv_a_proj_with_mqa.weight", 20 + 4, 32);
  make.Norm(p + "kv_a_layernorm.weight", 20);
  make.Linear(p + "kv_b_proj.weight", 4 * (8 + 6), 20);
  make.Linear(p + "o_proj.weight", 32, 4 * 6);
}

}  // namespace

json::object TinyConfig(const TinyOptions& options) {
  json::object config = {{"model_type", "engram_v3"},
                         {"vocab_size", kVocab},
                         {"hidden_size", 32},
                         {"num_hidden_layers", 4},
                         {"num_attention_heads", 4},
                         {"num_key_value_heads", 4},
                         {"q_lora_rank", nullptr},
                         {"kv_lora_rank", 20},
                         {"qk_nope_head_dim", 8},
                         {"qk_rope_head_dim", 4},
                         {"v_head_dim", 6},
                         {"intermediate_size", options.intermediate},
                         {"moe_intermediate_size", options.moe_intermediate},
                         {"n_routed_experts", 8},
                         {"n_shared_experts", 1},
                         {"num_experts_per_tok", 3},
                         {"first_k_dense_replace", 1},
                         {"n_group", 2},
                         {"topk_group", 1},
                         {"norm_topk_prob", true},
                         {"routed_scaling_factor", 1.5},
                         {"scoring_func", "sigmoid"},
                         {"topk_method", "noaux_tc"},
                         {"hidden_act", "silu"},
                         {"rms_norm_eps", 1e-6},
                         {"rope_theta", 10000},
                         {"max_position_embeddings", 512},
                         {"tie_word_embeddings", false},
                         {"eos_token_id", 1},
                         {"torch_dtype", "bfloat16"},
                         {"hc_mult", options.streams},
                         {"hc_sinkhorn_iters", 20}};
  if (options.q_lora) config["q_lora_rank"] = 24;
  if (options.yarn) {
    config["rope_scaling"] = json::object{{"type", "yarn"},
                                          {"factor", 4},
                                          {"mscale", 1.0},
                                          {"mscale_all_dim", 0.5},
                                          {"beta_fast", 32},
                                          {"beta_slow", 1},
                                          {"original_max_position_embeddings", 128}};
  }
  if (options.variant.empty()) return config;
  config["engram_layer_ids"] = json::array{1, 2};
  config["engram_variant"] = options.variant;
  config["engram_max_ngram_size"] = 3;
  config["engram_n_heads"] = 2;
  config["engram_head_dim"] = 32;
  config["engram_vocab_size"] = 50;
  config["engram_pad_token_id"] = 2;
  config["engram_seed"] = 0;
  return config;
}

std::vector<NamedTensor> TinyTensors(const TinyOptions& options) {
  TensorMaker make(options.seed, options.dtype);
  const auto dense_width = static_cast<uint64_t>(options.intermediate);
  const auto expert_width = static_cast<uint64_t>(options.moe_intermediate);
  make.Add("model.embed_tokens.weight", {kVocab, 32}, 1.0);
  make.Linear("lm_head.weight", kVocab, 32);
  make.Norm("model.norm.weight", 32);
  for (int i = 0; i < 4; ++i) {
    const std::string p = fmt::format("model.layers.{}.", i);
    make.Norm(p + "input_layernorm.weight", 32);
    make.Norm(p + "post_attention_layernorm.weight", 32);
    AddHyper(make, p + "attn_hc.", static_cast<uint64_t>(options.streams), 32);
    AddHyper(make, p + "mlp_hc.", static_cast<uint64_t>(options.streams), 32);
    AddAttention(make, p + "self_attn.", options);
    if (i == 0) {
      AddMlp(make, p + "mlp.", 32, dense_width);
    } else {
      make.Linear(p + "mlp.gate.weight", 8, 32);
      make.Add(p + "mlp.gate.e_score_correction_bias", {8}, 0.2);
      for (int e = 0; e < 8; ++e) {
        make.set_dtype(options.some_f32_experts && e % 2 == 0 ? DType::kF32 : options.dtype);
        AddMlp(make, fmt::format("{}mlp.experts.{}.", p, e), 32, expert_width);
      }
      make.set_dtype(options.dtype);
      AddMlp(make, p + "mlp.shared_experts.", 32, expert_width);
    }
    if (!options.variant.empty() && (i == 1 || i == 2))
      AddEngram(make, p + "engram.", options, 32, 4 * 32);
  }
  return std::move(make.tensors);
}

std::string WriteModel(const json::object& config, const std::vector<NamedTensor>& tensors) {
  static int count = 0;
  const std::string dir = fmt::format("{}/tiny_model.{}.{}", testing::TempDir(), getpid(), count++);
  std::filesystem::create_directories(dir);
  std::ofstream(dir + "/config.json") << json::serialize(config);
  std::vector<io::SafetensorsWriter::Declaration> declarations;
  for (const NamedTensor& t : tensors) declarations.push_back({t.name, t.dtype, t.shape});
  auto writer = io::SafetensorsWriter::Create(dir + "/model.safetensors", declarations);
  CHECK(writer.ok()) << writer.status().message();
  for (const NamedTensor& t : tensors) CHECK(writer->Append(t.bytes).ok());
  CHECK(writer->Finish().ok());
  std::ofstream map(dir + "/engram_token_map.bin", std::ios::binary);
  for (int32_t id = 0; id < kVocab; ++id) {
    const int32_t compressed = id / 2;
    map.write(reinterpret_cast<const char*>(&compressed), sizeof(compressed));
  }
  return dir;
}

namespace {

class FakeLookup : public client::PendingLookup {
 public:
  FakeLookup(const FakeRowSource& source, Status answer)
      : source_(source), answer_(std::move(answer)) {}
  Status Wait(uint32_t layer_index) override {
    if (source_.on_event) source_.on_event(fmt::format("wait {}", layer_index));
    return answer_;
  }
  bool Ready(uint32_t) const override { return true; }

 private:
  const FakeRowSource& source_;
  Status answer_;
};

}  // namespace

void FakeRowSource::FillRow(const table::RowFormat& format, uint32_t layer_index, uint64_t row,
                            std::span<std::byte> out) {
  Rng rng(Mix64(layer_index, row));
  const auto dim = static_cast<size_t>(format.head_dim);
  if (format.encoding == table::RowEncoding::kBf16) {
    for (size_t i = 0; i < dim; ++i) {
      const Bf16 value = ToBf16(static_cast<float>(rng.NextNormal()));
      std::memcpy(out.data() + 2 * i, &value, 2);
    }
    return;
  }
  for (size_t i = 0; i < dim; ++i)
    out[i] = static_cast<std::byte>(0x30 + rng.NextBelow(16) + 0x80 * rng.NextBelow(2));
  for (size_t i = dim; i < out.size(); ++i) out[i] = static_cast<std::byte>(126 + rng.NextBelow(3));
}

Result<client::Ticket> FakeRowSource::Submit(std::span<const client::LayerLookup> layers,
                                             const client::SubmitOptions&) {
  ++submits;
  if (!layers.empty() && layers[0].rows.size() > refuse_submits_above) return failure;
  const size_t row_bytes = layout_.row_format.row_bytes();
  for (const client::LayerLookup& layer : layers) {
    rows_asked_ += layer.rows.size();
    for (size_t i = 0; i < layer.rows.size(); ++i) {
      CHECK_LT(layer.rows[i], layout_.layers[layer.layer_index].total_rows);
      FillRow(layout_.row_format, layer.layer_index, layer.rows[i] - (spoil ? 1 : 0),
              layer.out.subspan(i * row_bytes, row_bytes));
    }
  }
  if (on_event) on_event(fmt::format("submit {}", layers.empty() ? 0 : layers[0].rows.size()));
  const bool fails = submits >= fail_from_submit ||
                     (!layers.empty() && layers[0].rows.size() > fail_submits_above);
  return client::Ticket(std::make_unique<FakeLookup>(*this, fails ? failure : OkStatus()));
}

TinyEngine::TinyEngine(const TinyOptions& options, const TinyServing& serving) {
  const std::string dir = WriteModel(TinyConfig(options), TinyTensors(options));
  const auto take = [](auto result) {
    CHECK(result.ok()) << result.status().message();
    return std::move(*result);
  };
  config = take(LoadModelConfig(dir));
  checkpoint = std::make_unique<io::Checkpoint>(take(io::Checkpoint::Open(dir)));
  weights = take(LoadWeights(*checkpoint, config));
  if (!options.variant.empty()) {
    map = take(table::VocabMap::Load(dir + "/engram_token_map.bin", kVocab, 0));
    const table::RowEncoding encoding =
        options.variant == "v41" ? table::RowEncoding::kFp8Scaled : table::RowEncoding::kBf16;
    layout = take(
        table::MakeLayout(config.engram, map.compressed_size(), take(map.Compress(2)), encoding));
    source = std::make_unique<FakeRowSource>(layout);
  }
  CHECK(ShardWeights(config, *serving.ranks, weights, serving.whole_below_bytes).ok());
  pool = std::make_unique<kernels::Pool>(serving.threads);
  if (serving.packed) CHECK(PackWeights(*pool, weights).ok());
  if (serving.truncated) std::filesystem::resize_file(dir + "/model.safetensors", 0);
  std::filesystem::remove_all(dir);  // the mapping keeps the bytes
  prefetcher = std::make_unique<Prefetcher>(source.get(), layout, map,
                                            PrefetchOptions{2000, serving.verify});
  const int64_t tokens_max = serving.serving.scheduler.step_tokens;
  CHECK(pool->memory()
            .Reserve(Transformer::WorkspaceBytes(config, tokens_max, serving.threads))
            .ok());
  transformer = std::make_unique<Transformer>(config, weights, layout.row_format, *pool, tokens_max,
                                              *serving.ranks);
  pages = std::make_unique<PagePool>(take(PagePool::Make(
      PageShapeOf(config, serving.page_positions, serving.cache_dtype), serving.pages)));
  if (serving.ranks->rank() > 0) return;
  engine = std::make_unique<ServingEngine>(config, *transformer, *prefetcher, *pool, *pages,
                                           serving.serving, *serving.ranks);
}

namespace {

TinyServing ServingOf(int64_t chunk, int threads) {
  TinyServing serving;
  serving.threads = threads;
  serving.serving.scheduler.prefill_chunk = chunk;
  return serving;
}

}  // namespace

TinyEngine::TinyEngine(const TinyOptions& options, int64_t chunk, int threads)
    : TinyEngine(options, ServingOf(chunk, threads)) {}

Result<std::vector<float>> TinyEngine::Score(std::vector<int32_t> tokens) {
  CompletionRequest request;
  request.prompt = std::move(tokens);
  request.tokens_max = 0;
  request.score_prompt = true;
  ASSIGN_OR_RETURN(Completion completion, Run(std::move(request)));
  return std::move(completion.finish.prompt_logprobs);
}

CompletionRequest RequestOf(std::vector<int32_t> prompt, int64_t count, double temperature,
                            uint64_t seed) {
  CompletionRequest request;
  request.prompt = std::move(prompt);
  request.tokens_max = count;
  request.ignore_eos = true;
  request.sampling.temperature = temperature;
  request.sampling.seed = seed;
  return request;
}

std::vector<int32_t> RandomTokens(uint64_t seed, int64_t count, int64_t vocab_size) {
  Rng rng(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& t : tokens)
    t = static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(vocab_size)));
  return tokens;
}

}  // namespace engram::compute
