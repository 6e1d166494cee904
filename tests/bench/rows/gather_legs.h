// Ceilings in one thread: a bare prefetching gather, the product's own, and a plain copy, all over
// one arena: the same loop over another piece of memory differs by a quarter and more.
#pragma once

#include <memory>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "memnode/store/table_plan.h"
#include "memnode/tables/arena.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/harness/tables.h"

namespace engram::bench {

// The product's arena holding every row of a one-node cluster.
struct FilledArena {
  memnode::TablePlan plan;
  memnode::Arena arena;
};
Result<FilledArena> FillArena(const Tables& tables, bool shared);

// Rows are asked for 24 ahead of the copy, or 64 together before they are copied.
enum class BareLoop { kAhead, kTogether };
// What a gather would do if it had nothing else to do, at the addresses the product reads: one
// multiplication a row, each row copied through 32-byte registers by code for rows of that size
// alone: 160, 264 or 1,364 bytes. Written apart from the product on purpose.
std::unique_ptr<BatchReader> MakeBareGather(const memnode::Arena& arena, BareLoop loop);
// As many bytes as a batch, from one place behind the other.
std::unique_ptr<BatchReader> MakeMemoryCopy(const memnode::Arena& arena);

// memnode::Arena::GatherRows: ids checked, partitions looked up, checks left behind.
std::unique_ptr<BatchReader> MakeArenaGather(const memnode::Arena& arena);

}  // namespace engram::bench
