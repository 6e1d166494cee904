// Several ranks give the bits of one: heads, experts and vocabulary that do not divide evenly,
// batches, prefix hits, preemption. A rank that dies or stops ends the requests with its name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "compute/engine/follower.h"
#include "compute/engine/rank_messages.h"
#include "compute/parallel/thread_collective.h"
#include "tests/compute/same_answers.h"

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
  for (const int size : {2, 3}) {
    RankedEngine ranked(options_, serving, size);
    EXPECT_EQ(Answers(ranked.leader(), Requests()), expected) << size << " ranks";
    EXPECT_EQ(Answers(ranked.leader(), Requests()), expected) << size << " ranks, prefix hits";
    EXPECT_GT(ranked.leader().engine->Snapshot().prefix_hit_tokens, 8 * 24);
    ranked.Close();
    for (int r = 1; r < size; ++r) EXPECT_TRUE(ranked.ended(r).ok()) << ranked.ended(r).message();
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
                         testing::Values("paper", "v41", "v41_fp8", "plain", "f32",
                                         "mixed_experts"),
                         [](const auto& param_info) { return param_info.param; });

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
  TinyEngine leader({}, serving);  // and nobody follows
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
