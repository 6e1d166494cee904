#include "tests/bench/harness/tables.h"

#include <algorithm>

namespace engram::bench {

Result<Tables> MakeTables(uint64_t rows, uint64_t seed) {
  constexpr double kRowsAtScale1 = 2.0 * 24 * 16'000'000;
  Tables tables;
  tables.spec.layout = "v41";
  tables.spec.rows_scale = std::min(1.0, static_cast<double>(rows) / kRowsAtScale1);
  tables.spec.seed = seed;
  ASSIGN_OR_RETURN(tables.layout, table::MakeProceduralLayout(tables.spec));
  return tables;
}

Result<Tables> TablesOfSize(uint64_t mebibytes, uint64_t seed) {
  constexpr uint64_t kRowBytes = 264;
  return MakeTables((mebibytes << 20) / kRowBytes, seed);
}

}  // namespace engram::bench
