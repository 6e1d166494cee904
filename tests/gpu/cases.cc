#include "tests/gpu/cases.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "tests/kernels/random.h"

namespace engram::kernels {
namespace {

constexpr double kTolerance = 4000 * kEps;

table::TableLayout LayoutOf(table::RowEncoding encoding, int head_dim) {
  table::EngramConfig config;
  config.layer_ids = {1, 5};
  config.max_ngram_size = 4;
  config.heads_per_order = 5;
  config.head_dim = head_dim;
  config.requested_vocab_sizes = {1000, 2000, 50'000};
  auto layout = table::MakeLayout(config, 9000, 17, encoding);
  CHECK(layout.ok()) << layout.status().message();
  return *layout;
}

std::vector<uint8_t> SomeDead(Rng& rng, int64_t count) {
  std::vector<uint8_t> live(static_cast<size_t>(count));
  for (uint8_t& flag : live) flag = rng.NextBelow(8) == 0 ? 0 : 1;
  return live;
}

template <typename T>
Status SameBits(std::span<const T> expected, std::span<const T> found) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&expected[i], &found[i], sizeof(T)) == 0) continue;
    return InternalError(fmt::format("value {} is {}, not {}", i, found[i], expected[i]));
  }
  return OkStatus();
}

Status Near(std::span<const float> expected, std::span<const float> found) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(static_cast<double>(expected[i]) - found[i]);
    if (error <= kTolerance * (1 + std::fabs(static_cast<double>(expected[i])))) continue;
    return InternalError(fmt::format("value {} is {}, not {}", i, found[i], expected[i]));
  }
  return OkStatus();
}

Status CompareHash(EngramProvider& provider, Rng& rng, int64_t tokens, int64_t known) {
  const table::TableLayout layout = LayoutOf(table::RowEncoding::kBf16, 32);
  table::NgramState before;
  for (int64_t i = 0; i < known; ++i) {
    before.Append(RandomBetween(rng, 0, 8999), rng.NextBelow(4) > 0);
  }
  std::vector<int64_t> ids(static_cast<size_t>(tokens));
  for (int64_t& id : ids) id = RandomBetween(rng, -5, 8999);
  const std::vector<uint8_t> live = SomeDead(rng, tokens);
  for (const table::LayerLayout& layer : layout.layers) {
    std::vector<uint64_t> expected(ids.size() * static_cast<size_t>(layout.rows_per_position()));
    std::vector<uint64_t> found(expected.size());
    table::HashRows(layout, layer, before, ids, live, expected);
    RETURN_IF_ERROR(provider.Hash(layout, layer, before, ids, live, found));
    RETURN_IF_ERROR(SameBits<uint64_t>(expected, found));
  }
  return OkStatus();
}

Status CompareDecode(EngramProvider& provider, Rng& rng, table::RowEncoding encoding, int dim,
                     int64_t count) {
  const table::RowFormat format{encoding, dim};
  std::vector<std::byte> rows(static_cast<size_t>(count) * format.row_bytes());
  for (std::byte& byte : rows) byte = static_cast<std::byte>(rng.NextBelow(256));
  std::vector<float> expected(static_cast<size_t>(count * dim)), found(expected.size());
  RETURN_IF_ERROR(MakeCpuProvider()->Decode(format, rows, expected));
  RETURN_IF_ERROR(provider.Decode(format, rows, found));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(found[i])) found[i] = expected[i];
  }
  return SameBits<float>(expected, found);
}

Status ComparePaper(EngramProvider& provider, Rng& rng, int64_t tokens, int64_t streams,
                    int64_t width) {
  const int64_t channels = streams * width;
  const auto norm = [&] {
    std::vector<float> weights = RandomFloats(rng, channels, 0.2);
    for (float& weight : weights) weight += 1;
    return weights;
  };
  const std::vector<float> key_norm = norm(), query_norm = norm(), conv_norm = norm();
  const std::vector<float> conv = RandomFloats(rng, channels * 4, 0.5);
  const PaperFusion fusion{key_norm, query_norm, conv_norm, conv, streams, 4, 3};
  std::vector<float> history(static_cast<size_t>(fusion.history_size()), 0.0f);
  std::vector<float> other_history = history;
  Workspace memory;
  for (int step = 0; step < 2; ++step) {  // the second with a history
    const std::vector<float> keys = RandomFloats(rng, tokens * channels);
    const std::vector<float> value = RandomFloats(rng, tokens * width);
    const std::vector<uint8_t> live = SomeDead(rng, tokens);
    std::vector<float> h = RandomFloats(rng, tokens * channels);
    std::vector<float> other = h;
    FusePaper(memory, fusion, keys, value, live, history, h);
    RETURN_IF_ERROR(provider.FusePaper(fusion, keys, value, live, other_history, other));
    RETURN_IF_ERROR(Near(h, other));
    RETURN_IF_ERROR(Near(history, other_history).WithContext("history"));
  }
  return OkStatus();
}

Status CompareV41(EngramProvider& provider, Rng& rng, int64_t tokens, int64_t streams,
                  int64_t width) {
  const std::vector<float> kv = RandomFloats(rng, tokens * (streams + 1) * width);
  const std::vector<float> weight = RandomFloats(rng, streams * width);
  const std::vector<uint8_t> live = SomeDead(rng, tokens);
  std::vector<float> h = RandomFloats(rng, tokens * streams * width);
  std::vector<float> other = h;
  FuseV41(kv, weight, streams, 1e-20f, live, h);
  RETURN_IF_ERROR(provider.FuseV41(kv, weight, streams, 1e-20f, live, other));
  return Near(h, other);
}

}  // namespace

std::vector<CaseResult> CompareWithCpu(EngramProvider& provider) {
  Rng rng(20260101);
  std::vector<CaseResult> results;
  for (const auto& [tokens, known] : {std::pair{1, 0}, {1, 2}, {64, 9}, {1000, 1}}) {
    results.push_back({fmt::format("hash {} tokens behind {}", tokens, known),
                       CompareHash(provider, rng, tokens, known)});
  }
  for (const auto& [dim, count] : {std::pair{32, 1}, {64, 77}, {256, 3072}}) {
    for (const table::RowEncoding encoding : table::kRowEncodings) {
      results.push_back(
          {fmt::format("decode {} x {} {}", count, dim, table::RowEncodingName(encoding)),
           CompareDecode(provider, rng, encoding, dim, count)});
    }
  }
  for (const auto& [tokens, width] : {std::pair{1, 64}, {7, 100}, {64, 1280}}) {
    for (const int streams : {1, 4}) {
      const std::string shape = fmt::format("{} x {} x {}", tokens, streams, width);
      results.push_back(
          {"paper's fusion " + shape, ComparePaper(provider, rng, tokens, streams, width)});
      results.push_back(
          {"V4.1's fusion " + shape, CompareV41(provider, rng, tokens, streams, width)});
    }
  }
  return results;
}

}  // namespace engram::kernels
