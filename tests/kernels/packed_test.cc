// Products over packed bf16 weights: every instruction set against float64, random shapes, and the
// same bits however the work is cut.
#include "kernels/packed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "kernels/isa.h"
#include "kernels/ops.h"
#include "kernels/weight_memory.h"
#include "tests/kernels/random.h"

namespace engram::kernels {
namespace {

WeightMemory& Memory() {
  static WeightMemory memory;
  return memory;
}

PackedMatrix Packed(const Matrix& w) {
  Pool pool(1);
  auto packed = PackedMatrix::Pack(pool, Memory(), w);
  CHECK(packed.ok());
  return std::move(*packed);
}

class PackedByIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!IsSupported(GetParam())) GTEST_SKIP() << "this processor lacks " << IsaName(GetParam());
    UseIsa(GetParam());
  }
  void TearDown() override { UseIsa(BestIsa()); }
};

TEST_P(PackedByIsa, RandomShapesAgreeWithFloat64) {
  Rng rng(1);
  for (int shape = 0; shape < 60; ++shape) {
    const auto tokens = static_cast<int64_t>(1 + rng.NextBelow(shape % 4 == 0 ? 40 : 9));
    const auto rows = static_cast<int64_t>(1 + rng.NextBelow(200));
    const auto columns = static_cast<int64_t>(1 + rng.NextBelow(shape % 3 == 0 ? 700 : 90));
    const std::vector<Bf16> weights = RandomBf16(rng, rows * columns);
    const std::vector<float> x = RandomFloats(rng, tokens * columns);
    std::vector<float> y(static_cast<size_t>(tokens * rows), NAN);
    Pool pool(1 + shape % 3);
    LinearPacked(pool, x, Packed(MatrixOf(weights, rows, columns)), y);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t o = 0; o < rows; ++o) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const double product = double{ToFloat(ToBf16(x[static_cast<size_t>(t * columns + c)]))} *
                                 double{ToFloat(weights[static_cast<size_t>(o * columns + c)])};
          sum += product;
          magnitude += std::fabs(product);
        }
        ASSERT_NEAR(y[static_cast<size_t>(t * rows + o)], sum,
                    static_cast<double>(columns + 1) * kEps * magnitude)
            << tokens << "x" << rows << "x" << columns << " at " << t << ", " << o;
      }
    }
  }
}

TEST_P(PackedByIsa, TokensThreadsAndNeighboursChangeNoBit) {
  Rng rng(2);
  const int64_t rows = 333, columns = 1001, tokens = 23;
  const std::vector<Bf16> weights = RandomBf16(rng, rows * columns);
  const std::vector<float> x = RandomFloats(rng, tokens * columns);
  const PackedMatrix packed = Packed(MatrixOf(weights, rows, columns));
  std::vector<float> together(static_cast<size_t>(tokens * rows));
  Pool two(2), one(1);
  LinearPacked(two, x, packed, together);
  for (int64_t first = 0; first < tokens;) {
    const auto count =
        std::min<int64_t>(tokens - first, static_cast<int64_t>(1 + rng.NextBelow(9)));
    std::vector<float> y(static_cast<size_t>(count * rows));
    LinearPacked(one,
                 std::span(x).subspan(static_cast<size_t>(first * columns),
                                      static_cast<size_t>(count * columns)),
                 packed, y);
    EXPECT_TRUE(std::equal(y.begin(), y.end(), together.begin() + first * rows)) << first;
    first += count;
  }
}

// What a group gives, by products of its own and float64 in between.
void ExpectGated(const std::vector<Bf16>& gate, const std::vector<Bf16>& up,
                 const std::vector<Bf16>& down, int64_t width, int64_t inner,
                 std::span<const float> x, std::span<const float> out) {
  std::vector<double> middle(static_cast<size_t>(inner));
  for (int64_t i = 0; i < inner; ++i) {
    double g = 0, u = 0;
    for (int64_t c = 0; c < width; ++c) {
      const double value = ToFloat(ToBf16(x[static_cast<size_t>(c)]));
      g += value * double{ToFloat(gate[static_cast<size_t>(i * width + c)])};
      u += value * double{ToFloat(up[static_cast<size_t>(i * width + c)])};
    }
    middle[static_cast<size_t>(i)] = g / (1 + std::exp(-g)) * u;
  }
  for (int64_t o = 0; o < width; ++o) {
    double sum = 0, magnitude = 0;
    for (int64_t i = 0; i < inner; ++i) {
      const double product = middle[static_cast<size_t>(i)] *
                             double{ToFloat(down[static_cast<size_t>(o * inner + i)])};
      sum += product;
      magnitude += std::fabs(product);
    }
    // The middle's rounding to bf16, 2^-9 of each, dominates.
    ASSERT_NEAR(out[static_cast<size_t>(o)], sum, 0x1p-8 * magnitude) << o;
  }
}

TEST_P(PackedByIsa, GroupedExpertsAgreeWithFloat64AndWithThemselvesAlone) {
  Rng rng(3);
  const int64_t width = 130, inner = 75;
  const int64_t counts[] = {1, 7, 2, 13};
  Pool pool(2);
  struct Expert {
    std::vector<Bf16> gate, up, down;
    PackedMatrix gate_up, packed_down;
  };
  std::vector<Expert> experts(4);
  std::vector<ExpertGroup> groups;
  int64_t total = 0;
  for (size_t e = 0; e < 4; ++e) {
    Expert& expert = experts[e];
    expert.gate = RandomBf16(rng, inner * width, 0.1);
    expert.up = RandomBf16(rng, inner * width, 0.1);
    expert.down = RandomBf16(rng, width * inner, 0.1);
    expert.gate_up = std::move(*PackedMatrix::PackPair(
        pool, Memory(), MatrixOf(expert.gate, inner, width), MatrixOf(expert.up, inner, width)));
    expert.packed_down = Packed(MatrixOf(expert.down, width, inner));
    groups.push_back({&expert.gate_up, &expert.packed_down, counts[e]});
    total += counts[e];
  }
  const std::vector<float> x = RandomFloats(rng, total * width);
  std::vector<float> out(x.size());
  RoundedActivations rounded(pool.memory(), total, width);
  rounded.Round(pool, x);
  std::vector<int32_t> rows(total);
  std::iota(rows.begin(), rows.end(), 0);
  GatedExperts(pool, groups, rounded, rows, out);
  // A group for which no rows are named begins with the first.
  std::vector<float> unnamed(out.size());
  GatedExperts(pool, groups, rounded, std::span(rows).first(total - counts[3]), unnamed);
  std::vector<float> first(counts[3] * width);
  const ExpertGroup last = groups[3];
  GatedExperts(pool, {&last, 1}, rounded, std::span(rows).first(counts[3]), first);
  const auto named = out.end() - counts[3] * width;
  EXPECT_TRUE(std::equal(out.begin(), named, unnamed.begin()));
  EXPECT_TRUE(std::equal(first.begin(), first.end(), unnamed.end() - counts[3] * width));
  int64_t row = 0;
  Pool one(1);
  for (size_t e = 0; e < 4; ++e) {
    for (int64_t t = 0; t < counts[e]; ++t, ++row) {
      const auto at = static_cast<size_t>(row * width);
      const std::span<const float> token = std::span(x).subspan(at, static_cast<size_t>(width));
      ExpectGated(experts[e].gate, experts[e].up, experts[e].down, width, inner, token,
                  std::span(out).subspan(at, static_cast<size_t>(width)));
      std::vector<float> alone(static_cast<size_t>(width));
      const ExpertGroup group{&experts[e].gate_up, &experts[e].packed_down, 1};
      const auto of_token = static_cast<int32_t>(row);
      GatedExperts(one, {&group, 1}, rounded, {&of_token, 1}, alone);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), out.begin() + row * width)) << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, PackedByIsa, testing::ValuesIn(kAllIsas),
                         [](const auto& param_info) {
                           return std::string(IsaName(param_info.param));
                         });

TEST(Packed, ScalarAvx2AndAvx512GiveTheSameBits) {
  struct Shape {
    int64_t tokens, rows, columns;
  };
  std::vector<Shape> shapes = {{1, 130, 205},  {7, 50, 400},   {13, 300, 90}, {40, 16, 600},
                               {20, 1100, 70}, {96, 257, 515}, {97, 70, 66},  {131, 350, 270}};
  for (int64_t tokens = 1; tokens <= 26; ++tokens) shapes.push_back({tokens, 77, 267});
  Rng rng(4);
  Pool pool(1);
  for (const Shape& shape : shapes) {
    const std::vector<Bf16> weights = RandomBf16(rng, shape.rows * shape.columns);
    const std::vector<float> x = RandomFloats(rng, shape.tokens * shape.columns);
    const PackedMatrix packed = Packed(MatrixOf(weights, shape.rows, shape.columns));
    std::vector<float> scalar(static_cast<size_t>(shape.tokens * shape.rows)), fast(scalar.size());
    UseIsa(Isa::kScalar);
    LinearPacked(pool, x, packed, scalar);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      if (!IsSupported(isa)) continue;
      UseIsa(isa);
      LinearPacked(pool, x, packed, fast);
      EXPECT_EQ(scalar, fast) << IsaName(isa) << " " << shape.tokens << "x" << shape.rows << "x"
                              << shape.columns;
    }
    UseIsa(BestIsa());
  }
}

TEST(WeightMemory, TakesZerosBehindEachOtherAndCopiesRows) {
  WeightMemory memory;
  const auto first = memory.Take(100), second = memory.Take(64);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->size(), 100u);
  EXPECT_EQ(second->data(), first->data() + 128);  // aligned to 64
  EXPECT_EQ(std::count(first->begin(), first->end(), std::byte{0}), 100);
  const auto large = memory.Take(size_t{300} << 20);  // more than a chunk
  ASSERT_TRUE(large.ok());
  EXPECT_EQ(large->size(), size_t{300} << 20);

  Rng rng(5);
  const std::vector<Bf16> values = RandomBf16(rng, 6 * 10);
  Matrix part = MatrixOf(values, 6, 10);
  part.columns = 7;  // rows that do not touch
  const auto copy = memory.Copy(part);
  ASSERT_TRUE(copy.ok());
  EXPECT_EQ(copy->stride, 7);
  for (int64_t r = 0; r < 6; ++r) EXPECT_EQ(std::memcmp(copy->row(r), part.row(r), 14), 0) << r;
}

TEST(Packed, NamesAreThoseOfTheEnvironmentVariable) {
  EXPECT_EQ(IsaName(Isa::kScalar), "scalar");
  EXPECT_EQ(IsaName(Isa::kAvx2), "avx2");
  EXPECT_EQ(IsaName(Isa::kAvx512), "avx512");
  EXPECT_EQ(IsaName(Isa::kAvx512Bf16), "avx512_bf16");
  EXPECT_TRUE(IsSupported(BestIsa()));
}

TEST(IsaDeathTest, AnEnvironmentVariableThatNamesNoneIsSaid) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process that has not chosen yet
  EXPECT_EXIT(
      {
        setenv("ENGRAM_ISA", "sse", 1);
        std::exit(ActiveIsa() == BestIsa() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "ENGRAM_ISA=sse: no instructions of that name");
  EXPECT_EXIT(
      {
        setenv("ENGRAM_ISA", "scalar", 1);
        std::exit(ActiveIsa() == Isa::kScalar ? 0 : 1);
      },
      testing::ExitedWithCode(0), "^$");
}

}  // namespace
}  // namespace engram::kernels
