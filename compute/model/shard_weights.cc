// Which part of the weights a rank keeps: its heads, its routed experts, and its rows of the
// matrices whose outputs are gathered. What every rank needs whole stays: the embedding, norms,
// routing, hyper-connections, low-rank and latent projections, and whatever is too small to be
// worth a gather.
#include <fmt/format.h>

#include "compute/model/weights.h"

namespace engram::compute {
namespace {

class Sharder {
 public:
  Sharder(const parallel::Collective& ranks, int64_t whole_below_bytes)
      : ranks_(ranks), whole_below_bytes_(whole_below_bytes) {}

  void Heads(const kernels::MlaShape& shape, AttentionWeights& attention) const {
    const parallel::Slice heads = SliceOf(shape.heads, ranks_);
    const auto rows_of_heads = [&](Matrix& w, int64_t width) {
      w = w.Rows(heads.first * width, heads.count * width);
    };
    rows_of_heads(attention.q, shape.nope + shape.rope);
    rows_of_heads(attention.kv_b, shape.nope + shape.value);
    Rows(attention.out);
  }

  void Experts(std::vector<MlpWeights>& experts) const {
    const parallel::Slice own = SliceOf(static_cast<int64_t>(experts.size()), ranks_);
    for (size_t e = 0; e < experts.size(); ++e) {
      const auto expert = static_cast<int64_t>(e);
      if (expert < own.first || expert >= own.end()) experts[e] = MlpWeights();
    }
  }

  // Two gathers: of the middle, and of what comes out.
  void Mlp(MlpWeights& mlp) const {
    if (IsWorthAGather(BytesOf(mlp.gate) + BytesOf(mlp.up))) {
      Rows(mlp.gate);
      Rows(mlp.up);
    }
    if (IsWorthAGather(BytesOf(mlp.down))) Rows(mlp.down);
  }

  // One gather, of the keys and the value together.
  void Engram(EngramWeights& engram) const {
    int64_t bytes = BytesOf(engram.key_value) + BytesOf(engram.value);
    for (const Matrix& key : engram.keys) bytes += BytesOf(key);
    if (!IsWorthAGather(bytes)) return;
    Rows(engram.key_value);
    Rows(engram.value);
    Values(engram.value_bias);
    for (Matrix& key : engram.keys) Rows(key);
    for (std::vector<float>& bias : engram.key_biases) Values(bias);
  }

  void Rows(Matrix& w) const {
    if (w.rows < ranks_.size()) return;
    const parallel::Slice slice = SliceOf(w.rows, ranks_, kShardRows);
    w = w.Rows(slice.first, slice.count);
  }

 private:
  // Two ranks on idle cores gather a token's outputs in 3 to 8 us, and one core reads 512 KiB in
  // 28 us (18.6 GB/s): half of kWholeBelowBytes pays for a gather even when a rank is a little
  // late for it.
  bool IsWorthAGather(int64_t bytes) const { return bytes >= whole_below_bytes_; }
  // The values that belong to the rows that Rows leaves.
  void Values(std::vector<float>& values) const {
    const auto count = static_cast<int64_t>(values.size());
    if (count < ranks_.size()) return;
    const parallel::Slice slice = SliceOf(count, ranks_, kShardRows);
    values.erase(values.begin() + slice.end(), values.end());
    values.erase(values.begin(), values.begin() + slice.first);
  }

  const parallel::Collective& ranks_;
  const int64_t whole_below_bytes_;
};

}  // namespace

Status ShardWeights(const ModelConfig& config, const parallel::Collective& ranks, Weights& weights,
                    int64_t whole_below_bytes) {
  const kernels::MlaShape& mla = config.attention;
  if (ranks.size() > mla.heads) {
    return InvalidArgument(fmt::format(
        "{} ranks for a model of {} attention heads: at most one a head", ranks.size(), mla.heads));
  }
  const Sharder sharder(ranks, whole_below_bytes);
  for (LayerWeights& layer : weights.layers) {
    sharder.Heads(mla, layer.attention);
    if (layer.dense) sharder.Mlp(*layer.dense);
    if (layer.moe) sharder.Experts(layer.moe->experts);
    if (layer.moe && layer.moe->shared) sharder.Mlp(*layer.moe->shared);
    if (layer.engram) sharder.Engram(*layer.engram);
  }
  sharder.Rows(weights.lm_head);
  return OkStatus();
}

}  // namespace engram::compute
