// Ceilings in one thread: a bare prefetching gather, the product's own, and a plain copy.
#pragma once

#include <memory>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "memnode/store/table_plan.h"
#include "memnode/tables/arena.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/harness/tables.h"

namespace engram::bench {

// Rows one behind the other, layer 0 first, without checks, in huge pages: what a gather would read
// if it had nothing else to do. Written apart from the product on purpose.
class DenseTable {
 public:
  static Result<DenseTable> Make(const Tables& tables);
  const std::byte* layer(size_t index) const { return memory_.data() + offsets_[index]; }
  std::span<const std::byte> bytes() const { return memory_.bytes(); }
  size_t row_bytes() const { return row_bytes_; }
  PageBacking backing() const { return memory_.backing(); }

 private:
  AlignedBuffer memory_;
  size_t row_bytes_ = 0;
  std::array<uint64_t, kLayers> offsets_ = {};
};

// Rows are asked for 24 ahead of the copy, or 64 together before they are copied.
enum class BareLoop { kAhead, kTogether };
// Address by one multiplication, each row copied through 32-byte registers by code for rows of that
// size alone: 160, 264 or 1,364 bytes.
std::unique_ptr<BatchReader> MakeBareGather(const DenseTable& table, BareLoop loop);
// The same, 64 together, over an arena that holds every row: what a table of that size allows.
std::unique_ptr<BatchReader> MakeBareGather(const memnode::Arena& arena);
// As many bytes as a batch, from one place behind the other.
std::unique_ptr<BatchReader> MakeMemoryCopy(const DenseTable& table);

// The product's arena holding every row of a one-node cluster.
struct FilledArena {
  memnode::TablePlan plan;
  memnode::Arena arena;
};
Result<FilledArena> FillArena(const Tables& tables, bool shared);
// memnode::Arena::GatherRows: ids checked, partitions looked up, checks left behind.
std::unique_ptr<BatchReader> MakeArenaGather(const memnode::Arena& arena);

}  // namespace engram::bench
