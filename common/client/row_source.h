// RowSource: where a compute engine's Engram rows come from. One seam, two real sources: the tables
// in this process (local_table.h) and a cluster of memory nodes (lookup/client.h). Bytes are
// identical.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/table/engram_config.h"
#include "common/table/identity.h"
#include "common/table/layout.h"

namespace engram::client {

// How a node orders what waits: a burst of one class never delays a better one by more than a
// chunk. Hints may be dropped.
enum class Priority : uint8_t { kDecode = 0, kPrefill = 1, kHint = 2 };

struct SubmitOptions {
  // Implicit: most callers have only a deadline.
  SubmitOptions(TimePoint end, Priority of = Priority::kDecode)  // NOLINT
      : deadline(end), priority(of) {}
  TimePoint deadline;  // of all layers; absolute, on the monotonic clock
  Priority priority;
};

// The paths a row can take to a client; one result.
enum class Path : uint8_t { kLocal = 0, kGather = 1, kOneSided = 2 };
inline constexpr size_t kPathCount = 3;
std::string_view PathName(Path path);  // "local" | "gather" | "one_sided"

// The rows one Engram layer needs in one step. The caller owns both spans and keeps them valid and
// untouched until the ticket's Wait for this layer has returned (or the ticket is destroyed, which
// waits or detaches first).
struct LayerLookup {
  uint32_t layer_index = 0;               // into TableLayout::layers
  std::span<const uint64_t> rows;         // row ids, duplicates allowed
  std::span<std::byte> out;               // [rows.size() * row_bytes], row i at i * row_bytes
  TimePoint deadline = TimePoint::max();  // when this layer is needed, if before the step's
};

// Exact counts since the source was made; every count only grows.
struct SourceStats {
  uint64_t rows_asked = 0;     // before duplicates are removed
  uint64_t rows_distinct = 0;  // after, per (step, layer); mapped memory is read with duplicates
  uint64_t rows_cached = 0;    // of those asked for, found in this process' cache
  // Requests to another owner of rows, after the one asked first had failed, or while it was late.
  uint64_t failovers = 0, hedges_sent = 0, hedges_won = 0;
  uint64_t reconnects = 0;  // of nodes that had been lost, or away from the beginning
  uint32_t epoch = 0;       // of the member list; 0: no cluster
  struct Node {
    std::string name;
    uint64_t rows_fetched = 0;
    uint64_t bytes_fetched = 0;  // rows with their checks, as they travelled
    uint64_t requests = 0;
    std::array<uint64_t, kPathCount> rows_by_path = {};  // indexed by Path; adds to rows_fetched
    Status status;         // of now: ok while the node answers; else its name and why it does not
    bool suspect = false;  // of now: silent while a request is late; asked last
  };
  std::vector<Node> nodes;  // empty for an in-process source
  Status served;            // of now: ok while each row has an owner that answers
};

// What a source keeps of a lookup under way: the inside of a ticket.
class PendingLookup {
 public:
  virtual Status Wait(uint32_t layer_index) = 0;
  virtual bool Ready(uint32_t layer_index) const = 0;
  virtual Nanos took() const { return Nanos::zero(); }
  // The ticket is gone. When this returns, nothing is written into the caller's buffers any more;
  // the object is deleted, or back in its pool.
  virtual void Release() { delete this; }
  virtual ~PendingLookup() = default;
};

// One step's lookup under way: a value that moves. Not thread-safe: one owner. Destroying it before
// every layer was waited for gives the rows up; it returns only when nothing will be written into
// the caller's buffers any more. May outlive its source.
class Ticket {
 public:
  Ticket() = default;  // of no lookup
  explicit Ticket(std::unique_ptr<PendingLookup> pending) : pending_(pending.release()) {}
  // Of a lookup whose rows are all in place.
  static Ticket Done(std::span<const LayerLookup> layers);

  // Blocks until the layer's rows are all in place, its error is known, or the ticket's deadline
  // has passed. UNAVAILABLE / DEADLINE_EXCEEDED / DATA_LOSS name the node and how many rows are
  // missing; INVALID_ARGUMENT: the layer was not asked for. Idempotent.
  Status Wait(uint32_t layer_index);
  // True when Wait would return at once.
  bool Ready(uint32_t layer_index) const {
    return pending_ == nullptr || pending_->Ready(layer_index);
  }
  // From Submit until the last layer was done; zero while it is not, or where it was at once.
  Nanos took() const { return pending_ == nullptr ? Nanos::zero() : pending_->took(); }

 private:
  struct Releaser {
    void operator()(PendingLookup* pending) const { pending->Release(); }
  };
  std::unique_ptr<PendingLookup, Releaser> pending_;
  uint64_t done_layers_ = 0;  // without a pending lookup: one bit a layer index
};
static_assert(table::kEngramLayersMax <= 64);

Status NotAskedFor(uint32_t layer_index);
// INVALID_ARGUMENT: a layer the table set has not, or twice, or a buffer that does not hold its
// rows. Row ids are not looked at.
Status CheckLookups(const table::TableLayout& layout, std::span<const LayerLookup> layers);

class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual const table::TableIdentity& identity() const = 0;
  // Starts fetching all layers of one step; the earliest layer first. Returns at once. Each
  // layer_index at most once. Thread-safe unless the source says otherwise.
  virtual Result<Ticket> Submit(std::span<const LayerLookup> layers,
                                const SubmitOptions& options) = 0;
  virtual SourceStats stats() const = 0;
};

}  // namespace engram::client
