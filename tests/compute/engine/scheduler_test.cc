// What goes into a step, which requests wait and which give way. No model: computing is pretended.
#include "compute/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class SchedulerTest : public testing::Test {
 protected:
  // `pages` pages of 4 positions.
  void Make(const SchedulerOptions& options, int64_t pages = 100) {
    pool_ = std::make_unique<PagePool>(*PagePool::Make({4, 1, 1, 0, 0}, pages));
    scheduler_ = std::make_unique<Scheduler>(
        options, *pool_, [](std::span<const int32_t> tokens, table::NgramState& state) {
          for (const int32_t token : tokens) state.Append(token);
        });
  }
  Sequence* Enqueue(int64_t prompt_tokens, uint64_t seed = 0) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++ids_;
    sequence->request = RequestOf(RandomTokens(seed == 0 ? ids_ : seed, prompt_tokens, 97), 1000);
    Sequence* const raw = sequence.get();
    scheduler_->Enqueue(std::move(sequence));
    return raw;
  }
  // "id:first+count" of each run.
  static std::vector<std::string> Runs(const std::vector<ScheduledRun>& step) {
    std::vector<std::string> runs;
    for (const ScheduledRun& run : step) {
      runs.push_back(std::to_string(run.sequence->id) + ":" + std::to_string(run.first) + "+" +
                     std::to_string(run.count));
    }
    return runs;
  }
  // Pretends to compute a step: lengths grow; a run with all its tokens computed gets one more.
  std::vector<ScheduledRun> Compute(const std::vector<ScheduledRun>& step) {
    for (const ScheduledRun& run : step) {
      EXPECT_EQ(run.first, run.sequence->state.length);
      EXPECT_EQ(run.before.length(), run.first);
      run.sequence->state.length = run.end();
      if (run.end() < run.sequence->length()) continue;
      run.sequence->tokens.push_back(1);
      run.sequence->update.tokens.push_back({1, 0, {}});
    }
    std::vector<ScheduledRun> sampled = scheduler_->PlanSampled();
    scheduler_->PublishPages(step);
    scheduler_->ForEach([](Sequence& sequence) { sequence.update = {}; });
    return sampled;
  }
  // One round as the engine does it; returns what was computed.
  std::vector<std::string> Round() {
    scheduler_->Admit(TimePoint());
    if (step_.empty()) step_ = scheduler_->PlanKnown();
    scheduler_->ReservePages(step_);
    const auto computed = Runs(step_);
    std::vector<ScheduledRun> next = scheduler_->PlanKnown();
    const std::vector<ScheduledRun> sampled = Compute(step_);
    next.insert(next.end(), sampled.begin(), sampled.end());
    step_ = next;
    return computed;
  }

  uint64_t ids_ = 0;
  std::unique_ptr<PagePool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<ScheduledRun> step_;
};

TEST_F(SchedulerTest, APromptIsCutIntoChunksThenOneTokenAStep) {
  Make({.step_tokens = 16, .prefill_chunk = 4, .sequences_max = 4});
  Enqueue(10);
  EXPECT_THAT(Round(), ElementsAre("1:0+4"));
  EXPECT_THAT(Round(), ElementsAre("1:4+4"));
  EXPECT_THAT(Round(), ElementsAre("1:8+2"));
  EXPECT_THAT(Round(), ElementsAre("1:10+1"));
  EXPECT_THAT(Round(), ElementsAre("1:11+1"));
}

TEST_F(SchedulerTest, ChunksAndGeneratedTokensShareAStep) {
  Make({.step_tokens = 16, .prefill_chunk = 4, .sequences_max = 4});
  Enqueue(3);
  EXPECT_THAT(Round(), ElementsAre("1:0+3"));
  Enqueue(9);
  EXPECT_THAT(Round(), ElementsAre("1:3+1"));
  EXPECT_THAT(Round(), ElementsAre("2:0+4", "1:4+1"));
  EXPECT_THAT(Round(), ElementsAre("2:4+4", "1:5+1"));
  EXPECT_THAT(Round(), ElementsAre("2:8+1", "1:6+1"));
  EXPECT_THAT(Round(), ElementsAre("1:7+1", "2:9+1"));
}

TEST_F(SchedulerTest, ALongPromptDoesNotStarveAShortOne) {
  Make({.step_tokens = 12, .prefill_chunk = 12, .sequences_max = 4});
  Enqueue(100);
  Enqueue(6);
  EXPECT_THAT(Round(), ElementsAre("1:0+6", "2:0+6"));
  EXPECT_THAT(Round(), ElementsAre("1:6+11", "2:6+1"));  // one is kept for the second's next token
  EXPECT_THAT(Round(), ElementsAre("1:17+11", "2:7+1"));
}

TEST_F(SchedulerTest, AStepNeverExceedsItsBudget) {
  Make({.step_tokens = 8, .prefill_chunk = 100, .sequences_max = 8});
  for (int i = 0; i < 12; ++i) Enqueue(5 + i);
  for (int round = 0; round < 200; ++round) {
    scheduler_->Admit(TimePoint());
    if (step_.empty()) step_ = scheduler_->PlanKnown();
    int64_t tokens = 0;
    for (const ScheduledRun& run : step_) tokens += run.count;
    ASSERT_LE(tokens, 8);
    ASSERT_GT(tokens, 0);
    Round();
  }
}

TEST_F(SchedulerTest, RequestsAreAdmittedInOrderAndOnlySoMany) {
  Make({.step_tokens = 16, .prefill_chunk = 4, .sequences_max = 2});
  Sequence* const first = Enqueue(2);
  Enqueue(2);
  Enqueue(2);
  Round();
  EXPECT_EQ(scheduler_->running(), 2);
  EXPECT_EQ(scheduler_->waiting(), 1);
  first->update.finish = Finish();
  EXPECT_EQ(scheduler_->RemoveFinished(step_).size(), 1u);
  EXPECT_THAT(Runs(step_), ElementsAre("2:2+1"));
  Round();
  EXPECT_THAT(Runs(step_), ElementsAre("3:0+2", "2:3+1"));
}

TEST_F(SchedulerTest, WhenPagesRunOutTheYoungestGivesWayAndIsComputedAgain) {
  Make({.step_tokens = 16, .prefill_chunk = 16, .sequences_max = 4}, 4);  // 16 positions
  Sequence* const old = Enqueue(7);
  Sequence* const young = Enqueue(6);
  for (int i = 0; i < 2; ++i) Round();
  EXPECT_EQ(scheduler_->allocator().available(), 0);
  EXPECT_THAT(Round(), ElementsAre("1:8+1"));  // a third page for the first one
  EXPECT_EQ(scheduler_->preemptions(), 1);
  EXPECT_EQ(scheduler_->waiting(), 1);
  EXPECT_EQ(young->state.length, 0);
  EXPECT_EQ(young->length(), 8);  // its tokens stay known
  while (old->state.length < 12) Round();
  old->update.finish = Finish();
  scheduler_->RemoveFinished(step_);
  // What it had computed is still cached: one of its two pages was taken.
  Round();
  EXPECT_EQ(scheduler_->running(), 1);
  EXPECT_EQ(young->state.length, 8);
}

TEST_F(SchedulerTest, ASequenceWaitsUntilItHasRoom) {
  Make({.step_tokens = 64, .prefill_chunk = 64, .sequences_max = 4}, 4);
  Enqueue(9);
  Enqueue(8);
  Enqueue(1);  // would fit, but does not overtake
  Round();
  EXPECT_EQ(scheduler_->running(), 1);
  EXPECT_EQ(scheduler_->waiting(), 2);
}

TEST_F(SchedulerTest, ACachedBeginningIsNotComputedAgain) {
  Make({.step_tokens = 64, .prefill_chunk = 64, .sequences_max = 4});
  Enqueue(12, 7);
  Round();
  Sequence* const again = Enqueue(12, 7);
  scheduler_->Admit(TimePoint());
  EXPECT_EQ(again->state.length, 8);  // the last token is computed in any case
  EXPECT_EQ(again->cached_tokens, 8);
  EXPECT_EQ(again->history.length(), 8);
  EXPECT_EQ(scheduler_->prefix_queried_tokens(), 24);
  EXPECT_EQ(scheduler_->prefix_hit_tokens(), 8);
}

TEST_F(SchedulerTest, PagesOfATaintedSequenceAreNotFound) {
  Make({.step_tokens = 64, .prefill_chunk = 64, .sequences_max = 4});
  Sequence* const first = Enqueue(12, 7);
  first->tainted = true;
  Round();
  Sequence* const again = Enqueue(12, 7);
  scheduler_->Admit(TimePoint());
  EXPECT_EQ(again->state.length, 0);
}

TEST_F(SchedulerTest, NothingIsHeldWhenAllAreGone) {
  Make({.step_tokens = 8, .prefill_chunk = 3, .sequences_max = 4}, 12);
  for (int i = 0; i < 10; ++i) Enqueue(3 + 2 * i);
  for (int i = 0; i < 25; ++i) Round();
  scheduler_->ForEach([](Sequence& sequence) { sequence.update.finish = Finish(); });
  EXPECT_EQ(scheduler_->RemoveFinished(step_).size(), 10u);
  EXPECT_THAT(step_, IsEmpty());
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(scheduler_->allocator().used(), 0);
}

}  // namespace
}  // namespace engram::compute
