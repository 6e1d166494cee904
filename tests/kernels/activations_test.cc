// Norms fused with what follows: the same as one after the other.
#include "kernels/activations.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "kernels/isa.h"
#include "kernels/weight_memory.h"
#include "tests/kernels/random.h"

namespace engram::kernels {
namespace {

TEST(NormedLinearRows, EqualsFloat64) {
  Rng rng(30);
  for (int shape = 0; shape < 40; ++shape) {
    const int64_t tokens = RandomBetween(rng, 1, 15), rows = RandomBetween(rng, 1, 30);
    const int64_t columns = RandomBetween(rng, 1, 300), stride = columns + shape % 3;
    const std::vector<float> x = RandomFloats(rng, tokens * stride);
    const std::vector<float> weight = RandomFloats(rng, columns);
    const std::vector<Bf16> w = RandomBf16(rng, rows * columns);
    std::vector<float> y(tokens * rows), scratch(kNormedTokens * columns);
    NormedLinearRows({x.data(), tokens, stride}, weight, 1e-6f, MatrixOf(w, rows, columns),
                     y.data(), rows, scratch);
    for (int64_t t = 0; t < tokens; ++t) {
      double squares = 0;
      for (int64_t c = 0; c < columns; ++c) {
        squares += std::pow(double{x[static_cast<size_t>(t * stride + c)]}, 2);
      }
      const double root = std::sqrt(squares / static_cast<double>(columns) + 1e-6);
      for (int64_t o = 0; o < rows; ++o) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const double product = double{x[static_cast<size_t>(t * stride + c)]} *
                                 double{weight[static_cast<size_t>(c)]} *
                                 double{ToFloat(w[static_cast<size_t>(o * columns + c)])};
          sum += product;
          magnitude += std::fabs(product);
        }
        const auto terms = static_cast<double>(columns);
        ASSERT_NEAR(y[static_cast<size_t>(t * rows + o)], sum / root,
                    (terms / 16 + 8 + terms / 32) * kEps * magnitude / root)
            << tokens << "x" << rows << "x" << columns;
      }
    }
  }
}

TEST(NormedLinearRows, NeighboursChangeNoBit) {
  Rng rng(31);
  const int64_t tokens = 13, rows = 24, columns = 200;
  const std::vector<float> x = RandomFloats(rng, tokens * columns);
  const std::vector<float> weight = RandomFloats(rng, columns);
  const std::vector<float> w = RandomFloats(rng, rows * columns);
  const Matrix matrix = MatrixOf(w, rows, columns);
  std::vector<float> together(tokens * rows), alone(together.size());
  std::vector<float> scratch(kNormedTokens * columns);
  NormedLinearRows({x.data(), tokens, columns}, weight, 1e-6f, matrix, together.data(), rows,
                   scratch);
  for (int64_t t = 0; t < tokens; ++t) {
    NormedLinearRows({x.data() + t * columns, 1, columns}, weight, 1e-6f, matrix,
                     alone.data() + t * rows, rows, scratch);
  }
  EXPECT_EQ(together, alone);
}

TEST(Activations, NormedAndRoundedInOnePassAreTheSameAsOneAfterTheOther) {
  Rng rng(32);
  const int64_t count = 37, width = 301, stride = 320;
  const std::vector<float> x = RandomFloats(rng, count * stride);
  const std::vector<float> weight = RandomFloats(rng, width);
  WeightMemory memory;
  Pool pool(2);
  const std::vector<Bf16> w = RandomBf16(rng, 70 * width);
  Matrix matrix = MatrixOf(w, 70, width);
  const auto packed = PackedMatrix::Pack(pool, memory, matrix);
  ASSERT_TRUE(packed.ok());
  std::vector<float> normed(static_cast<size_t>(count * width));
  for (int64_t i = 0; i < count; ++i) {
    const auto first = static_cast<size_t>(i * width);
    RmsNorm(std::span(x).subspan(static_cast<size_t>(i * stride), static_cast<size_t>(width)),
            weight, 1e-6f, std::span(normed).subspan(first, static_cast<size_t>(width)));
  }
  Activations activations(pool.memory(), count, width);
  RmsNormRows(pool, x.data(), stride, weight, 1e-6f, activations);
  EXPECT_TRUE(std::equal(normed.begin(), normed.end(), activations.values().begin()));
  for (const bool pack : {false, true}) {
    matrix.packed = pack ? &*packed : nullptr;
    std::vector<float> one(static_cast<size_t>(count * 70)), other(one.size());
    Linear(pool, normed, matrix, one);
    Linear(pool, activations, matrix, other);
    EXPECT_EQ(one, other) << pack;
  }
}

TEST(Activations, ProductsInOneLoopAreTheSameAsOneAfterTheOther) {
  Rng rng(33);
  const int64_t count = 5, width = 301;
  const std::vector<float> x = RandomFloats(rng, count * width);
  const std::array<int64_t, 3> rows = {70, 3, 640};
  const int64_t stride = 1000;
  for (const int threads : {1, 3}) {
    Pool pool(threads);
    WeightMemory memory;
    Activations activations(pool.memory(), count, width);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(x.data() + i * width, width, activations.row(i).data());
      activations.RowIsComplete(i);
    }
    std::vector<std::vector<Bf16>> weights;
    std::vector<Matrix> matrices;
    std::vector<PackedMatrix> packed;
    for (const int64_t r : rows) {
      weights.push_back(RandomBf16(rng, r * width));
      matrices.push_back(MatrixOf(weights.back(), r, width));
      auto one = PackedMatrix::Pack(pool, memory, matrices.back());
      ASSERT_TRUE(one.ok());
      packed.push_back(*std::move(one));
    }
    for (int which_packed = 0; which_packed < 8; ++which_packed) {
      std::vector<float> together(count * stride), alone(together.size());
      std::vector<Product> products;
      int64_t first = 0;
      for (int m = 0; m < 3; ++m) {
        matrices[m].packed = which_packed >> m & 1 ? &packed[m] : nullptr;
        products.push_back({&matrices[m], together.data() + first, stride});
        std::vector<float> y(count * rows[m]);
        Linear(pool, activations, matrices[m], y);
        for (int64_t t = 0; t < count; ++t) {
          std::copy_n(y.data() + t * rows[m], rows[m], alone.data() + t * stride + first);
        }
        first += rows[m];
      }
      LinearAll(pool, activations, products);
      EXPECT_EQ(together, alone) << threads << " " << which_packed;
    }
  }
}

}  // namespace
}  // namespace engram::kernels
