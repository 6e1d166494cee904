// Procedural tables: row content = f(seed, layer, row), so that a table set of any size can be
// served and every byte of it verified without a checkpoint or storage.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/base/status.h"
#include "common/table/engram_config.h"
#include "common/table/identity.h"
#include "common/table/layout.h"

namespace engram::table {

struct ProceduralSpec {
  // "v41": 2 layers x 3 orders x 8 heads of 16,000,000 rows, 264-byte fp8 rows (DeepSeek-V4.1-
  // Flash); "paper": 2 layers x 2 orders x 8 heads of 2,262,400 rows, 160-byte bf16 rows;
  // "qwen-ple", "qwen-ple-fp8": 1 layer of 128 shards of 2,500,012 rows asked for by number, 320
  // bytes bf16 or 160 bytes fp8 without scales.
  std::string layout;
  double rows_scale = 1;  // of the requested rows of every column or shard, 1e-6..1
  uint64_t seed = 1;
};

inline constexpr uint32_t kPleShards = 128;

// The config a layout comes from, rows scaled; not for qwen-ple. INVALID_ARGUMENT names the field.
Result<EngramConfig> MakeProceduralConfig(const ProceduralSpec& spec);

// Multipliers and primes by the same rule as any model's; at rows_scale 1 those of the released
// one. INVALID_ARGUMENT names the field.
Result<TableLayout> MakeProceduralLayout(const ProceduralSpec& spec);

// Its identity: model "procedural-<layout>-<seed>", version "1". The content digest is left empty.
TableIdentity MakeProceduralIdentity(const ProceduralSpec& spec, const TableLayout& layout);

// The row's bytes; out.size() == format.row_bytes(). Values are finite and below 2 in magnitude.
// Frozen by tests. About 20 ns for 264 bytes.
void FillProceduralRow(const RowFormat& format, uint64_t seed, uint32_t layer_index, uint64_t row,
                       std::span<std::byte> out);

}  // namespace engram::table
