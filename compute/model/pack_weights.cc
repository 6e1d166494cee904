// Which matrices of the model are packed, and what a token reads of them. Whatever is used after
// loading is copied: what stayed in the mapping would change, or vanish, with the file.
#include "compute/model/weights.h"

namespace engram::compute {
namespace {

class Packer {
 public:
  Packer(kernels::Pool& pool, Weights& weights) : pool_(pool), weights_(weights) {}

  void Pack(Matrix& w) {
    if (w.dtype != DType::kBf16) return Move(w);
    if (w.data == nullptr || !status_.ok()) return;
    w.packed = Keep(kernels::PackedMatrix::Pack(pool_, weights_.memory, w));
  }
  void Pack(MlpWeights& mlp) {
    if (mlp.gate.dtype != DType::kBf16 || mlp.up.dtype != DType::kBf16 ||
        mlp.down.dtype != DType::kBf16) {
      Move(mlp.gate);
      Move(mlp.up);
      return Move(mlp.down);
    }
    if (!status_.ok()) return;
    if (mlp.is_whole()) {
      mlp.gate_up = Keep(kernels::PackedMatrix::PackPair(pool_, weights_.memory, mlp.gate, mlp.up));
    } else {
      Pack(mlp.gate);
      Pack(mlp.up);
    }
    Pack(mlp.down);
  }
  // As stored, but in the packed ones' memory.
  void Move(Matrix& w) {
    if (w.data == nullptr || !status_.ok()) return;
    Result<Matrix> moved = weights_.memory.Copy(w);
    if (moved.ok()) {
      w = *moved;
    } else {
      status_ = moved.status().WithContext("copying the weights");
    }
  }
  const Status& status() const { return status_; }

 private:
  const kernels::PackedMatrix* Keep(Result<kernels::PackedMatrix> packed) {
    if (!packed.ok()) {
      status_ = packed.status().WithContext("packing the weights");
      return nullptr;
    }
    weights_.packed.push_back(*packed);
    return &weights_.packed.back();
  }

  kernels::Pool& pool_;
  Weights& weights_;
  Status status_;
};

}  // namespace

int64_t DecodeBytes(const Weights& weights, const ModelConfig& config) {
  const auto mlp = [&](const MlpWeights& w) {
    return BytesOf(w.gate) + BytesOf(w.up) + BytesOf(w.down);
  };
  int64_t sum = BytesOf(weights.lm_head);
  for (const LayerWeights& layer : weights.layers) {
    sum += BytesOf(layer.attention_hyper.phi) + BytesOf(layer.mlp_hyper.phi);
    const AttentionWeights& attention = layer.attention;
    if (attention.q_a) sum += BytesOf(*attention.q_a);
    sum += BytesOf(attention.q) + BytesOf(attention.kv_a) + BytesOf(attention.kv_b) +
           BytesOf(attention.out);
    if (layer.dense) sum += mlp(*layer.dense);
    if (layer.moe) {
      sum += BytesOf(layer.moe->gate) + config.route.experts_per_token * mlp(layer.moe->experts[0]);
      if (layer.moe->shared) sum += mlp(*layer.moe->shared);
    }
    if (layer.engram) {
      sum += BytesOf(layer.engram->value) + BytesOf(layer.engram->key_value);
      for (const Matrix& key : layer.engram->keys) sum += BytesOf(key);
    }
  }
  return sum;
}

Status PackWeights(kernels::Pool& pool, Weights& weights) {
  Packer packer(pool, weights);
  for (LayerWeights& layer : weights.layers) {
    if (layer.engram) {
      packer.Pack(layer.engram->value);
      for (Matrix& key : layer.engram->keys) packer.Pack(key);
      packer.Pack(layer.engram->key_value);
    }
    AttentionWeights& attention = layer.attention;
    if (attention.q_a) packer.Pack(*attention.q_a);
    packer.Pack(attention.q);
    packer.Pack(attention.kv_a);
    packer.Move(attention.kv_b);
    packer.Pack(attention.out);
    if (layer.dense) packer.Pack(*layer.dense);
    if (!layer.moe) continue;
    packer.Move(layer.moe->gate);
    for (MlpWeights& expert : layer.moe->experts) packer.Pack(expert);
    if (layer.moe->shared) packer.Pack(*layer.moe->shared);
  }
  const bool shares_embedding = weights.lm_head.data == weights.embedding.data;
  packer.Pack(weights.lm_head);
  if (shares_embedding && weights.lm_head.packed == nullptr &&
      weights.lm_head.rows == weights.embedding.rows) {
    weights.embedding = weights.lm_head;
  } else {
    packer.Move(weights.embedding);
  }
  return packer.status();
}

}  // namespace engram::compute
