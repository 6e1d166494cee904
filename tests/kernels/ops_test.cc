// Every other operation against an independent float64 restatement, tolerances derived from the
// lengths of the sums.
#include "kernels/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/exp.h"
#include "kernels/isa.h"
#include "tests/kernels/random.h"

namespace engram::kernels {
namespace {

double SigmoidF64(double x) { return 1.0 / (1.0 + std::exp(-x)); }

TEST(RmsNorm, EqualsFloat64) {
  Rng rng(10);
  for (int i = 0; i < 50; ++i) {
    const auto width = static_cast<size_t>(RandomBetween(rng, 1, 300));
    const std::vector<float> x = RandomFloats(rng, static_cast<int64_t>(3 * width));
    const std::vector<float> weight = RandomFloats(rng, static_cast<int64_t>(width));
    std::vector<float> y(x.size());
    RmsNorm(x, weight, 1e-6f, y);
    for (size_t r = 0; r < 3; ++r) {
      double squares = 0;
      for (size_t c = 0; c < width; ++c)
        squares += std::pow(static_cast<double>(x[r * width + c]), 2);
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
      for (size_t c = 0; c < width; ++c) {
        const double exact = x[r * width + c] * scale * weight[c];
        // Half the relative error of a sum of positive terms, then five roundings.
        const double bound = (static_cast<double>(width) / 32 + 8) * kEps * std::fabs(exact);
        ASSERT_NEAR(y[r * width + c], exact, bound);
      }
    }
  }
}

TEST(SwiGlu, EqualsFloat64) {
  Rng rng(11);
  const std::vector<float> gate = RandomFloats(rng, 1000, 4.0);
  const std::vector<float> up = RandomFloats(rng, 1000);
  std::vector<float> y = gate;
  SwiGlu(y, up);
  for (size_t i = 0; i < y.size(); ++i) {
    const double exact = gate[i] * SigmoidF64(gate[i]) * up[i];
    ASSERT_NEAR(y[i], exact, 8 * kEps * std::fabs(exact));
  }
}

TEST(SwiGlu, OfLargeAndBrokenValues) {
  std::vector<float> gate = {-100.0f, -90.0f, 100.0f, INFINITY, NAN};
  const std::vector<float> up(5, 2.0f);
  SwiGlu(gate, up);
  EXPECT_NEAR(gate[0], 0, 1e-36);
  EXPECT_NEAR(gate[1], 0, 1e-36);
  EXPECT_EQ(gate[2], 200.0f);
  EXPECT_EQ(gate[3], INFINITY);
  EXPECT_TRUE(std::isnan(gate[4]));
}

TEST(ExpNonPositive, EqualsFloat64) {
  Rng rng(23);
  for (int i = 0; i < 20'000; ++i) {
    const double x = -rng.NextDouble() * 87;
    const auto narrow = static_cast<float>(x);
    const double exact = std::exp(double{narrow});
    ASSERT_NEAR(ExpNonPositive(narrow), exact, 3 * kEps * exact) << narrow;
    ASSERT_NEAR(ExpNonPositive(8 * x), std::exp(8 * x), 0x1p-51 * std::exp(8 * x)) << x;
  }
  EXPECT_EQ(ExpNonPositive(0.0f), 1.0f);
  EXPECT_EQ(ExpNonPositive(0.0), 1.0);
  EXPECT_EQ(ExpNonPositive(-1000.0f), 0.0f);
  EXPECT_EQ(ExpNonPositive(-1000.0), 0.0);
}

TEST(Softmax, EqualsFloat64AndSurvivesLargeScores) {
  Rng rng(12);
  std::vector<float> scores = RandomFloats(rng, 257, 300.0);
  const std::vector<float> before = scores;
  Softmax(scores, 0.7f);
  const double largest = *std::max_element(before.begin(), before.end());
  double sum = 0;
  for (const float s : before) sum += std::exp((static_cast<double>(s) - largest) * 0.7);
  for (size_t i = 0; i < scores.size(); ++i) {
    const double exponent = (static_cast<double>(before[i]) - largest) * 0.7;
    const double exact = std::exp(exponent) / sum;
    // exp turns the exponent's absolute error into a relative one.
    ASSERT_NEAR(scores[i], exact, (3 * std::fabs(exponent) + 257 + 4) * kEps * exact + 1e-38);
  }
}

TEST(Rope, RotatesInterleavedPairs) {
  Rng rng(13);
  const std::vector<float> x = RandomFloats(rng, 8);
  std::vector<float> y = x;
  std::vector<float> rotation(8);
  RopeRotation(1234, RopeFrequencies(8, 10000.0, nullptr), 1.0f, rotation);
  Rope(y, rotation);
  for (size_t i = 0; i < 4; ++i) {
    const double angle = 1234.0 * std::pow(10000.0, -2.0 * static_cast<double>(i) / 8.0);
    const double a = x[2 * i], b = x[2 * i + 1];
    const double bound = 4 * kEps * (std::fabs(a) + std::fabs(b));
    EXPECT_NEAR(y[2 * i], a * std::cos(angle) - b * std::sin(angle), bound);
    EXPECT_NEAR(y[2 * i + 1], a * std::sin(angle) + b * std::cos(angle), bound);
  }
}

TEST(Rope, YarnKeepsFastPairsAndStretchesSlowOnes) {
  const YarnScaling yarn{40, 4096, 32, 1, 1, 1};
  const std::vector<double> plain = RopeFrequencies(64, 10000.0, nullptr);
  const std::vector<double> scaled = RopeFrequencies(64, 10000.0, &yarn);
  // DeepSeek-V3's correction range for these settings is pairs 10 to 23.
  for (size_t i = 0; i < plain.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - 10.0) / 13.0, 0.0, 1.0);
    EXPECT_NEAR(scaled[i] / plain[i], ramp / 40 + 1 - ramp, 1e-12) << "pair " << i;
  }
  EXPECT_NEAR(YarnMscale(40, 1), 1.0 + 0.1 * std::log(40.0), 1e-15);
  EXPECT_EQ(YarnMscale(1, 1), 1.0);
}

// Pages of `page` positions over a cache in one piece.
template <typename Value>
MlaCache CacheOf(const std::vector<Value>& values, int64_t entry, int64_t page) {
  return {reinterpret_cast<const std::byte*>(values.data()), page * entry * int64_t{sizeof(Value)},
          page, std::is_same_v<Value, Bf16> ? DType::kBf16 : DType::kF32};
}

// The pages that hold positions [0, positions), from page `first` on.
std::vector<int32_t> PagesOf(int64_t positions, int64_t page, int32_t first = 0) {
  std::vector<int32_t> pages((positions + page - 1) / page);
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

TEST(MlaAttention, AbsorbedAgreesWithPerHeadWithinItsTolerance) {
  Rng rng(14);
  for (int i = 0; i < 40; ++i) {
    MlaShape s{RandomBetween(rng, 1, 5),  RandomBetween(rng, 1, 24), 2 * RandomBetween(rng, 1, 8),
               RandomBetween(rng, 1, 24), RandomBetween(rng, 1, 40), 0.2f};
    const int64_t first = RandomBetween(rng, 0, 30), tokens = RandomBetween(rng, 1, 12);
    const std::vector<float> q = RandomFloats(rng, tokens * s.heads * (s.nope + s.rope));
    const std::vector<Bf16> kv_b = RandomBf16(rng, s.heads * (s.nope + s.value) * s.latent, 0.2);
    const std::vector<float> cache = RandomFloats(rng, (first + tokens) * (s.latent + s.rope));
    const Matrix matrix = MatrixOf(kv_b, s.heads * (s.nope + s.value), s.latent);
    std::vector<float> absorbed(static_cast<size_t>(tokens * s.heads * s.value)),
        plain(absorbed.size());
    Pool pool(1 + i % 3);
    const int64_t page = RandomBetween(rng, 1, 20);
    const std::vector<int32_t> pages = PagesOf(first + tokens, page);
    const MlaSegment segment{tokens, first, pages};
    MlaAttention(pool, s, CacheOf(cache, s.latent + s.rope, page), {&segment, 1}, q, matrix,
                 absorbed);
    ref::MlaAttention(s, q, matrix, cache, first, plain);
    // Scores are sums of at most nope * latent + rope products of magnitude < 100; their error
    // moves the weights by as much, relatively, and the weighted sum of values (< 10) with them.
    const auto terms = static_cast<double>(s.nope * s.latent + s.rope + first + tokens);
    const double bound = 4 * std::sqrt(terms) * kEps * 100;
    for (size_t j = 0; j < plain.size(); ++j) ASSERT_NEAR(absorbed[j], plain[j], bound);
  }
}

TEST(MlaAttention, ThreadsNeighboursAndLongContextsChangeNoBit) {
  Rng rng(15);
  const MlaShape s{3, 8, 4, 8, 16, 0.2f};
  const int64_t entry = s.latent + s.rope, page = 4;
  const std::vector<Bf16> kv_b = RandomBf16(rng, s.heads * (s.nope + s.value) * s.latent, 0.2);
  const Matrix matrix = MatrixOf(kv_b, s.heads * (s.nope + s.value), s.latent);
  // 63 blocks are more than is held at once when few tokens are split by block.
  const int64_t firsts[] = {1999, 0, 37}, tokens[] = {1, 3, 2};
  std::vector<std::vector<int32_t>> pages;
  int32_t used = 1;
  for (int i = 0; i < 3; ++i) {
    pages.push_back(PagesOf(firsts[i] + tokens[i], page, used));
    used = pages.back().back() + 2;
  }
  std::swap(pages[0][3], pages[0][400]);  // in any order
  const std::vector<float> values = RandomFloats(rng, used * page * entry);
  const MlaCache cache = CacheOf(values, entry, page);
  std::vector<MlaSegment> segments;
  for (int i = 0; i < 3; ++i) segments.push_back({tokens[i], firsts[i], pages[i]});
  const std::vector<float> q = RandomFloats(rng, 6 * s.heads * (s.nope + s.rope));
  std::vector<float> together(static_cast<size_t>(6 * s.heads * s.value));
  Pool one(1), two(2);
  MlaAttention(two, s, cache, segments, q, matrix, together);
  size_t token = 0;
  for (const MlaSegment& segment : segments) {
    const auto count = static_cast<size_t>(segment.tokens);
    const size_t q_width = static_cast<size_t>(s.heads * (s.nope + s.rope));
    const size_t width = static_cast<size_t>(s.heads * s.value);
    std::vector<float> alone(count * width);
    MlaAttention(one, s, cache, {&segment, 1},
                 std::span(q).subspan(token * q_width, count * q_width), matrix, alone);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                           together.begin() + static_cast<ptrdiff_t>(token * width)));
    token += count;
  }
}

TEST(MlaAttention, NoPageSizeChangesABit) {
  Rng rng(19);
  const MlaShape s{4, 8, 4, 8, 21, 0.2f};
  const int64_t entry = s.latent + s.rope, first = 70, tokens = 81, positions = first + tokens;
  const std::vector<Bf16> kv_b = RandomBf16(rng, s.heads * (s.nope + s.value) * s.latent, 0.2);
  const Matrix matrix = MatrixOf(kv_b, s.heads * (s.nope + s.value), s.latent);
  const std::vector<float> cache = RandomFloats(rng, positions * entry);
  const std::vector<float> q = RandomFloats(rng, tokens * s.heads * (s.nope + s.rope));
  std::vector<float> expected;
  for (const int threads : {1, 2}) {
    Pool pool(threads);
    for (const int64_t page : {32, 1, 2, 7, 31, 33, 64, 96, 4096}) {
      const std::vector<int32_t> pages = PagesOf(positions, page);
      const MlaSegment segment{tokens, first, pages};
      std::vector<float> out(tokens * s.heads * s.value);
      MlaAttention(pool, s, CacheOf(cache, entry, page), {&segment, 1}, q, matrix, out);
      if (expected.empty()) expected = out;
      EXPECT_EQ(out, expected) << "pages of " << page << " positions, " << threads << " threads";
    }
  }
}

TEST(MlaAttention, NoInstructionSetChangesABit) {
  Rng rng(20);
  for (const int64_t latent : {21, 128}) {
    const MlaShape s{8, 8, 4, 8, latent, 0.2f};
    const int64_t entry = s.latent + s.rope, first = 70, tokens = 9, positions = first + tokens;
    const std::vector<Bf16> kv_b = RandomBf16(rng, s.heads * (s.nope + s.value) * latent, 0.2);
    const Matrix matrix = MatrixOf(kv_b, s.heads * (s.nope + s.value), latent);
    const std::vector<float> cache = RandomFloats(rng, positions * entry);
    const std::vector<float> q = RandomFloats(rng, tokens * s.heads * (s.nope + s.rope));
    const std::vector<int32_t> pages = PagesOf(positions, 32);
    const MlaSegment segment{tokens, first, pages};
    std::vector<float> expected;
    Pool pool(1);
    for (const Isa isa : kAllIsas) {
      if (!IsSupported(isa)) continue;
      UseIsa(isa);
      std::vector<float> out(static_cast<size_t>(tokens * s.heads * s.value));
      MlaAttention(pool, s, CacheOf(cache, entry, 32), {&segment, 1}, q, matrix, out);
      if (expected.empty()) expected = out;
      EXPECT_EQ(out, expected) << IsaName(isa);
    }
    UseIsa(BestIsa());
  }
}

TEST(MlaAttention, OfABf16CacheEqualsThatOfItsValuesInFp32) {
  Rng rng(21);
  const MlaShape s{8, 8, 4, 8, 64, 0.2f};
  const int64_t entry = s.latent + s.rope, first = 70, tokens = 41, positions = first + tokens;
  const std::vector<Bf16> kv_b = RandomBf16(rng, s.heads * (s.nope + s.value) * s.latent, 0.2);
  const Matrix matrix = MatrixOf(kv_b, s.heads * (s.nope + s.value), s.latent);
  const std::vector<Bf16> rounded = RandomBf16(rng, positions * entry, 1);
  std::vector<float> widened;
  for (const Bf16 value : rounded) widened.push_back(ToFloat(value));
  const std::vector<float> q = RandomFloats(rng, tokens * s.heads * (s.nope + s.rope));
  for (const Isa isa : {Isa::kAvx2, BestIsa()}) {
    UseIsa(isa);
    for (const int64_t page : {7, 32, 64}) {
      for (const int threads : {1, 2}) {
        Pool pool(threads);
        const std::vector<int32_t> pages = PagesOf(positions, page);
        const MlaSegment segment{tokens, first, pages};
        std::vector<float> expected(static_cast<size_t>(tokens * s.heads * s.value));
        std::vector<float> out(expected.size());
        MlaAttention(pool, s, CacheOf(widened, entry, page), {&segment, 1}, q, matrix, expected);
        MlaAttention(pool, s, CacheOf(rounded, entry, page), {&segment, 1}, q, matrix, out);
        EXPECT_EQ(out, expected) << IsaName(isa) << ", pages of " << page;
      }
    }
  }
  UseIsa(BestIsa());
}

TEST(MlaAttention, TokensThatVisitPagesTogetherChangeNoBit) {
  Rng rng(18);
  for (const int64_t heads : {1, 4, 11, 20}) {
    const MlaShape s{heads, 8, 4, 8, 21, 0.2f};
    const int64_t entry = s.latent + s.rope, page = 7, first = 30, tokens = 19;
    const std::vector<Bf16> kv_b = RandomBf16(rng, s.heads * (s.nope + s.value) * s.latent, 0.2);
    const Matrix matrix = MatrixOf(kv_b, s.heads * (s.nope + s.value), s.latent);
    const std::vector<float> values = RandomFloats(rng, (first + tokens) * entry);
    const MlaCache cache = CacheOf(values, entry, page);
    const std::vector<int32_t> pages = PagesOf(first + tokens, page);
    const int64_t q_width = s.heads * (s.nope + s.rope), width = s.heads * s.value;
    const std::vector<float> q = RandomFloats(rng, tokens * q_width);
    std::vector<float> together(tokens * width), alone(width);
    Pool pool(2);
    const MlaSegment all{tokens, first, pages};
    MlaAttention(pool, s, cache, {&all, 1}, q, matrix, together);
    for (int64_t t = 0; t < tokens; ++t) {
      const MlaSegment one{1, first + t, pages};
      MlaAttention(pool, s, cache, {&one, 1}, std::span(q).subspan(t * q_width, q_width), matrix,
                   alone);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * width))
          << heads << " heads, token " << t;
    }
  }
}

TEST(MlaAttention, PerHeadFormEqualsFloat64) {
  Rng rng(15);
  const MlaShape s{2, 6, 4, 5, 7, 0.3f};
  const int64_t positions = 9;
  const std::vector<float> q = RandomFloats(rng, positions * s.heads * 10);
  const std::vector<float> kv_b = RandomFloats(rng, s.heads * 11 * s.latent, 0.3);
  const std::vector<float> cache = RandomFloats(rng, positions * 11);
  std::vector<float> out(static_cast<size_t>(positions * s.heads * s.value));
  ref::MlaAttention(s, q, MatrixOf(kv_b, s.heads * 11, s.latent), cache, 0, out);
  const auto kv = [&](size_t j, size_t row) {
    double sum = 0;
    for (size_t c = 0; c < 7; ++c)
      sum += static_cast<double>(cache[j * 11 + c]) * kv_b[row * 7 + c];
    return sum;
  };
  for (size_t t = 0; t < 9; ++t) {
    for (size_t h = 0; h < 2; ++h) {
      std::vector<double> weights;
      for (size_t j = 0; j <= t; ++j) {
        double score = 0;
        for (size_t d = 0; d < 6; ++d) score += q[(t * 2 + h) * 10 + d] * kv(j, h * 11 + d);
        for (size_t d = 0; d < 4; ++d) {
          score += static_cast<double>(q[(t * 2 + h) * 10 + 6 + d]) * cache[j * 11 + 7 + d];
        }
        weights.push_back(std::exp(score * static_cast<double>(s.scale)));
      }
      const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (size_t d = 0; d < 5; ++d) {
        double exact = 0;
        for (size_t j = 0; j <= t; ++j) exact += weights[j] / total * kv(j, h * 11 + 6 + d);
        ASSERT_NEAR(out[(t * 2 + h) * 5 + d], exact, 200 * kEps);
      }
    }
  }
}

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Choice Route(const RouteRule& rule, const std::vector<float>& logits,
             const std::vector<float>& bias) {
  const auto k = static_cast<size_t>(rule.experts_per_token);
  Choice choice{std::vector<int32_t>(k), std::vector<float>(k)};
  std::vector<float> scratch(2 * rule.experts);
  RouteToken(rule, logits, bias, choice.experts, choice.weights, scratch);
  return choice;
}

TEST(Route, TiesGoToTheLowerIndex) {
  const Choice choice =
      Route({6, 3, 1, 1, true, 1.0f}, {0, 1, 1, 0, 1, 1}, std::vector<float>(6, 0.0f));
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 2, 4}));
}

TEST(Route, BiasSteersTheChoiceButNotTheWeight) {
  const Choice choice = Route({3, 1, 1, 1, false, 2.0f}, {3, 0, -3}, {0, 0, 5});
  EXPECT_EQ(choice.experts, std::vector<int32_t>{2});
  EXPECT_NEAR(choice.weights[0], 2.0 * SigmoidF64(-3), 1e-7);
}

TEST(Route, KeepsOnlyTheWorthiestGroupsEvenAtNegativeChoices) {
  // Group worths (best two): {0,1}: 2 sigmoid(1), {2,3}: sigmoid(5) + sigmoid(-9), {4,5}: 2
  // sigmoid(2).
  const std::vector<float> logits = {1, 1, 5, -9, 2, 2};
  const Choice choice = Route({6, 4, 3, 2, true, 1.0f}, logits, std::vector<float>(6, -2.0f));
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{4, 5, 0, 1}));
}

TEST(Route, EqualsAnExhaustiveRestatement) {
  Rng rng(16);
  for (int i = 0; i < 200; ++i) {
    const int groups = static_cast<int>(RandomBetween(rng, 1, 4));
    const int size = static_cast<int>(RandomBetween(rng, 2, 6));
    const int kept = static_cast<int>(RandomBetween(rng, 1, groups));
    const int k = static_cast<int>(RandomBetween(rng, 1, kept * size));
    const std::vector<float> logits = RandomFloats(rng, groups * size);
    const std::vector<float> bias = RandomFloats(rng, groups * size, 0.3);
    const Choice choice = Route({groups * size, k, groups, kept, true, 2.5f}, logits, bias);
    std::vector<double> score, pick;
    for (size_t e = 0; e < logits.size(); ++e) {
      score.push_back(SigmoidF64(logits[e]));
      pick.push_back(score.back() + bias[e]);
    }
    std::vector<std::pair<double, int>> worth;
    for (int g = 0; g < groups; ++g) {
      std::vector<double> members(pick.begin() + g * size, pick.begin() + (g + 1) * size);
      std::sort(members.rbegin(), members.rend());
      worth.emplace_back(-(members[0] + members[1]), g);
    }
    std::sort(worth.begin(), worth.end());
    std::vector<std::pair<double, int>> order;
    for (int g = 0; g < kept; ++g) {
      for (int e = worth[static_cast<size_t>(g)].second * size, n = 0; n < size; ++n, ++e) {
        order.emplace_back(-pick[static_cast<size_t>(e)], e);
      }
    }
    std::sort(order.begin(), order.end());
    double sum = 1e-20;
    for (int j = 0; j < k; ++j)
      sum += score[static_cast<size_t>(order[static_cast<size_t>(j)].second)];
    for (size_t j = 0; j < static_cast<size_t>(k); ++j) {
      ASSERT_EQ(choice.experts[j], order[j].second);
      const double exact = score[static_cast<size_t>(order[j].second)] / sum * 2.5;
      ASSERT_NEAR(choice.weights[j], exact, (k + 12) * kEps * exact);
    }
  }
}

TEST(Sinkhorn, EqualsFloat64AndSurvivesLargeExponents) {
  Rng rng(17);
  for (const double size : {1.0, 60.0}) {
    std::vector<float> m = RandomFloats(rng, 16, size);
    std::vector<double> exact(m.begin(), m.end());
    for (double& v : exact) v = std::exp(v);
    for (int round = 0; round < 20; ++round) {
      for (size_t r = 0; r < 4; ++r) {
        const double sum = std::accumulate(exact.begin() + static_cast<ptrdiff_t>(4 * r),
                                           exact.begin() + static_cast<ptrdiff_t>(4 * r + 4), 0.0);
        for (size_t c = 0; c < 4; ++c) exact[4 * r + c] /= sum;
      }
      for (size_t c = 0; c < 4; ++c) {
        const double sum = exact[c] + exact[4 + c] + exact[8 + c] + exact[12 + c];
        for (size_t r = 0; r < 4; ++r) exact[4 * r + c] /= sum;
      }
    }
    SinkhornExp(m, 4, 20);
    // 40 passes of a sum of four and a division, each adding 4 eps relative, on top of exp's |x|
    // eps.
    for (size_t i = 0; i < 16; ++i) ASSERT_NEAR(m[i], exact[i], (40 * 4 + 3 * size) * kEps);
  }
}

TEST(Hyper, CollapseAndExpandEqualFloat64) {
  Rng rng(18);
  for (const size_t g : {2, 3, 4}) {
    const size_t d = 33;
    const auto n = static_cast<int64_t>(g);
    std::vector<float> pre = RandomFloats(rng, n), post = RandomFloats(rng, n),
                       residual = RandomFloats(rng, n * n);
    std::vector<float> x = RandomFloats(rng, n * 33);
    const std::vector<float> before = x, y = RandomFloats(rng, 33);
    const HyperMix mix{pre, post, residual};
    std::vector<float> u(d);
    HyperCollapse(mix, x, u);
    HyperExpand(mix, y, x);
    for (size_t i = 0; i < d; ++i) {
      double sum = 0;
      for (size_t s = 0; s < g; ++s) sum += static_cast<double>(pre[s]) * before[s * d + i];
      EXPECT_NEAR(u[i], sum, 40 * kEps);
      for (size_t s = 0; s < g; ++s) {
        double out = static_cast<double>(post[s]) * y[i];
        for (size_t j = 0; j < g; ++j)
          out += static_cast<double>(residual[s * g + j]) * before[j * d + i];
        EXPECT_NEAR(x[s * d + i], out, 50 * kEps);
      }
    }
  }
}

TEST(Quantize, ActivationsThatAreFp8AlreadyPassUnchanged) {
  Rng rng(19);
  std::vector<float> x(64);
  for (size_t i = 0; i < x.size(); ++i) {
    // scales 2^-3 and 2^5: what a decoded fp8 row looks like
    x[i] = std::ldexp(ToFloat(Fp8E4m3{static_cast<uint8_t>(rng.NextBelow(0x7f))}), i < 32 ? -3 : 5);
  }
  const std::vector<float> before = x;
  QuantizeActivations(x);
  EXPECT_EQ(x, before);
}

TEST(Quantize, ErrorIsHalfAnFp8StepUnderTheSmallestScale) {
  Rng rng(20);
  std::vector<float> x = RandomFloats(rng, 3200);
  const std::vector<float> before = x;
  QuantizeActivations(x);
  for (size_t b = 0; b < x.size(); b += 32) {
    double amax = 0;
    for (size_t i = 0; i < 32; ++i)
      amax = std::max(amax, static_cast<double>(std::fabs(before[b + i])));
    const double scale = std::exp2(std::ceil(std::log2(amax / 448.0)));
    for (size_t i = 0; i < 32; ++i) {
      const double bound =
          std::max(std::fabs(static_cast<double>(before[b + i])) / 16, scale / 1024);
      ASSERT_NEAR(x[b + i], before[b + i], bound);
    }
  }
}

TEST(Quantize, EveryValueIsWhatTheConversionsOfOneGive) {
  Rng rng(24);
  for (int i = 0; i < 2000; ++i) {
    std::vector<float> x = RandomFloats(rng, 32, std::exp2(rng.NextDouble() * 200 - 100));
    // Many magnitudes below the largest one's: subnormal fp8, too.
    for (float& value : x) value *= std::exp2(static_cast<float>(-20 * rng.NextDouble()));
    if (i % 7 == 0) x[3] = 0.0f;
    if (i % 5 == 0) x[4] = -x[5];
    float amax = 0;
    for (const float value : x) amax = std::max(amax, std::fabs(value));
    int exponent = 0;
    if (std::frexp(amax / 448.0f, &exponent) == 0.5f) --exponent;
    std::vector<float> expected = x;
    for (float& value : expected) {
      value = std::ldexp(ToFloat(ToFp8E4m3(std::ldexp(value, -exponent))), exponent);
    }
    QuantizeActivations(x);
    ASSERT_EQ(x, expected) << i;
  }
}

TEST(Dequantize, BlocksOf32By32ShareAScaleAndBf16HoldsThemExactly) {
  Rng rng(21);
  const size_t rows = 64, columns = 96;
  std::vector<std::byte> fp8(rows * columns), scales(2 * 3);
  for (std::byte& v : fp8) v = static_cast<std::byte>(rng.NextBelow(0x7f));
  for (std::byte& v : scales) v = static_cast<std::byte>(120 + rng.NextBelow(10));
  std::vector<Bf16> out(fp8.size());
  ASSERT_TRUE(DequantizeBlocks(fp8, scales, 64, 96, out));
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      const double scale = std::exp2(std::to_integer<int>(scales[r / 32 * 3 + c / 32]) - 127);
      const auto bits = std::to_integer<uint8_t>(fp8[r * columns + c]);
      ASSERT_EQ(ToFloat(out[r * columns + c]), ToFloat(Fp8E4m3{bits}) * scale);
    }
  }
  scales[5] = std::byte{0xff};  // NaN
  EXPECT_FALSE(DequantizeBlocks(fp8, scales, 64, 96, out));
}

TEST(Logits, LogProbabilityArgMaxAndFiniteness) {
  Rng rng(22);
  std::vector<float> logits = RandomFloats(rng, 1000, 20.0);
  double sum = 0;
  for (const float l : logits) sum += std::exp(static_cast<double>(l) - 50.0);
  EXPECT_NEAR(LogProbability(logits, 17), logits[17] - 50.0 - std::log(sum), 1e-12);
  EXPECT_EQ(ArgMax(std::vector<float>{1, 5, 5, 2}), 1);
  EXPECT_EQ(ArgMax(std::vector<float>{-INFINITY, -INFINITY}), 0);
  EXPECT_EQ(ArgMax(std::vector<float>{NAN, 3, NAN, 4}), 3);
  EXPECT_TRUE(AllFinite(logits));
  logits[999] = NAN;
  EXPECT_FALSE(AllFinite(logits));
  logits[999] = INFINITY;
  EXPECT_FALSE(AllFinite(logits));
}

}  // namespace
}  // namespace engram::kernels
