// The engram_* keys of a model's config.json.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::table {

enum class Variant { kPaper, kV41 };
std::string_view VariantName(Variant variant);

// Limits on what a config may ask for; beyond them the config is refused.
inline constexpr int kMaxNgramSizeMax = 8;
inline constexpr int kHeadsMax = 64;
inline constexpr int kEngramLayersMax = 64;
inline constexpr int kLayerIdMax = 1 << 20;
inline constexpr int kHeadDimMax = 1 << 16;
inline constexpr uint64_t kRequestedVocabMax = uint64_t{1} << 40;  // rows of one column
// Up to here numpy draws multipliers by the 64-bit path that the specification fixes.
inline constexpr uint64_t kCompressedVocabMax = uint64_t{1} << 29;

struct EngramConfig {
  std::vector<int> layer_ids;                   // 0-based, ascending as listed
  int max_ngram_size = 0;                       // N
  int heads_per_order = 0;                      // K
  int head_dim = 0;                             // values in one row
  std::vector<uint64_t> requested_vocab_sizes;  // one per order 2..N
  int64_t pad_id = 2;                           // raw id
  uint64_t compressed_vocab_size = 0;           // V'; 0 = not in the config, take the token map's
  uint64_t seed = 0;
  Variant variant = Variant::kPaper;
  int conv_kernel = 4;      // paper variant
  double norm_eps = 1e-20;  // v41 variant
  // engram_num_embeddings as given; empty = absent. MakeLayout refuses it unless it agrees with the
  // computed rows: a list has each layer's rows; a single number is all rows, one layer's rows, the
  // requested vocabulary of an order, or the requested rows of a layer.
  std::vector<uint64_t> declared_rows;
  bool declared_rows_per_layer = false;  // it was a list
  // Qwen's per-layer embeddings (ple_layer_ids, which count from 1): rows by number only. Their
  // hashing is not known here, and sizes come from the tensors.
  bool ple = false;

  int order_count() const { return max_ngram_size - 1; }
  int rows_per_position() const { return order_count() * heads_per_order; }  // H
  int embedding_width() const { return rows_per_position() * head_dim; }     // E
};

// Keys at top level or under "text_config"; null is the same as absent. Without any, layer_ids is
// empty; INVALID_ARGUMENT names the key and the value: some keys but no layers, layers without pad
// id or (model_type engram_v3) seed, an unknown engram_* key. The variant is "paper" unless
// engram_variant says "v41". ple_layer_ids instead gives layer_ids and `ple`.
Result<EngramConfig> ParseEngramConfig(const json::object& config);
Result<EngramConfig> LoadEngramConfig(const std::string& config_json_path);

}  // namespace engram::table
