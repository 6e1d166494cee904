// The engine's log-probabilities against the float64 restatement of the whole model.
#include "compute/model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/table/row_codec.h"
#include "tests/compute/model/reference.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

// The Engram embedding of each position, from the hashes and the fake rows.
EmbeddingOf EmbeddingsOf(const TinyEngine& tiny, std::span<const int32_t> tokens) {
  return [&tiny, tokens](uint32_t layer_index, size_t position) {
    table::NgramState before;
    for (size_t t = 0; t < position; ++t) before.Append(*tiny.map.Compress(tokens[t]));
    std::vector<uint64_t> rows(static_cast<size_t>(tiny.layout.rows_per_position()));
    const std::vector<int64_t> id = {*tiny.map.Compress(tokens[position])};
    table::HashRows(tiny.layout, tiny.layout.layers[layer_index], before, id, {}, rows);
    std::vector<double> embedding;
    for (const uint64_t row : rows) {
      std::vector<std::byte> bytes(tiny.layout.row_format.row_bytes());
      std::vector<float> values(static_cast<size_t>(tiny.layout.row_format.head_dim));
      FakeRowSource::FillRow(tiny.layout.row_format, layer_index, row, bytes);
      table::DecodeRow(tiny.layout.row_format, bytes, values);
      embedding.insert(embedding.end(), values.begin(), values.end());
    }
    return embedding;
  };
}

class AgainstFloat64 : public testing::TestWithParam<TinyOptions> {};

// The largest difference to the float64 restatement, over 40 tokens.
double LargestError(const TinyOptions& options, bool packed) {
  const std::vector<int32_t> tokens = RandomTokens(31, 40, 97);
  TinyServing serving;
  serving.packed = packed;
  TinyEngine tiny(options, serving);
  const auto scores = tiny.Score(tokens);
  CHECK(scores.ok()) << scores.status().message();
  const std::vector<double> exact =
      ReferenceScore(TinyConfig(options), TinyTensors(options), tokens, EmbeddingsOf(tiny, tokens));
  CHECK_EQ(scores->size(), exact.size());
  double largest = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::fabs((*scores)[i] - exact[i]));
  }
  return largest;
}

TEST_P(AgainstFloat64, LogProbabilitiesAgree) {
  // A dozen sublayers, each with a relative error of some tens of 2^-24 on activations of order 1
  // to 10.
  EXPECT_LT(LargestError(GetParam(), false), 2e-4);
}

TEST_P(AgainstFloat64, LogProbabilitiesAgreeWithActivationsRoundedToBf16) {
  // The same sublayers, each with activations of order 1 to 10 moved by up to 2^-9 of themselves,
  // which adds up as noise: sqrt(12) * 10 * 2^-9 = 0.07.
  const double error = LargestError(GetParam(), true);
  EXPECT_LT(error, 0.07);
  if (GetParam().dtype == DType::kBf16) {
    EXPECT_GT(error, 2e-5) << "nothing was rounded";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, AgainstFloat64,
                         testing::Values(TinyOptions{}, TinyOptions{.variant = "v41"},
                                         TinyOptions{.dtype = DType::kF32, .streams = 4},
                                         TinyOptions{
                                             .variant = "v41", .q_lora = false, .streams = 1},
                                         TinyOptions{.variant = "", .q_lora = false, .streams = 1},
                                         TinyOptions{.yarn = true, .seed = 3}));

}  // namespace
}  // namespace engram::compute
