// Packing, and the products over packed weights by the active instruction set.
#include "kernels/packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/base/check.h"
#include "kernels/isa.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"
#include "kernels/weight_memory.h"

namespace engram::kernels {
namespace {

// Multiply-adds below which a second thread that is not asleep costs more than it saves: 3 us of
// reading weights.
constexpr int64_t kProductGrain = 32768;
// Rounding below this many values is not worth a second thread.
constexpr int64_t kRoundGrain = 16384;

cpu::PackedVersion VersionOf([[maybe_unused]] Isa isa) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16) {
    return {cpu::PackedProductAvx512Bf16, cpu::RoundRowBf16, sizeof(uint16_t)};
  }
  if (isa == Isa::kAvx512) return {cpu::PackedProductAvx512, cpu::RoundRowFloats, kFloat};
  if (isa == Isa::kAvx2) return {cpu::PackedProductAvx2, cpu::RoundRowFloats, kFloat};
#endif
  return {cpu::PackedProductScalar, cpu::RoundRowFloats, kFloat};
}

// Rows a power of two apart would share few sets of the first-level cache (64 tokens x 4096 by
// AVX2: 0.78 of the peak without).
constexpr int64_t kStridePad = 16;

void PackTile(const Matrix& w, int64_t tile, int64_t pairs, uint16_t* to) {
  const int64_t first = tile * cpu::kTileRows;
  for (int64_t r = 0; r < cpu::kTileRows && first + r < w.rows; ++r) {
    const std::byte* const from = w.row(first + r);
    for (int64_t p = 0; p < pairs; ++p) {
      const auto bytes = static_cast<size_t>(std::min<int64_t>(2, w.columns - 2 * p)) * 2;
      std::memcpy(to + (p * cpu::kTileRows + r) * 2, from + p * 4, bytes);
    }
  }
}

}  // namespace

cpu::PackedView PackedMatrix::view() const {
  return {reinterpret_cast<const uint16_t*>(packed_.data()),
          pair_ ? 2 * tiles() * cpu::kTileRows : rows_, (columns_ + 1) / 2};
}

Result<PackedMatrix> PackedMatrix::Make(Pool& pool, WeightMemory& memory,
                                        std::span<const Matrix* const> sources) {
  const Matrix& shape = *sources[0];
  for (const Matrix* source : sources) {
    CHECK(source->dtype == DType::kBf16) << DTypeName(source->dtype);
    CHECK(source->rows == shape.rows && source->columns == shape.columns);
  }
  PackedMatrix packed;
  packed.rows_ = shape.rows;
  packed.columns_ = shape.columns;
  packed.pair_ = sources.size() == 2;
  const int64_t pairs = (shape.columns + 1) / 2;
  const auto of_each = static_cast<int64_t>(sources.size());
  const int64_t tile_values = pairs * cpu::kTileRows * 2;
  const int64_t tiles = packed.tiles() * of_each;
  ASSIGN_OR_RETURN(const std::span<std::byte> bytes,
                   memory.Take(static_cast<size_t>(tiles * tile_values) * 2));
  packed.packed_ = bytes;
  auto* const to = reinterpret_cast<uint16_t*>(bytes.data());
  pool.Run(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      PackTile(*sources[static_cast<size_t>(tile % of_each)], tile / of_each, pairs,
               to + tile * tile_values);
    }
  });
  return packed;
}

Result<PackedMatrix> PackedMatrix::Pack(Pool& pool, WeightMemory& memory, const Matrix& w) {
  const Matrix* const source = &w;
  return Make(pool, memory, {&source, 1});
}

Result<PackedMatrix> PackedMatrix::PackPair(Pool& pool, WeightMemory& memory, const Matrix& gate,
                                            const Matrix& up) {
  const Matrix* const sources[] = {&gate, &up};
  return Make(pool, memory, sources);
}

void RoundedActivations::Resize(int64_t count, int64_t columns) {
  version_ = VersionOf(ActiveIsa());
  count_ = count;
  columns_ = columns;
  stride_ = (columns + 1) / 2 * 2 + kStridePad;
  values_.resize(static_cast<size_t>(count * stride_ * version_.value_bytes));
  if (columns % 2 == 0) return;
  for (int64_t i = 0; i < count; ++i) {
    std::memset(at(i, columns), 0, static_cast<size_t>(version_.value_bytes));
  }
}

void RoundedActivations::RoundPart(int64_t row, int64_t first_column,
                                   std::span<const float> values) {
  version_.round(values.data(), static_cast<int64_t>(values.size()), at(row, first_column));
}

void RoundedActivations::Gather(const RoundedActivations& from, std::span<const int32_t> rows) {
  Resize(static_cast<int64_t>(rows.size()), from.columns_);
  CHECK_EQ(version_.value_bytes, from.version_.value_bytes);
  const auto row_bytes = static_cast<size_t>(columns_ * version_.value_bytes);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(at(static_cast<int64_t>(i), 0), from.row(rows[i]), row_bytes);
  }
}

void RoundedActivations::Round(Pool& pool, std::span<const float> x, int64_t columns) {
  const int64_t count = static_cast<int64_t>(x.size()) / columns;
  CHECK_EQ(static_cast<int64_t>(x.size()), count * columns);
  Resize(count, columns);
  const auto width = static_cast<size_t>(columns);
  pool.Run(count, std::max<int64_t>(1, kRoundGrain / columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      RoundPart(i, 0, x.subspan(static_cast<size_t>(i) * width, width));
    }
  });
}

void LinearPacked(Pool& pool, const RoundedActivations& x, const PackedMatrix& w,
                  std::span<float> y) {
  const int64_t tokens = x.count();
  CHECK(!w.is_pair());
  CHECK_EQ(x.columns(), w.columns());
  CHECK_EQ(static_cast<int64_t>(y.size()), tokens * w.rows());
  const cpu::PackedProduct product = VersionOf(ActiveIsa()).product;
  const int64_t grain =
      std::max<int64_t>(1, kProductGrain / (w.columns() * cpu::kTileRows * tokens));
  pool.Run(w.tiles(), grain, [&](int64_t begin, int64_t end) {
    product(x.row(0), x.stride(), tokens, w.view(), begin, end, y.data() + begin * cpu::kTileRows,
            w.rows());
  });
}

void LinearPacked(Pool& pool, std::span<const float> x, const PackedMatrix& w, std::span<float> y) {
  static thread_local RoundedActivations rounded;
  rounded.Round(pool, x, w.columns());
  LinearPacked(pool, rounded, w, y);
}

namespace {

// One tile of gate beside one of up -> 64 values of the middle, rounded, for the group's tokens.
void GateTile(cpu::PackedProduct product, const ExpertGroup& group, const RoundedActivations& x,
              int64_t first, int64_t tile, RoundedActivations& middle) {
  static thread_local std::vector<float> sums;
  constexpr int64_t kWidth = 2 * cpu::kTileRows;
  sums.resize(static_cast<size_t>(group.count * kWidth));
  product(x.row(first), x.stride(), group.count, group.gate_up->view(), 2 * tile, 2 * tile + 2,
          sums.data(), kWidth);
  const int64_t outputs = std::min(cpu::kTileRows, group.gate_up->rows() - tile * cpu::kTileRows);
  for (int64_t t = 0; t < group.count; ++t) {
    float* const gate = sums.data() + t * kWidth;
    SwiGlu({gate, static_cast<size_t>(outputs)},
           {gate + cpu::kTileRows, static_cast<size_t>(outputs)});
    middle.RoundPart(t, tile * cpu::kTileRows, {gate, static_cast<size_t>(outputs)});
  }
}

struct Task {
  size_t group;
  int64_t tile;
};

}  // namespace

void GatedExperts(Pool& pool, std::span<const ExpertGroup> groups, const RoundedActivations& x,
                  std::span<const int32_t> rows, std::span<float> out) {
  if (groups.empty()) return;
  static thread_local RoundedActivations gathered;
  static thread_local std::vector<RoundedActivations> middles;
  static thread_local std::vector<Task> tasks;
  const int64_t width = groups[0].gate_up->columns();
  if (!rows.empty()) gathered.Gather(x, rows);
  const RoundedActivations& activations = rows.empty() ? x : gathered;
  if (middles.size() < groups.size()) middles.resize(groups.size());
  std::vector<RoundedActivations>& middle = middles;
  std::vector<Task>& work = tasks;
  std::vector<int64_t> first(groups.size());
  int64_t entries = 0;
  work.clear();
  for (size_t g = 0; g < groups.size(); ++g) {
    first[g] = entries;
    entries += groups[g].count;
    middle[g].Resize(groups[g].count, groups[g].gate_up->rows());
    for (int64_t tile = 0; tile < groups[g].gate_up->tiles(); ++tile) work.push_back({g, tile});
  }
  CHECK(activations.columns() == width && activations.count() == entries)
      << activations.count() << " x " << activations.columns();
  CHECK_EQ(static_cast<int64_t>(out.size()), entries * width);
  const cpu::PackedProduct product = VersionOf(ActiveIsa()).product;
  pool.HandOut(static_cast<int64_t>(work.size()), [&](int64_t i) {
    const Task& task = work[static_cast<size_t>(i)];
    GateTile(product, groups[task.group], activations, first[task.group], task.tile,
             middle[task.group]);
  });
  work.clear();
  for (size_t g = 0; g < groups.size(); ++g) {
    for (int64_t tile = 0; tile < groups[g].down->tiles(); ++tile) work.push_back({g, tile});
  }
  pool.HandOut(static_cast<int64_t>(work.size()), [&](int64_t i) {
    const Task& task = work[static_cast<size_t>(i)];
    const ExpertGroup& group = groups[task.group];
    product(middle[task.group].row(0), middle[task.group].stride(), group.count, group.down->view(),
            task.tile, task.tile + 1,
            out.data() + first[task.group] * width + task.tile * cpu::kTileRows, width);
  });
}

}  // namespace engram::kernels
