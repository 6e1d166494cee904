// The table set under load, from a checkpoint or procedural: its layout and identity, and the bytes
// every row must have.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "common/base/status.h"
#include "common/client/row_source.h"
#include "common/table/identity.h"
#include "common/table/layout.h"
#include "common/table/vocab_map.h"
#include "memnode/load/load_options.h"

namespace engram::memnode::load {

// The right bytes of any row. Reached by one thread at a time.
class RowReference {
 public:
  virtual ~RowReference() = default;
  // out.size() is the layout's row_bytes.
  virtual void Fill(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const = 0;
  // DATA_LOSS names the file that changed since it was opened: what Fill gave may be wrong.
  virtual Status CheckUnchanged() const { return OkStatus(); }
};

struct LoadTables {
  table::TableLayout layout;
  table::TableIdentity identity;            // content digest empty
  std::optional<table::VocabMap> map;       // of a checkpoint
  std::unique_ptr<RowReference> reference;  // null where not asked for
  std::string model_dir;                    // empty for procedural tables
};

// INVALID_ARGUMENT and NOT_FOUND name the folder, file or field. The table shards are opened only
// for `with_reference`.
Result<LoadTables> OpenTables(const TableOptions& options, bool with_reference);

Result<std::unique_ptr<RowReference>> OpenCheckpointReference(const std::string& model_dir,
                                                              const table::TableLayout& layout);
std::unique_ptr<RowReference> MakeProceduralReference(const table::TableLayout& layout,
                                                      uint64_t seed);

}  // namespace engram::memnode::load
