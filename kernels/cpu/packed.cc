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
  constexpr int64_t kFloat = sizeof(float);
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
      std::memcpy(to + (p * cpu::kTileRows + r) * 2, from + p * 4,
                  std::min<int64_t>(2, w.columns - 2 * p) * 2);
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
  const int64_t of_each = std::ssize(sources);
  const int64_t tile_values = pairs * cpu::kTileRows * 2;
  const int64_t tiles = packed.tiles() * of_each;
  ASSIGN_OR_RETURN(const std::span<std::byte> bytes, memory.Take(tiles * tile_values * 2));
  packed.packed_ = bytes;
  auto* const to = reinterpret_cast<uint16_t*>(bytes.data());
  pool.Run(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      PackTile(*sources[tile % of_each], tile / of_each, pairs, to + tile * tile_values);
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

RoundedActivations::RoundedActivations(Workspace& memory, int64_t count, int64_t columns)
    : version_(VersionOf(ActiveIsa())),
      stride_((columns + 1) / 2 * 2 + kStridePad),
      count_(count),
      columns_(columns) {
  values_ = memory.Take<std::byte>(count * stride_ * version_.value_bytes).data();
  if (columns % 2 == 0) return;
  for (int64_t i = 0; i < count; ++i) std::memset(at(i, columns), 0, version_.value_bytes);
}

void RoundedActivations::Gather(const RoundedActivations& from, std::span<const int32_t> rows) {
  CHECK(std::ssize(rows) == count_ && columns_ == from.columns_);
  CHECK_EQ(version_.value_bytes, from.version_.value_bytes);
  for (int64_t i = 0; i < count_; ++i) {
    std::memcpy(at(i, 0), from.row(rows[i]), columns_ * version_.value_bytes);
  }
}

void RoundedActivations::Round(Pool& pool, std::span<const float> x) {
  CHECK_EQ(std::ssize(x), count_ * columns_);
  pool.Run(count_, std::max<int64_t>(1, kRoundGrain / columns_), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) RoundPart(i, 0, x.subspan(i * columns_, columns_));
  });
}

namespace {

std::span<const std::byte> BytesFrom(const PackedMatrix& w, int64_t tile) {
  const std::span all(reinterpret_cast<const std::byte*>(w.view().data), w.bytes());
  return all.subspan(w.bytes() / w.tiles() * tile);
}

}  // namespace

void Expect(Pool& pool, const PackedMatrix& w) {
  for (int s = 0; s < pool.threads(); ++s) pool.Expect(s, BytesFrom(w, pool.FirstOf(w.tiles(), s)));
}

void Expect(Pool& pool, const Matrix& w) {
  if (w.packed != nullptr) return Expect(pool, *w.packed);
  for (int s = 0; s < pool.threads() && w.data != nullptr; ++s) {
    const std::byte* const first = w.row(pool.FirstOf(w.rows, s));
    pool.Expect(s, std::span(first, w.row(w.rows)));
  }
}

void LinearPacked(Pool& pool, const RoundedActivations& x, std::span<const Product> products) {
  const int64_t tokens = x.count();
  const cpu::PackedProduct product = VersionOf(ActiveIsa()).product;
  int64_t tiles = 0;
  for (const Product& one : products) {
    CHECK(!one.w->packed->is_pair());
    CHECK_EQ(x.columns(), one.w->packed->columns());
    tiles += one.w->packed->tiles();
  }
  const auto multiply = [&](const Product& one, int64_t begin, int64_t end) {
    product(x.row(0), x.stride(), tokens, one.w->packed->view(), begin, end,
            one.y + begin * cpu::kTileRows, one.y_stride);
  };
  if (pool.threads() == 1 || tiles * x.columns() * cpu::kTileRows * tokens <= kProductGrain) {
    for (const Product& one : products) multiply(one, 0, one.w->packed->tiles());
    return;
  }
  pool.HandOut(tiles, [&](int64_t tile, int64_t) {
    const Product* one = products.data();
    for (; tile >= one->w->packed->tiles(); ++one) tile -= one->w->packed->tiles();
    multiply(*one, tile, tile + 1);
  });
}

void LinearPacked(Pool& pool, const RoundedActivations& x, const PackedMatrix& w,
                  std::span<float> y) {
  CHECK_EQ(std::ssize(y), x.count() * w.rows());
  Matrix matrix;
  matrix.packed = &w;
  const Product product{&matrix, y.data(), w.rows()};
  LinearPacked(pool, x, std::span(&product, 1));
}

void LinearPacked(Pool& pool, std::span<const float> x, const PackedMatrix& w, std::span<float> y) {
  const Workspace::Scope scope(pool.memory());
  RoundedActivations rounded(pool.memory(), std::ssize(x) / w.columns(), w.columns());
  rounded.Round(pool, x);
  LinearPacked(pool, rounded, w, y);
}

namespace {

constexpr int64_t kPairWidth = 2 * cpu::kTileRows;  // a tile of gate beside one of up

// One group on its way.
struct Gated {
  const PackedMatrix* gate_up;
  const PackedMatrix* down;
  const RoundedActivations* x;
  int64_t first_row;  // of x
  int64_t first_out;
  int64_t count;
  RoundedActivations middle;
};

// One tile of gate beside one of up -> 64 values of the middle, rounded, for the group's tokens.
void GateTile(cpu::PackedProduct product, Gated& group, int64_t tile, float* sums) {
  product(group.x->row(group.first_row), group.x->stride(), group.count, group.gate_up->view(),
          2 * tile, 2 * tile + 2, sums, kPairWidth);
  const int64_t outputs = std::min(cpu::kTileRows, group.gate_up->rows() - tile * cpu::kTileRows);
  for (int64_t t = 0; t < group.count; ++t, sums += kPairWidth) {
    const std::span gate(sums, outputs);
    SwiGlu(gate, std::span(sums + cpu::kTileRows, outputs));
    group.middle.RoundPart(t, tile * cpu::kTileRows, gate);
  }
}

struct Task {
  int64_t group;
  int64_t tile;
};

int64_t TilesOf(std::span<const Gated> groups, const PackedMatrix* Gated::*matrix) {
  int64_t tiles = 0;
  for (const Gated& group : groups) tiles += (group.*matrix)->tiles();
  return tiles;
}

void ExpectTiles(Pool& pool, std::span<const Gated> groups, const PackedMatrix* Gated::*matrix) {
  const int64_t tiles = TilesOf(groups, matrix);
  for (int s = 0; s < pool.threads(); ++s) {
    int64_t tile = pool.FirstOf(tiles, s);
    const Gated* group = groups.data();
    for (; tile >= (group->*matrix)->tiles(); ++group) tile -= (group->*matrix)->tiles();
    pool.Expect(s, BytesFrom(*(group->*matrix), tile));
  }
}

// Every tile of one matrix of each group, over the pool.
template <typename Body>
void ForTiles(Pool& pool, std::span<Gated> groups, const PackedMatrix* Gated::*matrix,
              const Body& body) {
  const Workspace::Scope scope(pool.memory());
  int64_t tiles = TilesOf(groups, matrix);
  const std::span<Task> tasks = pool.memory().Take<Task>(tiles);
  tiles = 0;
  for (int64_t g = 0; g < std::ssize(groups); ++g) {
    for (int64_t t = 0; t < (groups[g].*matrix)->tiles(); ++t) tasks[tiles++] = {g, t};
  }
  pool.HandOut(
      tiles, [&](int64_t i, int64_t share) { body(groups[tasks[i].group], tasks[i].tile, share); });
}

}  // namespace

void GatedExperts(Pool& pool, std::span<const ExpertGroup> groups, const RoundedActivations& x,
                  std::span<const int32_t> rows, std::span<float> out, const Matrix* next) {
  if (groups.empty()) return;
  Workspace& memory = pool.memory();
  const Workspace::Scope scope(memory);
  const int64_t width = x.columns();
  RoundedActivations gathered(memory, std::ssize(rows), width);
  gathered.Gather(x, rows);
  const std::span<Gated> gated = memory.Take<Gated>(std::ssize(groups));
  int64_t entries = 0, largest = 0;
  for (int64_t g = 0; g < std::ssize(groups); ++g) {
    const ExpertGroup& group = groups[g];
    CHECK(group.gate_up->columns() == width && group.down->rows() == width);
    const bool is_gathered = entries < std::ssize(rows);
    const RoundedActivations& from = is_gathered ? gathered : x;
    const int64_t first = is_gathered ? entries : 0;
    CHECK_LE(first + group.count, from.count());
    gated[g] = {group.gate_up,
                group.down,
                &from,
                first,
                entries,
                group.count,
                RoundedActivations(memory, group.count, group.gate_up->rows())};
    entries += group.count;
    largest = std::max(largest, group.count);
  }
  CHECK_EQ(std::ssize(out), entries * width);
  const cpu::PackedProduct product = VersionOf(ActiveIsa()).product;
  const std::span<float> sums = memory.Take<float>(pool.threads() * largest * kPairWidth);
  ExpectTiles(pool, gated, &Gated::down);
  ForTiles(pool, gated, &Gated::gate_up, [&](Gated& group, int64_t tile, int64_t share) {
    GateTile(product, group, tile, sums.data() + share * largest * kPairWidth);
  });
  if (next != nullptr) Expect(pool, *next);
  ForTiles(pool, gated, &Gated::down, [&](const Gated& group, int64_t tile, int64_t) {
    product(group.middle.row(0), group.middle.stride(), group.count, group.down->view(), tile,
            tile + 1, out.data() + group.first_out * width + tile * cpu::kTileRows, width);
  });
}

}  // namespace engram::kernels
