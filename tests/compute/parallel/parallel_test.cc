// Several ranks give the bits of one: heads, experts, widths and vocabulary that do not divide
// evenly, batches, prefix hits, preemption. A rank that dies or stops ends the requests with its
// name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "compute/engine/follower.h"
#include "compute/engine/rank_messages.h"
#include "tests/compute/same_answers.h"
#include "tests/support/fakes/thread_collective.h"

namespace engram::compute {
namespace {

using parallel::ThreadGroup;
using testing::HasSubstr;

// Rank 0's engine; the others follow on threads of their own.
class RankedEngine {
 public:
  RankedEngine(const TinyOptions& options, TinyServing serving, int size,
               Nanos time_limit = std::chrono::seconds(60))
      : group_(size, time_limit), ended_(static_cast<size_t>(size)) {
    for (int r = 1; r < size; ++r) {
      serving.ranks = &group_.rank(r);
      parts_.push_back(std::make_unique<TinyEngine>(options, serving));
    }
    for (int r = 1; r < size; ++r) {
      threads_.emplace_back([this, r] {
        TinyEngine& part = *parts_[static_cast<size_t>(r - 1)];
        ended_[static_cast<size_t>(r)] =
            Follow(part.config, *part.transformer, *part.pages, group_.rank(r));
      });
    }
    serving.ranks = &group_.rank(0);
    leader_ = std::make_unique<TinyEngine>(options, serving);
  }
  ~RankedEngine() { Close(); }
  void Close() {
    leader_.reset();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  TinyEngine& leader() { return *leader_; }
  ThreadGroup& group() { return group_; }
  const Status& ended(int rank) const { return ended_[static_cast<size_t>(rank)]; }

 private:
  ThreadGroup group_;
  std::vector<Status> ended_;
  std::vector<std::unique_ptr<TinyEngine>> parts_;
  std::vector<std::thread> threads_;
  std::unique_ptr<TinyEngine> leader_;
};

class Ranks : public testing::TestWithParam<std::string> {
 protected:
  const TinyOptions options_ = OptionsOf(GetParam());
  std::vector<Answer> OfOne(const TinyServing& serving) const {
    TinyEngine tiny(options_, serving);
    return Answers(tiny, Requests());
  }
};

TEST_P(Ranks, GiveTheBitsOfOne) {
  const TinyServing serving = ServingOf(3, 7, 1);
  const std::vector<Answer> expected = OfOne(serving);
  for (const int size : {1, 2, 3}) {
    RankedEngine ranked(options_, serving, size);
    EXPECT_EQ(Answers(ranked.leader(), Requests()), expected) << size << " ranks";
    EXPECT_EQ(Answers(ranked.leader(), Requests()), expected) << size << " ranks, prefix hits";
    EXPECT_GT(ranked.leader().engine->Snapshot().prefix_hit_tokens, 8 * 24);
    ranked.Close();
    for (int r = 1; r < size; ++r) EXPECT_TRUE(ranked.ended(r).ok()) << ranked.ended(r).message();
  }
}

TEST_P(Ranks, GiveTheBitsOfOneWhenSomeMatricesStayWhole) {
  TinyServing serving = ServingOf(3, 7, 1);
  const std::vector<Answer> expected = OfOne(serving);
  for (const int64_t whole_below_bytes : {int64_t{4096}, kWholeBelowBytes}) {
    serving.whole_below_bytes = whole_below_bytes;
    RankedEngine ranked(options_, serving, 2);
    EXPECT_EQ(Answers(ranked.leader(), Requests()), expected) << whole_below_bytes;
  }
}

TEST_P(Ranks, GiveTheBitsOfOneWhenPreempted) {
  TinyServing serving = ServingOf(8, 16, 2);
  const std::vector<Answer> expected = OfOne(serving);
  serving.pages = 26;
  RankedEngine ranked(options_, serving, 2);
  EXPECT_EQ(Answers(ranked.leader(), Requests()), expected);
  EXPECT_GT(ranked.leader().engine->Snapshot().preemptions, 0);
}

TEST_P(Ranks, ScoreAPromptLikeOne) {
  const std::vector<int32_t> tokens = RandomTokens(5, 150, 97);
  TinyEngine alone(options_, ServingOf(1, 1 << 20, 1));
  RankedEngine ranked(options_, ServingOf(1, 64, 1), 3);
  const auto scores = ranked.leader().Score(tokens);
  ASSERT_TRUE(scores.ok()) << scores.status().message();
  EXPECT_EQ(*scores, *alone.Score(tokens));
}

INSTANTIATE_TEST_SUITE_P(Models, Ranks,
                         testing::Values("paper", "v41", "v41_fp8", "plain", "f32", "mixed_experts",
                                         "wide", "wide_v41", "wide_f32"),
                         [](const auto& param_info) { return param_info.param; });

TEST(Slices, AreCutAtWholeUnitsWhereEveryRankGetsOne) {
  const auto firsts = [](int64_t count, int size, int64_t unit) {
    std::vector<int64_t> all;
    int64_t end = 0;
    for (int r = 0; r < size; ++r) {
      const parallel::Slice slice = parallel::SliceOf(count, r, size, unit);
      EXPECT_EQ(slice.first, end) << count << " over " << size;
      all.push_back(slice.first);
      end = slice.end();
    }
    EXPECT_EQ(end, count) << "over " << size;
    return all;
  };
  EXPECT_EQ(firsts(320, 2, 64), (std::vector<int64_t>{0, 128}));
  EXPECT_EQ(firsts(200, 3, 64), (std::vector<int64_t>{0, 64, 128}));
  EXPECT_EQ(firsts(190, 3, 64), (std::vector<int64_t>{0, 63, 126})) << "two tiles and a bit";
  EXPECT_EQ(firsts(5, 3, 1), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(firsts(2, 3, 64), (std::vector<int64_t>{0, 0, 1}));
}

TEST(Slices, ColumnsComeTogetherInOrder) {
  for (const int64_t columns : {3, 190, 200}) {
    ThreadGroup group(3, std::chrono::seconds(60));
    std::vector<std::vector<float>> gathered(3);
    std::vector<std::thread> threads;
    for (int r = 0; r < 3; ++r) {
      threads.emplace_back([&, r] {
        const parallel::Slice own = parallel::SliceOf(columns, r, 3, 64);
        std::vector<float> mine;
        for (int64_t row = 0; row < 2; ++row) {
          for (int64_t c = own.first; c < own.end(); ++c) {
            mine.push_back(static_cast<float>(row * columns + c));
          }
        }
        kernels::Workspace memory;
        gathered[r].resize(2 * columns);
        parallel::GatherColumns(group.rank(r), memory, mine, 2, 64, gathered[r]);
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<float> expected(static_cast<size_t>(2 * columns));
    std::iota(expected.begin(), expected.end(), 0.0f);
    for (const std::vector<float>& all : gathered) EXPECT_EQ(all, expected) << columns;
  }
}

TEST(RankFigures, SayWhatTheRanksExchangedAndTheLoadOfOne) {
  const auto snapshot = [](TinyEngine& tiny) {
    EXPECT_TRUE(tiny.Run(RequestOf({1, 2, 3}, 4)).ok());
    return tiny.engine->Snapshot();
  };
  TinyEngine alone({}, ServingOf(3, 7, 1));
  RankedEngine ranked({}, ServingOf(3, 7, 1), 2);
  const EngineSnapshot of_one = snapshot(alone);
  const EngineSnapshot of_two = snapshot(ranked.leader());
  EXPECT_EQ(of_one.rank_exchange_ns, 0);
  EXPECT_EQ(of_one.rank_exchange_bytes, 0);
  EXPECT_GT(of_two.rank_exchange_ns, 0);
  // At least the logits of each of the four tokens.
  EXPECT_GT(of_two.rank_exchange_bytes, 4 * 97 * static_cast<int64_t>(sizeof(float)));
  ASSERT_EQ(of_two.expert_load.layers().size(), of_one.expert_load.layers().size());
  for (size_t i = 0; i < of_one.expert_load.layers().size(); ++i) {
    EXPECT_EQ(of_two.expert_load.layers()[i].tokens, of_one.expert_load.layers()[i].tokens);
  }
}

// Weights of the sizes that are cut, all of the same zeros.
struct LargeWeights {
  static constexpr int64_t kWidth = 512;
  LargeWeights() {
    config.attention = {.heads = 8, .nope = 32, .rope = 32, .value = 64, .latent = 64, .scale = 1};
    LayerWeights dense;
    dense.attention.q = Of(8 * 64, kWidth);
    dense.attention.kv_b = Of(8 * 96, 64);
    dense.attention.out = Of(kWidth, 8 * 64);
    LayerWeights experts = dense;
    LayerWeights paper = dense;
    dense.dense = Mlp();
    dense.engram.emplace().key_value = Of(3 * kWidth, 2048);
    experts.moe.emplace().shared = Mlp();
    paper.engram.emplace().value = Of(kWidth, 2048);
    paper.engram->keys.assign(2, Of(kWidth, 2048));
    paper.engram->key_biases.assign(2, std::vector<float>(kWidth));
    weights.layers = {dense, experts, paper};
    weights.lm_head = Of(4096, kWidth);
  }
  Matrix Of(int64_t rows, int64_t columns) const {
    return kernels::MatrixOf(std::span(zeros).first(static_cast<size_t>(rows * columns)), rows,
                             columns);
  }
  MlpWeights Mlp() const { return {Of(2048, kWidth), Of(2048, kWidth), Of(kWidth, 2048)}; }
  // Bytes that a rank of `size` packs.
  static int64_t PackedBytes(int rank, int size) {
    LargeWeights large;
    ThreadGroup group(size, std::chrono::seconds(1));
    CHECK(ShardWeights(large.config, group.rank(rank), large.weights).ok());
    kernels::Pool pool(1);
    CHECK(PackWeights(pool, large.weights).ok());
    int64_t sum = 0;
    for (const auto& matrix : large.weights.packed) sum += static_cast<int64_t>(matrix.bytes());
    return sum;
  }

  const std::vector<Bf16> zeros = std::vector<Bf16>(2048 * 3 * kWidth);
  ModelConfig config;
  Weights weights;
};

TEST(RankMemory, ARankPacksItsPartOnly) {
  const int64_t whole = LargeWeights::PackedBytes(0, 1);
  EXPECT_GT(whole, 28 << 20);
  for (const int size : {2, 4}) {
    for (int rank = 0; rank < size; ++rank) {
      const int64_t part = LargeWeights::PackedBytes(rank, size);
      // What is cut divides evenly; each packed matrix has 64 KiB behind it.
      EXPECT_NEAR(static_cast<double>(part), static_cast<double>(whole) / size, 20 * 65536)
          << "rank " << rank << " of " << size;
    }
  }
}

TEST(RankFaults, ARankThatDiesEndsTheRequestsAndRefusesMore) {
  RankedEngine ranked({}, ServingOf(3, 7, 1), 2);
  ASSERT_TRUE(ranked.leader().Run(RequestOf({1, 2, 3}, 4)).ok());
  ranked.group().Kill(1);
  const auto failed = ranked.leader().Run(RequestOf({1, 2, 3}, 4));
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.status().message(), HasSubstr("rank 1 of 2 is gone"));
  EXPECT_FALSE(ranked.leader().engine->Snapshot().memory.ok()) << "not ready any more";
  EXPECT_FALSE(ranked.leader().Run(RequestOf({1}, 1)).ok());
  EXPECT_EQ(ranked.leader().engine->Snapshot().pages_used, 0);
  ranked.Close();
  EXPECT_THAT(ranked.ended(1).message(), HasSubstr("is gone"));
}

TEST(RankFaults, ARankThatDoesNotComeIsNoticedInTime) {
  ThreadGroup group(2, std::chrono::milliseconds(30));
  TinyServing serving = ServingOf(3, 7, 1);
  serving.ranks = &group.rank(0);
  TinyEngine leader({}, serving);  // and no follower
  const auto failed = leader.Run(RequestOf({1, 2, 3}, 4));
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), Code::kDeadlineExceeded);
  EXPECT_THAT(failed.status().message(), HasSubstr("rank 0 of 2 waited 30 ms"));
}

TEST(RankFaults, RowsThatDoNotComeAreTheSameOnEveryRank) {
  TinyServing serving = ServingOf(3, 7, 1);
  serving.serving.degrade = true;
  const auto degraded = [&](TinyEngine& tiny) {
    tiny.source->fail_from_submit = 2;
    tiny.source->failure = Unavailable("memory node m1: 3 rows missing");
    const auto result = tiny.Run(RequestOf(RandomTokens(8, 30, 97), 10));
    EXPECT_TRUE(result.ok());
    EXPECT_GT(result->finish.degraded_positions, 0);
    return result->logprobs();
  };
  TinyEngine alone({}, serving);
  RankedEngine ranked({}, serving, 2);
  EXPECT_EQ(degraded(ranked.leader()), degraded(alone));
}

TEST(RankFaults, MoreRanksThanHeadsAreRefused) {
  TinyEngine tiny({}, ServingOf(1, 7, 1));
  ThreadGroup group(64, std::chrono::milliseconds(1));
  const Status refused = ShardWeights(tiny.config, group.rank(3), tiny.weights);
  EXPECT_EQ(refused.code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("64 ranks for a model of"));
}

TEST(RankMessages, SurviveTheWayAndGarbageIsNoticed) {
  RankStep step;
  step.alive = {3, 9};
  step.runs.push_back({3, 64, true, {5, 6}, {1, 2, 3}});
  step.runs.push_back({9, 1, false, {7}, {4}});
  const std::vector<std::byte> bytes = EncodeStep(step);
  const auto decoded = DecodeRankMessage(bytes);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->step.alive, step.alive);
  ASSERT_EQ(decoded->step.runs.size(), 2u);
  EXPECT_EQ(decoded->step.runs[0].pages, step.runs[0].pages);
  EXPECT_EQ(decoded->step.runs[0].tokens, step.runs[0].tokens);
  EXPECT_TRUE(decoded->step.runs[0].fresh);
  EXPECT_EQ(decoded->step.runs[1].first, 1);
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    EXPECT_FALSE(DecodeRankMessage(std::span(bytes).first(cut)).ok()) << cut;
  }
  EXPECT_FALSE(DecodeRows(std::span(bytes).first(20), 2).ok());
}

}  // namespace
}  // namespace engram::compute
