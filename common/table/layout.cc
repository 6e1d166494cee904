#include "common/table/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "common/table/numpy_rng.h"
#include "common/table/prime.h"

namespace engram::table {
namespace {

constexpr uint64_t kLayerSeedStep = 10007;

// Hands out the primes of the whole model: none twice.
class PrimeSupply {
 public:
  // The next `count` unused primes at or above `requested`, ascending.
  void Take(uint64_t requested, int count, std::vector<uint64_t>& out) {
    uint64_t candidate = requested;
    for (int taken = 0; taken < count; ++candidate) {
      if (!IsPrime(candidate) || !seen_.insert(candidate).second) continue;
      out.push_back(candidate);
      ++taken;
    }
  }

 private:
  std::unordered_set<uint64_t> seen_;
};

LayerLayout MakeLayer(const EngramConfig& config, int layer_id, uint64_t compressed_vocab_size,
                      PrimeSupply& supply) {
  LayerLayout layer;
  layer.layer_id = layer_id;
  layer.multipliers =
      LayerMultipliers(config.seed, layer_id, compressed_vocab_size, config.max_ngram_size);
  for (const uint64_t requested : config.requested_vocab_sizes) {
    supply.Take(requested, config.heads_per_order, layer.primes);
  }
  for (const uint64_t prime : layer.primes) {
    layer.offsets.push_back(layer.total_rows);
    layer.total_rows += prime;
  }
  return layer;
}

Status CheckVocabulary(const EngramConfig& config, uint64_t compressed_vocab_size,
                       int64_t pad_compressed) {
  if (compressed_vocab_size == 0 || compressed_vocab_size > kCompressedVocabMax) {
    return InvalidArgument(fmt::format("the compressed vocabulary has {} ids, expected 1..{}",
                                       compressed_vocab_size, kCompressedVocabMax));
  }
  if (config.compressed_vocab_size != 0 && config.compressed_vocab_size != compressed_vocab_size) {
    return InvalidArgument(
        fmt::format("the compressed vocabulary has {} ids, but the config's "
                    "engram_compressed_vocab_size is {}: every address depends on it",
                    compressed_vocab_size, config.compressed_vocab_size));
  }
  if (pad_compressed < 0 || static_cast<uint64_t>(pad_compressed) >= compressed_vocab_size) {
    return InvalidArgument(fmt::format("the compressed pad id {} is not one of 0..{}",
                                       pad_compressed, compressed_vocab_size - 1));
  }
  return OkStatus();
}

// engram_num_embeddings says what the tables should hold; what exactly differs between exporters.
Status CheckDeclaredRows(const EngramConfig& config, const std::vector<LayerLayout>& layers) {
  const std::vector<uint64_t>& declared = config.declared_rows;
  if (declared.empty()) return OkStatus();
  std::vector<uint64_t> rows;
  for (const LayerLayout& layer : layers) rows.push_back(layer.total_rows);
  if (config.declared_rows_per_layer) {
    if (declared == rows) return OkStatus();
    return InvalidArgument(
        fmt::format("engram_num_embeddings is [{}], but the other keys give tables of [{}] rows",
                    fmt::join(declared, ", "), fmt::join(rows, ", ")));
  }
  const std::vector<uint64_t>& requested = config.requested_vocab_sizes;
  const auto contains = [&](const std::vector<uint64_t>& list) {
    return std::find(list.begin(), list.end(), declared[0]) != list.end();
  };
  const uint64_t sum = std::accumulate(rows.begin(), rows.end(), uint64_t{0});
  const uint64_t requested_rows = std::accumulate(requested.begin(), requested.end(), uint64_t{0}) *
                                  static_cast<uint64_t>(config.heads_per_order);
  if (declared[0] == sum || declared[0] == requested_rows || contains(rows) ||
      contains(requested)) {
    return OkStatus();
  }
  return InvalidArgument(
      fmt::format("engram_num_embeddings is {}, but the other keys give tables of [{}] rows, {} in "
                  "all",
                  declared[0], fmt::join(rows, ", "), sum));
}

}  // namespace

std::string_view RowEncodingName(RowEncoding encoding) {
  switch (encoding) {
    case RowEncoding::kBf16:
      return "bf16";
    case RowEncoding::kFp8Scaled:
      return "fp8_e4m3_ue8m0";
    case RowEncoding::kFp8:
      return "fp8_e4m3";
  }
  return "?";
}

std::vector<int64_t> LayerMultipliers(uint64_t seed, int layer_id, uint64_t compressed_vocab_size,
                                      int count) {
  CHECK(compressed_vocab_size > 0 && compressed_vocab_size <= kCompressedVocabMax)
      << compressed_vocab_size;
  const uint64_t half_bound = static_cast<uint64_t>(INT64_MAX) / compressed_vocab_size / 2;
  NumpyPcg64 random(seed + kLayerSeedStep * static_cast<uint64_t>(layer_id));
  std::vector<int64_t> multipliers;
  for (int i = 0; i < count; ++i) {
    multipliers.push_back(static_cast<int64_t>(random.NextBelow(half_bound) * 2 + 1));
  }
  return multipliers;
}

Status CheckCanHash(const EngramConfig& config) {
  if (config.layer_ids.empty()) {
    return InvalidArgument("the config has no Engram layers (engram_layer_ids)");
  }
  if (config.ple) {
    return InvalidArgument(
        "per-layer embeddings (ple_layer_ids) are served by row number: how their rows are hashed "
        "is not known here");
  }
  return OkStatus();
}

Result<TableLayout> MakeLayout(const EngramConfig& config, uint64_t compressed_vocab_size,
                               int64_t pad_compressed, RowEncoding encoding) {
  RETURN_IF_ERROR(CheckCanHash(config));
  CHECK_EQ(config.requested_vocab_sizes.size(), static_cast<size_t>(config.order_count()));
  RETURN_IF_ERROR(CheckVocabulary(config, compressed_vocab_size, pad_compressed));
  if (encoding == RowEncoding::kFp8Scaled && config.head_dim % 32 != 0) {
    return InvalidArgument(
        fmt::format("engram_head_dim is {}, but fp8 rows have one scale per 32 values: expected a "
                    "multiple of 32",
                    config.head_dim));
  }
  TableLayout layout;
  layout.max_ngram_size = config.max_ngram_size;
  layout.heads_per_order = config.heads_per_order;
  layout.compressed_vocab_size = compressed_vocab_size;
  layout.pad_compressed = pad_compressed;
  layout.row_format = {encoding, config.head_dim};
  PrimeSupply supply;
  for (const int layer_id : config.layer_ids) {
    layout.layers.push_back(MakeLayer(config, layer_id, compressed_vocab_size, supply));
  }
  RETURN_IF_ERROR(CheckDeclaredRows(config, layout.layers));
  return layout;
}

}  // namespace engram::table
