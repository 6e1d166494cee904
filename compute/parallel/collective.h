// What the ranks of one engine do together: tensor and expert parallelism by exchanging whole
// outputs. No sum is ever cut over ranks, so that every bit is that of one rank alone.
//
// Every rank calls the same operations in the same order; one thread of it at a time. Seam: real
// ranks are processes (mpi_collective.h), the fake's are threads
// (tests/support/fakes/thread_collective.h).
//
// Failures stay: the first one (a rank that is gone, or did not come within the time) is kept in
// status(), and every later operation returns at once and leaves its data untouched. The caller
// checks status() before it uses a result.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "kernels/workspace.h"

namespace engram::parallel {

enum class Patience : uint8_t {
  kBusy,  // the others are expected within the time limit
  kIdle,  // the others have nothing to do perhaps: as long as it takes
};

// What a rank's operations came to since the start.
struct Exchange {
  Nanos time = Nanos::zero();  // in them, waiting for the others included; not with Patience::kIdle
  int64_t bytes = 0;           // gathered, all ranks' together, or broadcast
};

class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;  // 0 leads
  virtual int size() const = 0;
  // `all` holds a block of blocks[r] floats for each rank r, one behind the other. The caller has
  // filled in its own; afterwards the others' are there, too.
  void AllGather(std::span<float> all, std::span<const int64_t> blocks);
  // Rank 0's bytes become every rank's.
  void Broadcast(std::vector<std::byte>& bytes, Patience patience);
  virtual Status status() const = 0;
  const Exchange& exchange() const { return exchange_; }  // of the thread that calls the above

 private:
  virtual void Gather(std::span<float> all, std::span<const int64_t> blocks) = 0;
  virtual void Spread(std::vector<std::byte>& bytes, Patience patience) = 0;
  Exchange exchange_;
};

// A group of one: operations do nothing.
Collective& Solo();

// The part of [0, count) that is one rank's: parts ascend with the rank and differ by at most one
// unit. Cuts are at multiples of `unit` where there is one for each rank, else anywhere.
struct Slice {
  int64_t first = 0;
  int64_t count = 0;
  int64_t end() const { return first + count; }
};
inline Slice SliceOf(int64_t count, int rank, int size, int64_t unit = 1) {
  if (count < unit * size) unit = 1;
  const int64_t units = (count + unit - 1) / unit;
  const int64_t first = units * rank / size * unit;
  return {first, std::min(count, units * (rank + 1) / size * unit) - first};
}
inline Slice SliceOf(int64_t count, const Collective& ranks, int64_t unit = 1) {
  return SliceOf(count, ranks.rank(), ranks.size(), unit);
}

// Of `all` [rows, columns] each rank has `mine` [rows, SliceOf(columns, its rank, unit)].
void GatherColumns(Collective& ranks, kernels::Workspace& memory, std::span<const float> mine,
                   int64_t rows, int64_t unit, std::span<float> all);

}  // namespace engram::parallel
