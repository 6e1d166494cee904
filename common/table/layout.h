// From configuration to addresses: multipliers, prime moduli, offsets, row format. Everything here
// is bit-exact and frozen by tests/golden.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/base/types.h"
#include "common/table/engram_config.h"

namespace engram::table {

// How one row is stored and sent. Rows are opaque bytes to the memory nodes; only the codec decodes
// them.
enum class RowEncoding : uint8_t {
  kBf16,       // head_dim bf16 values
  kFp8Scaled,  // head_dim fp8 e4m3 values, then head_dim/32 ue8m0 scales (V4.1: 264 bytes)
  kFp8,        // head_dim fp8 e4m3 values (Qwen PLE: 160 bytes)
};
std::string_view RowEncodingName(RowEncoding encoding);
inline constexpr RowEncoding kRowEncodings[] = {RowEncoding::kBf16, RowEncoding::kFp8Scaled,
                                                RowEncoding::kFp8};

struct RowFormat {
  RowEncoding encoding = RowEncoding::kBf16;
  int head_dim = 0;
  uint32_t row_bytes() const {
    const auto dim = static_cast<uint32_t>(head_dim);
    switch (encoding) {
      case RowEncoding::kBf16:
        return dim * 2;
      case RowEncoding::kFp8Scaled:
        return dim + dim / 32;
      case RowEncoding::kFp8:
        return dim;
    }
    return 0;
  }
  bool operator==(const RowFormat&) const = default;
};

// The address rule of one Engram layer. Column c = order-major, then head: c = (order - 2) * K +
// head.
struct LayerLayout {
  int layer_id = 0;
  std::vector<int64_t> multipliers;  // [N], by lookback
  std::vector<uint64_t> primes;      // [H]
  std::vector<uint64_t> offsets;     // [H], exclusive prefix sums of primes
  uint64_t total_rows = 0;
};

struct TableLayout {
  int max_ngram_size = 0;   // N
  int heads_per_order = 0;  // K
  uint64_t compressed_vocab_size = 0;
  int64_t pad_compressed = 0;       // pad' = map[pad]
  std::vector<LayerLayout> layers;  // in listed order
  RowFormat row_format;

  // False where the rows are known but not the rule that finds them (Qwen PLE): they are asked for
  // by number.
  bool can_hash() const { return !layers.empty() && !layers[0].primes.empty(); }
  int rows_per_position() const { return (max_ngram_size - 1) * heads_per_order; }
};

// N odd multipliers of one layer: numpy's default_rng(seed + 10007 * layer_id).integers(0,
// half_bound, N) * 2 + 1.
std::vector<int64_t> LayerMultipliers(uint64_t seed, int layer_id, uint64_t compressed_vocab_size,
                                      int count);

// INVALID_ARGUMENT when the config gives no rule that finds rows: no Engram layers, or per-layer
// embeddings.
Status CheckCanHash(const EngramConfig& config);

// `compressed_vocab_size` must agree with the config's when that is not 0. `pad_compressed` is the
// mapped pad id.
Result<TableLayout> MakeLayout(const EngramConfig& config, uint64_t compressed_vocab_size,
                               int64_t pad_compressed, RowEncoding encoding);

}  // namespace engram::table
