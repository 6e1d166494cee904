#include "compute/model/engram_layer.h"

#include <algorithm>
#include <vector>

#include "common/table/row_codec.h"

namespace engram::compute {
namespace {

// [T, E]: the rows of a position side by side, in column order.
std::vector<float> Embeddings(const table::RowFormat& format, std::span<const std::byte> rows) {
  const size_t row_bytes = format.row_bytes();
  const auto dim = static_cast<size_t>(format.head_dim);
  const size_t count = rows.size() / row_bytes;
  std::vector<float> values(count * dim);
  for (size_t i = 0; i < count; ++i) {
    table::DecodeRow(format, rows.subspan(i * row_bytes, row_bytes),
                     {values.data() + i * dim, dim});
  }
  return values;
}

void PaperForward(kernels::Pool& pool, const ModelConfig& config, const EngramWeights& weights,
                  std::span<const float> embeddings, std::span<float> conv_history,
                  std::span<float> streams) {
  const auto width = static_cast<size_t>(config.hidden_size);
  const auto g_count = static_cast<size_t>(config.streams);
  const size_t tokens = streams.size() / width / g_count;
  std::vector<float> value(tokens * width);
  kernels::Linear(pool, embeddings, weights.value, value);
  if (!weights.value_bias.empty()) kernels::AddBias(value, weights.value_bias);
  std::vector<float> keys(streams.size());
  std::vector<float> one(value.size());
  for (size_t g = 0; g < g_count; ++g) {
    kernels::Linear(pool, embeddings, weights.keys[g], one);
    if (!weights.key_biases[g].empty()) kernels::AddBias(one, weights.key_biases[g]);
    for (size_t t = 0; t < tokens; ++t) {
      std::copy_n(one.data() + t * width, width, keys.data() + (t * g_count + g) * width);
    }
  }
  const kernels::PaperFusion fusion{
      weights.key_norm, weights.query_norm,        weights.conv_norm,           weights.conv,
      config.streams,   config.engram.conv_kernel, config.engram.max_ngram_size};
  kernels::FusePaper(fusion, keys, value, {}, conv_history, streams);
}

void V41Forward(kernels::Pool& pool, const ModelConfig& config, const EngramWeights& weights,
                std::span<float> embeddings, std::span<float> streams) {
  if (weights.quantize_activations) kernels::QuantizeActivations(embeddings);
  const size_t tokens = embeddings.size() / static_cast<size_t>(weights.key_value.columns);
  std::vector<float> key_value(tokens * static_cast<size_t>(weights.key_value.rows));
  kernels::Linear(pool, embeddings, weights.key_value, key_value);
  kernels::FuseV41(key_value, weights.qk_weight, config.streams,
                   static_cast<float>(config.engram.norm_eps), {}, streams);
}

}  // namespace

void EngramForward(kernels::Pool& pool, const ModelConfig& config, const EngramWeights& weights,
                   const table::RowFormat& format, std::span<const std::byte> rows,
                   std::span<float> conv_history, std::span<float> streams) {
  std::vector<float> embeddings = Embeddings(format, rows);
  if (config.engram.variant == table::Variant::kPaper) {
    PaperForward(pool, config, weights, embeddings, conv_history, streams);
  } else {
    V41Forward(pool, config, weights, embeddings, streams);
  }
}

}  // namespace engram::compute
