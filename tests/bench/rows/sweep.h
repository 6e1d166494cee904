// Does a row cost the same in a large table as in a small one? Each size in rounds that alternate
// with the smallest.
#pragma once

#include "common/base/status.h"
#include "common/io/json.h"
#include "tests/bench/rows/rows_bench.h"

namespace engram::bench {

// Prints a table; one entry a size. A size that does not fit into memory is skipped, and says so.
Result<json::array> RunSweep(const RowsOptions& options);

}  // namespace engram::bench
