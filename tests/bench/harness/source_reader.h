// Batches read as a compute engine reads its rows: one step of both layers, one ticket.
#pragma once

#include <memory>

#include "common/client/row_source.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

// Up to `depth` steps at a time; `source` outlives it.
std::unique_ptr<BatchReader> MakeSourceReader(client::RowSource& source, size_t depth);

}  // namespace engram::bench
