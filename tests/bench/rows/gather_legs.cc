#include "tests/bench/rows/gather_legs.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/check.h"
#include "common/table/identity.h"
#include "common/table/placement.h"
#include "tests/bench/harness/machine.h"

namespace engram::bench {
namespace {

constexpr size_t kAhead = 24;
constexpr size_t kTogether = 64;
constexpr uint64_t kRowsPerFill = 4096;

// A reader that has its rows when Begin returns.
class InstantReader : public BatchReader {
 public:
  Status End() override { return OkStatus(); }
};

// A register of 32 bytes, from anywhere. Not memcpy: gcc 12 makes `rep movsq` of one of 264 bytes,
// which is 2.5 to 3 times slower, and two 16-byte moves of one of 32.
using Piece [[gnu::vector_size(32), gnu::aligned(1), gnu::may_alias]] = char;

// The row size is known when compiled: the loop is to be as bare as it can be.
template <size_t kRowBytes, BareLoop kLoop>
class BareGather : public InstantReader {
 public:
  BareGather(const std::array<const std::byte*, kLayers>& bases, size_t stride)
      : bases_(bases), stride_(stride) {}

  Status Begin(const Batch& batch, std::span<std::byte> out) override {
    std::byte* to = out.data();
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const std::byte* const base = bases_[layer];
      const std::span<const uint64_t> rows = batch.rows[layer];
      const size_t count = rows.size();
      if (kLoop == BareLoop::kTogether) {
        for (size_t first = 0; first < count; first += kTogether) {
          const auto block = rows.subspan(first, std::min(kTogether, count - first));
          for (const uint64_t row : block) Prefetch(base + row * stride_);
          for (const uint64_t row : block) {
            Copy(to, base + row * stride_);
            to += kRowBytes;
          }
        }
        continue;
      }
      const size_t ahead = std::min(kAhead, count);
      for (size_t i = 0; i < ahead; ++i) Prefetch(base + rows[i] * stride_);
      for (size_t i = 0; i < count - ahead; ++i, to += kRowBytes) {
        Prefetch(base + rows[i + kAhead] * stride_);
        Copy(to, base + rows[i] * stride_);
      }
      for (size_t i = count - ahead; i < count; ++i, to += kRowBytes) {
        Copy(to, base + rows[i] * stride_);
      }
    }
    return OkStatus();
  }

 private:
  static_assert(kRowBytes >= sizeof(Piece));

  static void Prefetch(const std::byte* row) {
    for (size_t at = 0; at < kRowBytes; at += 64) __builtin_prefetch(row + at);
    __builtin_prefetch(row + kRowBytes - 1);
  }
  static void CopyPiece(std::byte* to, const std::byte* from) {
    *reinterpret_cast<Piece*>(to) = *reinterpret_cast<const Piece*>(from);
  }
  static void Copy(std::byte* to, const std::byte* from) {
    constexpr size_t kLast = kRowBytes - sizeof(Piece);
#pragma GCC unroll 64
    for (size_t at = 0; at < kLast; at += sizeof(Piece)) CopyPiece(to + at, from + at);
    CopyPiece(to + kLast, from + kLast);
  }

  const std::array<const std::byte*, kLayers> bases_;
  const size_t stride_;
};

using Bases = std::array<const std::byte*, kLayers>;

template <size_t kRowBytes>
std::unique_ptr<BatchReader> MakeBare(BareLoop loop, const Bases& bases, size_t stride) {
  if (loop == BareLoop::kAhead) {
    return std::make_unique<BareGather<kRowBytes, BareLoop::kAhead>>(bases, stride);
  }
  return std::make_unique<BareGather<kRowBytes, BareLoop::kTogether>>(bases, stride);
}

std::unique_ptr<BatchReader> MakeBare(size_t row_bytes, BareLoop loop, const Bases& bases,
                                      size_t stride) {
  switch (row_bytes) {
    case 160:
      return MakeBare<160>(loop, bases, stride);
    case 264:
      return MakeBare<264>(loop, bases, stride);
    case 1364:
      return MakeBare<1364>(loop, bases, stride);
    default:
      CHECK(false) << "no bare gather of rows of " << row_bytes << " bytes";
      return nullptr;
  }
}

class MemoryCopy : public InstantReader {
 public:
  explicit MemoryCopy(const memnode::Arena& arena) : from_(arena.bytes()) {}

  Status Begin(const Batch&, std::span<std::byte> out) override {
    if (at_ + out.size() > from_.size()) at_ = 0;
    std::memcpy(out.data(), from_.data() + at_, std::min(out.size(), from_.size()));
    at_ += out.size();
    return OkStatus();
  }

 private:
  const std::span<const std::byte> from_;
  size_t at_ = 0;
};

class ArenaGather : public InstantReader {
 public:
  explicit ArenaGather(const memnode::Arena& arena) : arena_(arena) {}

  Status Begin(const Batch& batch, std::span<std::byte> out) override {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      const size_t bytes = batch.rows[layer].size() * arena_.row_bytes();
      RETURN_IF_ERROR(arena_.GatherRows(layer, batch.rows[layer], out.first(bytes)));
      out = out.subspan(bytes);
    }
    return OkStatus();
  }

 private:
  const memnode::Arena& arena_;
};

}  // namespace

std::unique_ptr<BatchReader> MakeBareGather(const memnode::Arena& arena, BareLoop loop) {
  std::array<const std::byte*, kLayers> bases = {};
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const uint64_t first = 0;
    CHECK(arena.Find(layer, {&first, 1}, {&bases[layer], 1}).ok());
  }
  return MakeBare(arena.row_bytes(), loop, bases, arena.stored_row_bytes());
}

std::unique_ptr<BatchReader> MakeMemoryCopy(const memnode::Arena& arena) {
  return std::make_unique<MemoryCopy>(arena);
}

Result<FilledArena> FillArena(const Tables& tables, bool shared) {
  FilledArena filled;
  const table::TableIdentity identity = table::MakeProceduralIdentity(tables.spec, tables.layout);
  ASSIGN_OR_RETURN(filled.plan, memnode::MakePlan(identity, {.epoch = 1, .members = {"m0"}}, "m0"));
  memnode::ArenaOptions options;
  options.shared = shared;
  ASSIGN_OR_RETURN(filled.arena, memnode::Arena::Allocate(filled.plan, options));
  const size_t row_bytes = tables.row_bytes();
  std::vector<std::byte> rows(kRowsPerFill * row_bytes);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const table::LayerPartitions& cut = filled.plan.layers[layer].cut;
    for (uint32_t partition = 0; partition < cut.partition_count; ++partition) {
      const uint64_t count = cut.RowCount(partition);
      for (uint64_t first = 0; first < count; first += kRowsPerFill) {
        const uint64_t some = std::min(kRowsPerFill, count - first);
        for (uint64_t i = 0; i < some; ++i) {
          table::FillProceduralRow(tables.layout.row_format, tables.spec.seed, layer,
                                   cut.FirstRow(partition) + first + i,
                                   std::span(rows).subspan(i * row_bytes, row_bytes));
        }
        filled.arena.PutRows(layer, partition, first, std::span(rows).first(some * row_bytes));
      }
      if (Interrupted()) return Cancelled("interrupted");
    }
  }
  return filled;
}

std::unique_ptr<BatchReader> MakeArenaGather(const memnode::Arena& arena) {
  return std::make_unique<ArenaGather>(arena);
}

}  // namespace engram::bench
