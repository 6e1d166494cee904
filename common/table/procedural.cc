#include "common/table/procedural.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/base/rng.h"
#include "common/table/engram_config.h"

namespace engram::table {
namespace {

// Of the released tokenizer's map: the two sizes that the published layouts were computed with.
constexpr uint64_t kCompressedVocab = 99092;
constexpr int64_t kPadCompressed = 2;
constexpr double kRowsScaleMin = 1e-6;

constexpr uint64_t kStride = 0x9e3779b97f4a7c15ull;
constexpr uint64_t kMultiplier = 0xd6e8feb86659fd93ull;
// With the highest exponent bit clear a value is below 2 in magnitude, neither infinite nor NaN.
constexpr uint64_t kFp8Mask = 0xbfbfbfbfbfbfbfbfull;
constexpr uint64_t kBf16Mask = 0xbfffbfffbfffbfffull;
constexpr uint8_t kScaleBase = 120;  // ue8m0 exponents 120..127: 2^-7..1

uint64_t Word(uint64_t base, uint64_t index) {
  uint64_t x = base + index * kStride;
  x = (x ^ (x >> 32)) * kMultiplier;
  return x ^ (x >> 29);
}

}  // namespace

Result<TableLayout> MakeProceduralLayout(const ProceduralSpec& spec) {
  if (!(spec.rows_scale >= kRowsScaleMin && spec.rows_scale <= 1)) {
    return InvalidArgument(
        fmt::format("procedural rows_scale is {}, must be {}..1", spec.rows_scale, kRowsScaleMin));
  }
  EngramConfig config;
  config.layer_ids = {1, 14};
  config.heads_per_order = 8;
  config.pad_id = kPadCompressed;
  RowEncoding encoding = RowEncoding::kFp8Scaled;
  double rows = 0;
  if (spec.layout == "v41") {
    config.max_ngram_size = 4;
    config.head_dim = 256;
    rows = 16'000'000;
  } else if (spec.layout == "paper") {
    config.max_ngram_size = 3;
    config.head_dim = 80;
    rows = 2'262'400;
    encoding = RowEncoding::kBf16;
  } else {
    return InvalidArgument(
        fmt::format("procedural layout \"{}\", must be v41 or paper", spec.layout));
  }
  const auto scaled = static_cast<uint64_t>(std::max(2.0, std::round(rows * spec.rows_scale)));
  config.requested_vocab_sizes.assign(static_cast<size_t>(config.order_count()), scaled);
  return MakeLayout(config, kCompressedVocab, kPadCompressed, encoding);
}

TableIdentity MakeProceduralIdentity(const ProceduralSpec& spec, const TableLayout& layout) {
  return MakeIdentity(layout, fmt::format("procedural-{}-{}", spec.layout, spec.seed), "1");
}

void FillProceduralRow(const RowFormat& format, uint64_t seed, uint32_t layer_index, uint64_t row,
                       std::span<std::byte> out) {
  CHECK_EQ(out.size(), format.row_bytes());
  const bool is_fp8 = format.encoding == RowEncoding::kFp8Scaled;
  const uint64_t mask = is_fp8 ? kFp8Mask : kBf16Mask;
  const uint64_t base = Mix64(seed, layer_index, row);
  std::byte* at = out.data();
  const size_t words = out.size() / sizeof(uint64_t);
  for (size_t i = 0; i < words; ++i, at += sizeof(uint64_t)) {
    const uint64_t word = Word(base, i) & mask;
    std::memcpy(at, &word, sizeof(word));
  }
  const uint64_t last = Word(base, words) & mask;
  std::memcpy(at, &last, out.size() % sizeof(uint64_t));
  if (!is_fp8) return;
  for (std::byte& scale : out.subspan(static_cast<size_t>(format.head_dim))) {
    scale = static_cast<std::byte>(kScaleBase | (static_cast<uint8_t>(scale) & 7));
  }
}

}  // namespace engram::table
