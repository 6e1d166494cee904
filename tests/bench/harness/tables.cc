#include "tests/bench/harness/tables.h"

#include <algorithm>

#include "common/base/check.h"

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

Result<Tables> TablesOfSize(uint64_t mebibytes, uint64_t seed, uint32_t row_bytes) {
  ASSIGN_OR_RETURN(Tables tables, MakeTables((mebibytes << 20) / row_bytes, seed));
  if (tables.row_bytes() != row_bytes) {
    tables.layout.row_format = {table::RowEncoding::kBf16, static_cast<int>(row_bytes / 2)};
  }
  CHECK_EQ(tables.row_bytes(), row_bytes);
  return tables;
}

}  // namespace engram::bench
