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
constexpr uint64_t kPleShardRows = 2'500'012;
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

Status CheckScale(const ProceduralSpec& spec) {
  if (spec.rows_scale >= kRowsScaleMin && spec.rows_scale <= 1) return OkStatus();
  return InvalidArgument(
      fmt::format("procedural rows_scale is {}, must be {}..1", spec.rows_scale, kRowsScaleMin));
}

uint64_t Scaled(uint64_t rows, double scale) {
  return static_cast<uint64_t>(std::max(2.0, std::round(static_cast<double>(rows) * scale)));
}

Result<TableLayout> PleLayout(const ProceduralSpec& spec) {
  RETURN_IF_ERROR(CheckScale(spec));
  TableLayout layout;
  layout.max_ngram_size = 3;
  layout.heads_per_order = 8;
  layout.row_format = {spec.layout == "qwen-ple" ? RowEncoding::kBf16 : RowEncoding::kFp8, 160};
  LayerLayout& layer = layout.layers.emplace_back();
  layer.layer_id = 1;
  layer.total_rows = kPleShards * Scaled(kPleShardRows, spec.rows_scale);
  return layout;
}

}  // namespace

Result<EngramConfig> MakeProceduralConfig(const ProceduralSpec& spec) {
  RETURN_IF_ERROR(CheckScale(spec));
  EngramConfig config;
  config.layer_ids = {1, 14};
  config.heads_per_order = 8;
  config.pad_id = kPadCompressed;
  config.compressed_vocab_size = kCompressedVocab;
  uint64_t rows = 0;
  if (spec.layout == "v41") {
    config.max_ngram_size = 4;
    config.head_dim = 256;
    config.variant = Variant::kV41;
    rows = 16'000'000;
  } else if (spec.layout == "paper") {
    config.max_ngram_size = 3;
    config.head_dim = 80;
    rows = 2'262'400;
  } else {
    return InvalidArgument(fmt::format(
        "procedural layout \"{}\", must be v41, paper, qwen-ple or qwen-ple-fp8", spec.layout));
  }
  config.requested_vocab_sizes.assign(static_cast<size_t>(config.order_count()),
                                      Scaled(rows, spec.rows_scale));
  return config;
}

Result<TableLayout> MakeProceduralLayout(const ProceduralSpec& spec) {
  if (spec.layout == "qwen-ple" || spec.layout == "qwen-ple-fp8") return PleLayout(spec);
  ASSIGN_OR_RETURN(const EngramConfig config, MakeProceduralConfig(spec));
  const RowEncoding encoding =
      config.variant == Variant::kV41 ? RowEncoding::kFp8Scaled : RowEncoding::kBf16;
  return MakeLayout(config, kCompressedVocab, kPadCompressed, encoding);
}

TableIdentity MakeProceduralIdentity(const ProceduralSpec& spec, const TableLayout& layout) {
  return MakeIdentity(layout, fmt::format("procedural-{}-{}", spec.layout, spec.seed), "1");
}

void FillProceduralRow(const RowFormat& format, uint64_t seed, uint32_t layer_index, uint64_t row,
                       std::span<std::byte> out) {
  CHECK_EQ(out.size(), format.row_bytes());
  const uint64_t mask = format.encoding == RowEncoding::kBf16 ? kBf16Mask : kFp8Mask;
  const uint64_t base = Mix64(seed, layer_index, row);
  std::byte* at = out.data();
  const size_t words = out.size() / sizeof(uint64_t);
  for (size_t i = 0; i < words; ++i, at += sizeof(uint64_t)) {
    const uint64_t word = Word(base, i) & mask;
    std::memcpy(at, &word, sizeof(word));
  }
  const uint64_t last = Word(base, words) & mask;
  std::memcpy(at, &last, out.size() % sizeof(uint64_t));
  if (format.encoding != RowEncoding::kFp8Scaled) return;
  for (std::byte& scale : out.subspan(static_cast<size_t>(format.head_dim))) {
    scale = static_cast<std::byte>(kScaleBase | (static_cast<uint8_t>(scale) & 7));
  }
}

}  // namespace engram::table
