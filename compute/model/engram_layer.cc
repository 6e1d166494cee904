#include "compute/model/engram_layer.h"

#include <algorithm>
#include <vector>

#include "common/table/row_codec.h"

namespace engram::compute {
namespace {

// [T, E]: the rows of a position side by side, in column order; zeros behind a closed gate.
std::vector<float> Embeddings(const table::RowFormat& format, int64_t rows_per_position,
                              uint32_t layer_index, std::span<const Segment> segments,
                              const LayerRows& rows) {
  const size_t row_bytes = format.row_bytes();
  const auto dim = static_cast<size_t>(format.head_dim);
  const auto width = static_cast<size_t>(rows_per_position) * dim;
  std::vector<float> values(static_cast<size_t>(TokenCount(segments)) * width, 0.0f);
  float* to = values.data();
  for (size_t i = 0; i < segments.size(); ++i) {
    const std::span<const std::byte> bytes = rows.Rows(i, layer_index);
    for (size_t r = 0; r < bytes.size() / row_bytes; ++r) {
      table::DecodeRow(format, bytes.subspan(r * row_bytes, row_bytes), {to + r * dim, dim});
    }
    to += segments[i].tokens.size() * width;
  }
  return values;
}

// One segment's part of the step, as spans of the step's arrays.
struct Slice {
  size_t first = 0;  // token
  size_t count = 0;
  std::vector<uint8_t> live;
};

std::vector<Slice> Slices(std::span<const Segment> segments, const LayerRows& rows,
                          uint32_t layer_index) {
  std::vector<Slice> slices;
  size_t first = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    const size_t count = segments[i].tokens.size();
    const bool live = !rows.Rows(i, layer_index).empty();
    slices.push_back({first, count, std::vector<uint8_t>(count, live ? 1 : 0)});
    first += count;
  }
  return slices;
}

// Fuses one segment, stopping at every page's end to note the convolution's history there.
void FusePieces(const kernels::PaperFusion& fusion, const Slice& slice, const Segment& segment,
                uint32_t layer_index, PagePool& pages, std::span<const float> keys,
                std::span<const float> value, std::span<float> streams) {
  const int64_t page_positions = pages.shape().positions;
  const std::span<float> history = segment.state->conv_history[layer_index];
  const size_t channels = fusion.conv_norm.size();
  const size_t width = channels / static_cast<size_t>(fusion.streams);
  for (size_t done = 0; done < slice.count;) {
    const int64_t position = segment.state->length + static_cast<int64_t>(done);
    const auto to_page_end = static_cast<size_t>(page_positions - position % page_positions);
    const size_t count = std::min(slice.count - done, to_page_end);
    const size_t t = slice.first + done;
    kernels::FusePaper(fusion, keys.subspan(t * channels, count * channels),
                       value.subspan(t * width, count * width),
                       std::span(slice.live).subspan(done, count), history,
                       streams.subspan(t * channels, count * channels));
    if (count == to_page_end) {
      const int32_t page = segment.state->pages[static_cast<size_t>(position / page_positions)];
      std::copy(history.begin(), history.end(), pages.History(page, layer_index).begin());
    }
    done += count;
  }
}

// [T * G + T, D]: the keys of every token and stream, then the tokens' values.
std::vector<float> KeysAndValues(kernels::Pool& pool, parallel::Collective& ranks,
                                 const ModelConfig& config, const EngramWeights& weights,
                                 std::span<const float> embeddings) {
  const size_t tokens = embeddings.size() / static_cast<size_t>(weights.value.columns);
  const auto width = static_cast<size_t>(weights.value.rows);  // of this rank
  const auto g_count = static_cast<size_t>(config.streams);
  std::vector<float> all(tokens * (g_count + 1) * width);
  const std::span<float> value = std::span(all).last(tokens * width);
  kernels::Linear(pool, embeddings, weights.value, value);
  if (!weights.value_bias.empty()) kernels::AddBias(value, weights.value_bias);
  std::vector<float> one(value.size());
  for (size_t g = 0; g < g_count; ++g) {
    kernels::Linear(pool, embeddings, weights.keys[g], one);
    if (!weights.key_biases[g].empty()) kernels::AddBias(one, weights.key_biases[g]);
    for (size_t t = 0; t < tokens; ++t) {
      std::copy_n(one.data() + t * width, width, all.data() + (t * g_count + g) * width);
    }
  }
  return parallel::GatherColumns(ranks, std::move(all),
                                 static_cast<int64_t>(tokens * (g_count + 1)), config.hidden_size,
                                 kShardRows);
}

void PaperForward(const ModelConfig& config, const EngramWeights& weights,
                  std::span<const float> keys_and_values, uint32_t layer_index,
                  std::span<const Segment> segments, std::span<const Slice> slices, PagePool& pages,
                  std::span<float> streams) {
  const std::span<const float> keys = keys_and_values.first(streams.size());
  const std::span<const float> value = keys_and_values.subspan(streams.size());
  const kernels::PaperFusion fusion{
      weights.key_norm, weights.query_norm,        weights.conv_norm,           weights.conv,
      config.streams,   config.engram.conv_kernel, config.engram.max_ngram_size};
  for (size_t i = 0; i < segments.size(); ++i) {
    FusePieces(fusion, slices[i], segments[i], layer_index, pages, keys, value, streams);
  }
}

void V41Forward(kernels::Pool& pool, parallel::Collective& ranks, const ModelConfig& config,
                const EngramWeights& weights, std::span<float> embeddings,
                std::span<const Slice> slices, std::span<float> streams) {
  if (weights.quantize_activations) kernels::QuantizeActivations(embeddings);
  const size_t tokens = embeddings.size() / static_cast<size_t>(weights.key_value.columns);
  std::vector<float> key_value(tokens * static_cast<size_t>(weights.key_value.rows));
  kernels::Linear(pool, embeddings, weights.key_value, key_value);
  key_value = parallel::GatherColumns(ranks, std::move(key_value), static_cast<int64_t>(tokens),
                                      (config.streams + 1) * config.hidden_size, kShardRows);
  std::vector<uint8_t> live;
  for (const Slice& slice : slices) live.insert(live.end(), slice.live.begin(), slice.live.end());
  kernels::FuseV41(key_value, weights.qk_weight, config.streams,
                   static_cast<float>(config.engram.norm_eps), live, streams);
}

}  // namespace

void EngramForward(kernels::Pool& pool, parallel::Collective& ranks, const ModelConfig& config,
                   const EngramWeights& weights, const table::RowFormat& format,
                   uint32_t layer_index, std::span<const Segment> segments, const LayerRows& rows,
                   PagePool& pages, std::span<float> streams) {
  const table::EngramConfig& engram = config.engram;
  std::vector<float> embeddings =
      Embeddings(format, engram.rows_per_position(), layer_index, segments, rows);
  const std::vector<Slice> slices = Slices(segments, rows, layer_index);
  if (engram.variant == table::Variant::kPaper) {
    PaperForward(config, weights, KeysAndValues(pool, ranks, config, weights, embeddings),
                 layer_index, segments, slices, pages, streams);
  } else {
    V41Forward(pool, ranks, config, weights, embeddings, slices, streams);
  }
}

}  // namespace engram::compute
