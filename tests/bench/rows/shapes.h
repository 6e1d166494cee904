// Rows of the sizes others publish in the batches they publish: 160, 264 and 1,364 bytes in 48,
// 3,072 and 98,304.
#pragma once

#include "common/base/status.h"
#include "common/io/json.h"
#include "tests/bench/rows/rows_bench.h"

namespace engram::bench {

// One table of `table_mib` for each row size, in shared memory; prints a table, one entry a size
// and batch. Legs of one row size alternate.
Result<json::array> RunShapes(const RowsOptions& options);

}  // namespace engram::bench
