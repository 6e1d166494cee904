// The backbone's weights as views of a mapped checkpoint, until PackWeights copies them. Matrices
// stay as stored (bf16 or fp32); small vectors are widened to fp32. The Engram tables
// (engram.embed.*) are not read here: rows come from a RowSource.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/safetensors.h"
#include "compute/model/model_config.h"
#include "compute/parallel/collective.h"
#include "kernels/ops.h"
#include "kernels/packed.h"
#include "kernels/weight_memory.h"

namespace engram::compute {

using kernels::Matrix;

inline int64_t BytesOf(const Matrix& w) {
  return w.data == nullptr ? 0 : w.rows * w.columns * static_cast<int64_t>(SizeOf(w.dtype));
}

struct HyperWeights {       // hc_mult > 1; otherwise empty
  std::vector<float> norm;  // [G * D]
  Matrix phi;  // phi_pre, phi_post and phi_res, one below the other [G * (G + 2), G * D]
  float alpha_pre = 0, alpha_post = 0, alpha_residual = 0;
  std::vector<float> bias_pre, bias_post, bias_residual;
};

struct AttentionWeights {
  std::optional<Matrix> q_a;  // [q_lora_rank, D]
  std::vector<float> q_a_norm;
  Matrix q;                      // q_b_proj or q_proj: [heads * (nope + rope), q_lora_rank or D]
  Matrix kv_a;                   // [latent + rope, D]
  std::vector<float> kv_a_norm;  // [latent]
  Matrix kv_b;                   // [heads * (nope + value), latent]
  Matrix out;                    // [D, heads * value]
};

struct MlpWeights {
  Matrix gate, up, down;                           // [I, D], [I, D], [D, I]
  const kernels::PackedMatrix* gate_up = nullptr;  // both, once packed; of a whole one only
  // No other rank has a part of it.
  bool is_whole() const { return gate.rows == down.columns && down.rows == gate.columns; }
};

struct MoeWeights {
  Matrix gate;              // [experts, D]
  std::vector<float> bias;  // e_score_correction_bias [experts]
  std::vector<MlpWeights> experts;
  std::optional<MlpWeights> shared;
};

struct EngramWeights {
  // paper
  Matrix value;                                        // [D, E]
  std::vector<float> value_bias;                       // [D] or empty
  std::vector<Matrix> keys;                            // G x [D, E]
  std::vector<std::vector<float>> key_biases;          // G x ([D] or empty)
  std::vector<float> key_norm, query_norm, conv_norm;  // [G, D]
  std::vector<float> conv;                             // [G * D, kernel]
  // v41
  Matrix key_value;                   // wkv [D * (G + 1), E]; fp8 is widened to bf16, exactly
  std::vector<float> qk_weight;       // q_weight * k_weight [G, D]
  bool quantize_activations = false;  // wkv was fp8
};

struct LayerWeights {
  std::vector<float> input_norm, post_attention_norm;  // [D]
  HyperWeights attention_hyper, mlp_hyper;
  AttentionWeights attention;
  std::optional<MlpWeights> dense;
  std::optional<MoeWeights> moe;
  std::optional<EngramWeights> engram;
};

struct Weights {
  Matrix embedding;  // [V, D]
  Matrix lm_head;    // [V, D], the embedding itself when tied
  std::vector<float> norm;
  std::vector<LayerWeights> layers;
  std::vector<std::vector<Bf16>> widened;    // what was fp8 in the checkpoint
  kernels::WeightMemory memory;              // see PackWeights
  std::deque<kernels::PackedMatrix> packed;  // in it; referred to by the above
  uint64_t mapped_bytes = 0;                 // of all tensors in use
};

// NOT_FOUND / INVALID_ARGUMENT name the tensor, what was expected and what was found. Tensors that
// are not understood are warned about. `checkpoint` must outlive the weights.
Result<Weights> LoadWeights(const io::Checkpoint& checkpoint, const ModelConfig& config);

// Ranks' rows of a matrix are cut at multiples of this (parallel::SliceOf), so that packing fills
// up the last rank's tile only.
inline constexpr int64_t kShardRows = kernels::cpu::kTileRows;
// Matrices that share a gather stay whole on every rank below this many bytes: what is not read
// then saves little (shard_weights.cc).
inline constexpr int64_t kWholeBelowBytes = 1 << 20;

// Keeps this rank's part: its heads, its routed experts, its rows of the output projections, dense
// layers, shared experts, Engram projections and of the vocabulary. Before PackWeights, which takes
// memory for what is left only. Every rank decides alike. INVALID_ARGUMENT: more ranks than heads.
Status ShardWeights(const ModelConfig& config, const parallel::Collective& ranks, Weights& weights,
                    int64_t whole_below_bytes = kWholeBelowBytes);

// Bytes of weights that computing one token of one sequence reads, its experts' only (of rank 0: a
// token's experts as if it had them all).
int64_t DecodeBytes(const Weights& weights, const ModelConfig& config);

// Packs the bf16 matrices that tokens are multiplied with, in memory of its own and in the order of
// the forward pass. The embedding, fp32 matrices, what routes (the experts' gate) and what
// attention takes apart (kv_b) move there, too, but stay as they are: no weight is read from the
// checkpoint's mapping afterwards. The checkpoint's CheckUnchanged says whether what was read
// before can be used. RESOURCE_EXHAUSTED when there is no memory for it.
Status PackWeights(kernels::Pool& pool, Weights& weights);

}  // namespace engram::compute
