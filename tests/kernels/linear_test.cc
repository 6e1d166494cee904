// The matrix products: cpu and ref bit for bit, both against float64 within the bound stated in
// ops.h.
#include <gtest/gtest.h>

#include "kernels/cpu/scores.h"
#include "kernels/isa.h"
#include "kernels/ops.h"
#include "tests/kernels/random.h"

namespace engram::kernels {
namespace {

struct Shape {
  int64_t tokens, rows, columns;
};

Shape RandomShape(Rng& rng) {
  return {RandomBetween(rng, 1, 9), RandomBetween(rng, 1, 40), RandomBetween(rng, 1, 150)};
}

// Weights as stored, and what they are worth.
struct RandomWeights {
  RandomWeights(Rng& rng, const Shape& s, bool bf16)
      : values(RandomFloats(rng, s.rows * s.columns)) {
    if (!bf16) return;
    stored = RandomBf16(rng, s.rows * s.columns);
    std::transform(stored.begin(), stored.end(), values.begin(), [](Bf16 v) { return ToFloat(v); });
  }
  Matrix matrix(const Shape& s) const {
    return stored.empty() ? MatrixOf(values, s.rows, s.columns)
                          : MatrixOf(stored, s.rows, s.columns);
  }
  std::vector<float> values;
  std::vector<Bf16> stored;  // empty: fp32
};

// max over outputs of |y - exact| / (bound_factor * eps * sum |x w|), which must be <= 1.
double WorstLinear(const Shape& s, const std::vector<float>& x, const std::vector<float>& w,
                   const std::vector<float>& y) {
  double worst = 0;
  for (int64_t t = 0; t < s.tokens; ++t) {
    for (int64_t o = 0; o < s.rows; ++o) {
      double sum = 0, magnitude = 0;
      for (int64_t c = 0; c < s.columns; ++c) {
        const double product = static_cast<double>(x[static_cast<size_t>(t * s.columns + c)]) *
                               w[static_cast<size_t>(o * s.columns + c)];
        sum += product;
        magnitude += std::fabs(product);
      }
      const double bound = (static_cast<double>(s.columns) / 16 + 5) * kEps * magnitude;
      worst = std::max(worst, std::fabs(y[static_cast<size_t>(t * s.rows + o)] - sum) / bound);
    }
  }
  return worst;
}

TEST(Linear, EqualsFloat64WithinItsBoundAndTheReferenceBitForBit) {
  Rng rng(1);
  for (int i = 0; i < 200; ++i) {
    const Shape s = RandomShape(rng);
    const std::vector<float> x = RandomFloats(rng, s.tokens * s.columns);
    const RandomWeights random(rng, s, /*bf16=*/i % 2 == 0);
    const std::vector<float>& w = random.values;
    const Matrix matrix = random.matrix(s);
    std::vector<float> plain(static_cast<size_t>(s.tokens * s.rows)), fast(plain.size());
    ref::LinearRows({x.data(), s.tokens, s.columns}, matrix, plain.data(), s.rows);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      UseIsa(isa);
      LinearRows({x.data(), s.tokens, s.columns}, matrix, fast.data(), s.rows);
      ASSERT_EQ(plain, fast) << IsaName(ActiveIsa()) << " " << s.tokens << " x " << s.rows << " x "
                             << s.columns;
    }
    ASSERT_LE(WorstLinear(s, x, w, plain), 1.0);
  }
}

TEST(Linear, ReadsWeightsAtAnyAlignment) {
  Rng rng(2);
  const std::vector<Bf16> w = RandomBf16(rng, 7 * 33);
  std::vector<std::byte> shifted(w.size() * 2 + 1);
  std::copy_n(reinterpret_cast<const std::byte*>(w.data()), w.size() * 2, shifted.data() + 1);
  const std::vector<float> x = RandomFloats(rng, 33);
  std::vector<float> aligned(7), unaligned(7);
  LinearRows({x.data(), 1, 33}, MatrixOf(w, 7, 33), aligned.data(), 7);
  LinearRows({x.data(), 1, 33}, {shifted.data() + 1, DType::kBf16, 7, 33, 33}, unaligned.data(), 7);
  EXPECT_EQ(aligned, unaligned);
}

TEST(Linear, ResultDoesNotDependOnThreadsOrBatch) {
  Rng rng(3);
  const int64_t tokens = 37, rows = 301, columns = 515;
  const std::vector<float> x = RandomFloats(rng, tokens * columns);
  const std::vector<Bf16> w = RandomBf16(rng, rows * columns);
  const Matrix matrix = MatrixOf(w, rows, columns);
  std::vector<float> one(static_cast<size_t>(tokens * rows));
  Pool single(1);
  Linear(single, x, matrix, one);
  for (const int threads : {2, 3}) {
    Pool pool(threads);
    std::vector<float> many(one.size());
    Linear(pool, x, matrix, many);
    EXPECT_EQ(one, many) << threads << " threads";
  }
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<float> alone(static_cast<size_t>(rows));
    Linear(single,
           std::span(x).subspan(static_cast<size_t>(t * columns), static_cast<size_t>(columns)),
           matrix, alone);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), one.begin() + t * rows)) << "token " << t;
  }
}

TEST(Transposed, EqualsFloat64WithinItsBoundAndTheReferenceBitForBit) {
  Rng rng(4);
  for (int i = 0; i < 200; ++i) {
    const Shape s = RandomShape(rng);
    const std::vector<float> x = RandomFloats(rng, s.tokens * s.rows);
    const RandomWeights random(rng, s, /*bf16=*/i % 2 == 0);
    const std::vector<float>& w = random.values;
    const Matrix matrix = random.matrix(s);
    std::vector<float> plain(static_cast<size_t>(s.tokens * s.columns)), fast(plain.size());
    ref::TransposedRows({x.data(), s.tokens, s.rows}, matrix, plain.data(), s.columns);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      UseIsa(isa);
      TransposedRows({x.data(), s.tokens, s.rows}, matrix, fast.data(), s.columns);
      ASSERT_EQ(plain, fast) << IsaName(ActiveIsa()) << " " << s.tokens << " x " << s.rows << " x "
                             << s.columns;
    }
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t c = 0; c < s.columns; ++c) {
        double sum = 0, magnitude = 0;
        for (int64_t r = 0; r < s.rows; ++r) {
          const double product = static_cast<double>(x[static_cast<size_t>(t * s.rows + r)]) *
                                 w[static_cast<size_t>(r * s.columns + c)];
          sum += product;
          magnitude += std::fabs(product);
        }
        ASSERT_NEAR(plain[static_cast<size_t>(t * s.columns + c)], sum,
                    static_cast<double>(s.rows) * kEps * magnitude);
      }
    }
  }
}

#if defined(__AVX2__) && defined(__FMA__)
TEST(Scores, OfQueriesLaidOutEqualTheReferenceBitForBit) {
  Rng rng(5);
  for (int i = 0; i < 200; ++i) {
    // Several blocks of 16 queries and of 64 keys, and parts of them.
    const Shape s{RandomBetween(rng, 1, 50), RandomBetween(rng, 1, 140),
                  RandomBetween(rng, 1, 150)};
    const std::vector<float> x = RandomFloats(rng, s.tokens * s.columns);
    const std::vector<float> keys = RandomFloats(rng, s.rows * s.columns);
    std::vector<float> plain(static_cast<size_t>(s.tokens * s.rows)), fast(plain.size());
    ref::LinearRows({x.data(), s.tokens, s.columns}, MatrixOf(keys, s.rows, s.columns),
                    plain.data(), s.rows);
    const int64_t blocks = (s.tokens + cpu::kScoreQueries - 1) / cpu::kScoreQueries;
    std::vector<float> memory(static_cast<size_t>(blocks * cpu::kScoreQueries * s.columns + 8));
    auto* queries = memory.data();
    while (reinterpret_cast<uintptr_t>(queries) % 32 != 0) ++queries;
    cpu::LayOutQueriesAvx2(x.data(), s.columns, s.tokens, s.columns, queries);
    cpu::ScoresAvx2(queries, s.tokens, {keys.data(), s.rows, s.columns, s.columns, nullptr},
                    fast.data(), s.rows);
    ASSERT_EQ(plain, fast) << s.tokens << " x " << s.rows << " x " << s.columns;
  }
}
#endif

}  // namespace
}  // namespace engram::kernels
