#include "compute/model/engram_layer.h"

#include <algorithm>

#include "common/table/row_codec.h"

namespace engram::compute {

using kernels::Activations;
using kernels::Workspace;

namespace {

// Tokens whose rows are worth a second thread.
constexpr int64_t kDecodeGrain = 16;

}  // namespace

int64_t EngramLayer::FloatsOf(const ModelConfig& config, int64_t tokens) {
  const table::EngramConfig& engram = config.engram;
  const int64_t embedding = engram.rows_per_position() * engram.head_dim;
  const int64_t channels = config.streams * config.hidden_size;
  const int64_t history = (engram.conv_kernel - 1) * int64_t{engram.max_ngram_size} * channels;
  return tokens * (3 * embedding + 6 * channels + 4 * config.hidden_size + 64) + history;
}

// [T, E]: the rows of a position side by side, in column order; zeros behind a closed gate.
Activations EngramLayer::Embeddings(const StepContext& step) const {
  const int64_t row_bytes = format_.row_bytes(), dim = format_.head_dim;
  const int64_t each = context_.config.engram.rows_per_position();
  Activations embeddings(context_.memory(), step.tokens, each * dim);
  int64_t first = 0;
  for (int64_t i = 0; i < std::ssize(step.segments); ++i) {
    const std::span<const std::byte> bytes = step.rows.Rows(i, layer_index_);
    const int64_t count = step.segments[i].count();
    context_.pool.Run(count, kDecodeGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const std::span<float> values = embeddings.row(first + t);
        if (bytes.empty()) std::fill(values.begin(), values.end(), 0.0f);
        for (int64_t r = 0; r < each && !bytes.empty(); ++r) {
          table::DecodeRow(format_, bytes.subspan((t * each + r) * row_bytes, row_bytes),
                           values.subspan(r * dim, dim));
        }
        if (weights_.quantize_activations) kernels::QuantizeActivations(values);
        embeddings.RowIsComplete(first + t);
      }
    });
    first += count;
  }
  return embeddings;
}

// [T * G + T, D]: the keys of every token and stream, then the tokens' values.
void EngramLayer::KeysAndValues(const Activations& embeddings, std::span<float> out) const {
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const int64_t tokens = embeddings.count(), g_count = context_.config.streams;
  const int64_t width = weights_.value.rows;  // of this rank
  const bool is_whole = width == context_.config.hidden_size;
  const std::span<float> mine = is_whole ? out : memory.Take<float>(tokens * (g_count + 1) * width);
  const std::span<float> value = mine.last(tokens * width);
  const std::span products = memory.Take<kernels::Product>(g_count + 1);
  for (int64_t g = 0; g < g_count; ++g) {
    products[g] = {&weights_.keys[g], mine.data() + g * width, g_count * width};
  }
  products[g_count] = {&weights_.value, value.data(), width};
  kernels::LinearAll(context_.pool, embeddings, products);
  if (!weights_.value_bias.empty()) kernels::AddBias(value, weights_.value_bias);
  for (int64_t i = 0; i < tokens * g_count; ++i) {
    const std::vector<float>& bias = weights_.key_biases[i % g_count];
    if (!bias.empty()) kernels::Add(mine.subspan(i * width, width), bias);
  }
  if (is_whole) return;
  parallel::GatherColumns(context_.ranks, memory, mine, tokens * (g_count + 1), kShardRows, out);
}

// Segment by segment, stopping at every page's end to note the convolution's history there.
void EngramLayer::FusePaper(const StepContext& step, std::span<const float> keys_and_values,
                            std::span<const uint8_t> live, std::span<float> streams) const {
  const ModelConfig& config = context_.config;
  const kernels::PaperFusion fusion{
      weights_.key_norm, weights_.query_norm,       weights_.conv_norm,          weights_.conv,
      config.streams,    config.engram.conv_kernel, config.engram.max_ngram_size};
  const int64_t width = config.hidden_size, channels = width * config.streams;
  const int64_t page_positions = step.pages.shape().positions;
  const std::span<const float> value = keys_and_values.subspan(streams.size());
  int64_t t = 0;
  for (const Segment& segment : step.segments) {
    const std::span<float> history = segment.state->conv_history[layer_index_];
    for (int64_t done = 0; done < segment.count();) {
      const int64_t position = segment.state->length + done;
      const int64_t to_page_end = page_positions - position % page_positions;
      const int64_t count = std::min(segment.count() - done, to_page_end);
      kernels::FusePaper(context_.memory(), fusion,
                         keys_and_values.subspan(t * channels, count * channels),
                         value.subspan(t * width, count * width), live.subspan(t, count), history,
                         streams.subspan(t * channels, count * channels));
      if (count == to_page_end) {
        const int32_t page = segment.state->pages[position / page_positions];
        std::copy(history.begin(), history.end(), step.pages.History(page, layer_index_).begin());
      }
      done += count;
      t += count;
    }
  }
}

void EngramLayer::Forward(std::span<float> streams, const StepContext& step) const {
  step.rows.Wait(layer_index_);
  const ModelConfig& config = context_.config;
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const std::span<uint8_t> live = memory.Take<uint8_t>(step.tokens);
  int64_t t = 0;
  for (int64_t i = 0; i < std::ssize(step.segments); t += step.segments[i++].count()) {
    const bool has_rows = !step.rows.Rows(i, layer_index_).empty();
    std::fill_n(live.begin() + t, step.segments[i].count(), has_rows ? 1 : 0);
  }
  const Activations embeddings = Embeddings(step);
  const int64_t columns = (config.streams + 1) * config.hidden_size;
  const std::span<float> keys_and_values = memory.Take<float>(step.tokens * columns);
  if (config.engram.variant == table::Variant::kPaper) {
    KeysAndValues(embeddings, keys_and_values);
    FusePaper(step, keys_and_values, live, streams);
  } else {
    GatheredLinear(context_, embeddings, weights_.key_value, columns, keys_and_values);
    kernels::FuseV41(keys_and_values, weights_.qk_weight, config.streams,
                     static_cast<float>(config.engram.norm_eps), live, streams);
  }
}

}  // namespace engram::compute
