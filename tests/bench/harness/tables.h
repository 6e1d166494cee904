// The rows of a benchmark: a procedural table set of two layers, cut to a size.
#pragma once

#include <cstdint>

#include "common/base/status.h"
#include "common/table/procedural.h"

namespace engram::bench {

struct Tables {
  table::ProceduralSpec spec;
  table::TableLayout layout;

  uint64_t row_count() const { return layout.layers[0].total_rows + layout.layers[1].total_rows; }
  uint32_t row_bytes() const { return layout.row_format.row_bytes(); }
};

// "v41", 264-byte rows: about `rows` of both layers together; primes decide exactly.
Result<Tables> MakeTables(uint64_t rows, uint64_t seed);
// The same by the size of its rows together; `row_bytes` of 264, or even: bf16 values then.
Result<Tables> TablesOfSize(uint64_t mebibytes, uint64_t seed, uint32_t row_bytes = 264);

}  // namespace engram::bench
