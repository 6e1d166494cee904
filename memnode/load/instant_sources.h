// Row sources that answer at once, in this process: one that does nothing, to measure the tester
// itself, and one that writes the right rows, to load no service.
#pragma once

#include <memory>

#include "memnode/load/tables.h"

namespace engram::memnode::load {

// Writes nothing; what it costs is what the tester costs.
std::unique_ptr<client::RowSource> MakeNoOpSource(const table::TableIdentity& identity);

// Writes the reference's rows before Submit returns. `reference` outlives it.
std::unique_ptr<client::RowSource> MakeReferenceSource(const table::TableIdentity& identity,
                                                       const RowReference& reference);

}  // namespace engram::memnode::load
