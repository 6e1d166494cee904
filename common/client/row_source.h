// RowSource: where a compute engine's Engram rows come from. One seam, two real sources: the tables
// in this process (local_table.h) and a cluster of memory nodes (lookup_client.h). Bytes are
// identical.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/table/identity.h"
#include "common/table/layout.h"

namespace engram::client {

// The rows one Engram layer needs in one step. The caller owns both spans and keeps them valid and
// untouched until the ticket's Wait for this layer has returned (or the ticket is destroyed, which
// waits or detaches first).
struct LayerLookup {
  uint32_t layer_index = 0;        // into TableLayout::layers
  std::span<const uint64_t> rows;  // row ids, duplicates allowed
  std::span<std::byte> out;        // [rows.size() * row_bytes], row i at i * row_bytes
};

// Exact counts since the source was made; every field only grows.
struct SourceStats {
  uint64_t rows_asked = 0;     // before duplicates are removed
  uint64_t rows_distinct = 0;  // after, per (step, layer)
  struct Node {
    std::string name;
    uint64_t rows_fetched = 0;
    uint64_t bytes_fetched = 0;  // row bytes in replies
    uint64_t requests = 0;
  };
  std::vector<Node> nodes;  // empty for an in-process source
};

// One step's lookup under way. Not thread-safe: one owner. Destroying it before every layer was
// waited for gives the rows up; it returns only when nothing will be written into the caller's
// buffers any more.
class Ticket {
 public:
  virtual ~Ticket() = default;
  // Blocks until the layer's rows are all in place, its error is known, or the ticket's deadline
  // has passed. UNAVAILABLE / DEADLINE_EXCEEDED / DATA_LOSS name the node and how many rows are
  // missing. Idempotent.
  virtual Status Wait(uint32_t layer_index) = 0;
  // True when Wait would return at once.
  virtual bool Ready(uint32_t layer_index) const = 0;
};

class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual const table::TableIdentity& identity() const = 0;
  // Starts fetching all layers of one step; the earliest layer first. Returns at once. `deadline`
  // is absolute on the monotonic clock. Each layer_index at most once. Thread-safe.
  virtual Result<std::unique_ptr<Ticket>> Submit(std::span<const LayerLookup> layers,
                                                 TimePoint deadline) = 0;
  virtual SourceStats stats() const = 0;
};

}  // namespace engram::client
