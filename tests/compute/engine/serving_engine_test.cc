// The engine over made-up rows: rows asked for ahead of time, errors that end one request and
// nothing else, limits, cancelling, draining.
#include "compute/engine/serving_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <numeric>
#include <thread>

#include "common/base/rng.h"
#include "tests/compute/run_completions.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const TinyOptions kPaper;

TEST(ServingEngine, EngramRowsChangeTheAnswer) {
  const std::vector<int32_t> tokens = RandomTokens(7, 30, 97);
  TinyEngine tiny(kPaper, 64, 1);
  const auto scores = tiny.Score(tokens);
  tiny.source->spoil = true;
  const auto changed = tiny.Score(tokens);
  ASSERT_TRUE(scores.ok() && changed.ok());
  EXPECT_NE(*scores, *changed);
}

TEST(ServingEngine, SameSeedSameTokensAndGreedyIgnoresTheSeed) {
  TinyEngine tiny(kPaper, 16, 1);
  const auto ids = [&](double temperature, uint64_t seed) {
    const auto result = tiny.Run(RequestOf(RandomTokens(8, 10, 97), 20, temperature, seed));
    EXPECT_TRUE(result.ok());
    return result->ids();
  };
  EXPECT_EQ(ids(0.9, 4), ids(0.9, 4));
  EXPECT_NE(ids(0.9, 4), ids(0.9, 5));
  EXPECT_EQ(ids(0, 4), ids(0, 5));
}

TEST(ServingEngine, StopsAtEndOfTextUnlessToldToIgnoreIt) {
  TinyEngine tiny(kPaper, 16, 1);
  CompletionRequest request = RequestOf(RandomTokens(8, 10, 97), 30);
  const std::vector<int32_t> free = tiny.Run(request)->ids();
  ASSERT_EQ(free.size(), 30u);
  const int32_t stop = free[3];
  const auto first = std::find(free.begin(), free.end(), stop) - free.begin();
  tiny.config.eos_ids = {stop};
  request.ignore_eos = false;
  const auto stopped = tiny.Run(request);
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->finish.reason, FinishReason::kStop);
  EXPECT_EQ(static_cast<int64_t>(stopped->tokens.size()), first + 1);
  EXPECT_EQ(stopped->finish.completion_tokens, first + 1);
}

TEST(ServingEngine, AsksForTheNextChunkBeforeThisOneComputesAndForATokenOnceSampled) {
  TinyEngine tiny(kPaper, 4, 1);
  std::vector<std::string> events;
  tiny.source->on_event = [&](const std::string& event) { events.push_back(event); };
  ASSERT_TRUE(tiny.Run(RequestOf(RandomTokens(8, 6, 97), 2)).ok());
  // 4 rows a position: chunks of 4 and 2 tokens, then one generated token is computed.
  EXPECT_THAT(events, ElementsAre("submit 16", "submit 8", "wait 0", "wait 1", "wait 0", "wait 1",
                                  "submit 4", "wait 0", "wait 1"));
  EXPECT_EQ(tiny.engine->Snapshot().late_tokens, 0);
}

TEST(ServingEngine, NoRowIsAskedForLateWhateverTheBatchDoes) {
  TinyServing serving;
  serving.pages = 24;
  serving.serving.scheduler = {.step_tokens = 24, .prefill_chunk = 7, .sequences_max = 5};
  TinyEngine tiny(kPaper, serving);
  std::vector<CompletionRequest> requests;
  for (uint64_t i = 0; i < 12; ++i) {
    requests.push_back(RequestOf(RandomTokens(i, 5 + static_cast<int64_t>(4 * i), 97), 30, 0.8, i));
  }
  for (const auto& result : RunCompletions(*tiny.engine, requests)) EXPECT_TRUE(result.ok());
  EXPECT_GT(tiny.engine->Snapshot().preemptions, 0);
  EXPECT_EQ(tiny.engine->Snapshot().late_tokens, 0);
}

TEST(ServingEngine, AMissingRowEndsTheRequestButNotTheEngine) {
  TinyEngine tiny(kPaper, 4, 1);
  tiny.source->fail_from_submit = 2;
  tiny.source->failure = Unavailable("memory node m1: 3 rows missing");
  const auto failed = tiny.Score(RandomTokens(8, 12, 97));
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), Code::kUnavailable);
  EXPECT_THAT(failed.status().message(), HasSubstr("layer 1"));
  EXPECT_THAT(failed.status().message(), HasSubstr("positions 4 to 7"));
  EXPECT_THAT(failed.status().message(), HasSubstr("memory node m1"));
  tiny.source->fail_from_submit = INT64_MAX;
  EXPECT_TRUE(tiny.Score(RandomTokens(8, 12, 97)).ok());
}

// Readiness follows the nodes also while the engine is idle.
TEST(ServingEngine, MemoryIsAsTheNodesAreNowNotAsTheLastStepFoundThem) {
  TinyEngine tiny(kPaper, 4, 1);
  tiny.source->failure = DeadlineExceeded("memory node m1: 3 rows missing");
  tiny.source->fail_from_submit = 1;
  EXPECT_FALSE(tiny.Score(RandomTokens(8, 12, 97)).ok());
  EXPECT_TRUE(tiny.engine->Snapshot().memory.ok()) << "the nodes answer";
  tiny.source->fail_from_submit = INT64_MAX;
  tiny.source->nodes.resize(3);
  tiny.source->nodes[0].status = Unavailable("memory node m0 is gone");
  tiny.source->nodes[2].status = Unavailable("memory node m2 does not answer");
  EXPECT_THAT(tiny.engine->Snapshot().memory.message(),
              testing::AllOf(HasSubstr("m0 is gone"), HasSubstr("m2 does not answer")));
  EXPECT_TRUE(tiny.Score(RandomTokens(8, 12, 97)).ok());
  EXPECT_FALSE(tiny.engine->Snapshot().memory.ok()) << "out of a cache, say";
  for (auto& node : tiny.source->nodes) node.status = OkStatus();
  EXPECT_TRUE(tiny.engine->Snapshot().memory.ok()) << "without a step";
}

TEST(ServingEngine, AMissingRowOfOneRequestDoesNotTouchAnother) {
  const CompletionRequest survivor = RequestOf(RandomTokens(1, 5, 97), 60);
  TinyEngine alone(kPaper);
  const auto expected = alone.Run(survivor);
  TinyEngine tiny(kPaper);
  // The survivor generates; the other's prompt, 40 rows and more at once, does not get its rows.
  tiny.source->fail_submits_above = 40;
  tiny.source->failure = DataLoss("a row's check does not match");
  const auto results =
      RunCompletions(*tiny.engine, {survivor, RequestOf(RandomTokens(2, 30, 97), 60)});
  ASSERT_TRUE(results[0].ok()) << results[0].status().message();
  EXPECT_EQ(results[0]->ids(), expected->ids());
  EXPECT_EQ(results[0]->logprobs(), expected->logprobs());
  EXPECT_EQ(results[1].status().code(), Code::kDataLoss);
  EXPECT_EQ(tiny.engine->Snapshot().pages_used, 0);
}

TEST(ServingEngine, DegradeClosesTheGateCountsItAndKeepsItOutOfThePrefixCache) {
  TinyServing serving;
  serving.serving.degrade = true;
  TinyEngine tiny(kPaper, serving);
  tiny.source->failure = Unavailable("memory node m1 is gone");
  tiny.source->fail_from_submit = 1;
  const CompletionRequest request = RequestOf(RandomTokens(2, 30, 97), 10);
  const auto degraded = tiny.Run(request);
  ASSERT_TRUE(degraded.ok()) << degraded.status().message();
  EXPECT_EQ(degraded->finish.degraded_positions, 30 + 9);
  EXPECT_EQ(tiny.engine->Snapshot().degraded_positions, 39);
  tiny.source->fail_from_submit = INT64_MAX;
  const auto whole = tiny.Run(request);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->finish.cached_tokens, 0);
  EXPECT_EQ(whole->finish.degraded_positions, 0);
  EXPECT_NE(whole->logprobs(), degraded->logprobs());
  TinyEngine never(kPaper);
  EXPECT_EQ(whole->logprobs(), never.Run(request)->logprobs());
}

TEST(ServingEngine, APreemptionDoesNotCountARequestsFiguresAgain) {
  TinyServing serving;
  serving.pages = 24;  // of 8 positions: room for two of the requests at their end
  serving.serving.degrade = true;
  serving.serving.scheduler = {.step_tokens = 24, .prefill_chunk = 7, .sequences_max = 5};
  TinyEngine tiny(kPaper, serving);
  tiny.source->failure = Unavailable("memory node m1 is gone");
  tiny.source->fail_from_submit = 1;
  std::vector<CompletionRequest> requests;
  constexpr int64_t kPrompt = 20, kTokens = 50;
  for (uint64_t i = 0; i < 8; ++i) {
    requests.push_back(RequestOf(RandomTokens(i, kPrompt, 97), kTokens, 0.8, i));
  }
  const auto results = RunCompletions(*tiny.engine, requests);
  const EngineSnapshot snapshot = tiny.engine->Snapshot();
  ASSERT_GT(snapshot.preemptions, 0);
  for (const auto& result : results) {
    ASSERT_TRUE(result.ok()) << result.status().message();
    // The last token is never computed.
    EXPECT_EQ(result->finish.degraded_positions, kPrompt + kTokens - 1);
    EXPECT_EQ(result->finish.cached_tokens, 0);
    EXPECT_EQ(result->finish.completion_tokens, kTokens);
  }
  EXPECT_EQ(snapshot.degraded_positions, 8 * (kPrompt + kTokens - 1));
  EXPECT_EQ(snapshot.prompt_tokens, 8 * kPrompt);
  EXPECT_EQ(snapshot.generated_tokens, 8 * kTokens);
  EXPECT_EQ(snapshot.prefix_queried_tokens, 8 * kPrompt);
  EXPECT_EQ(snapshot.prefix_hit_tokens, 0);
}

TEST(ServingEngine, APreemptedRequestsOwnPagesAreNoPrefixHit) {
  TinyServing serving;
  serving.pages = 24;
  serving.serving.scheduler = {.step_tokens = 24, .prefill_chunk = 7, .sequences_max = 5};
  TinyEngine tiny(kPaper, serving);
  std::vector<CompletionRequest> requests;
  for (uint64_t i = 0; i < 8; ++i) {
    requests.push_back(RequestOf(RandomTokens(i, 20, 97), 50, 0.8, i));
  }
  for (const auto& result : RunCompletions(*tiny.engine, requests)) {
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_EQ(result->finish.cached_tokens, 0);
  }
  const EngineSnapshot snapshot = tiny.engine->Snapshot();
  ASSERT_GT(snapshot.preemptions, 0);
  EXPECT_EQ(snapshot.prompt_tokens, 8 * 20);
  EXPECT_EQ(snapshot.prefix_hit_tokens, 0);
}

// No weight is read from the mapping once they are packed, not even one that is not.
TEST(ServingEngine, AModelFileThatIsTruncatedLaterChangesNoAnswer) {
  const TinyOptions models[] = {kPaper,
                                {.variant = "v41", .fp8_wkv = true},
                                {.dtype = DType::kF32},
                                {.some_f32_experts = true},
                                {.variant = "", .streams = 1}};
  for (const TinyOptions& options : models) {
    const CompletionRequest request = RequestOf(RandomTokens(4, 30, 97), 10);
    TinyEngine whole(options);
    TinyServing serving;
    serving.truncated = true;
    TinyEngine truncated(options, serving);
    const auto expected = whole.Run(request), got = truncated.Run(request);
    ASSERT_TRUE(expected.ok() && got.ok()) << got.status().message();
    EXPECT_EQ(got->ids(), expected->ids());
    EXPECT_EQ(got->logprobs(), expected->logprobs());
    EXPECT_EQ(truncated.checkpoint->CheckUnchanged().code(), Code::kDataLoss);
  }
}

TEST(ServingEngine, RefusesWhatItCannotCompute) {
  TinyServing serving;
  serving.pages = 5;  // 40 positions
  TinyEngine tiny(kPaper, serving);
  const auto error = [&](CompletionRequest request) { return tiny.Run(request).status(); };
  EXPECT_EQ(error(RequestOf({}, 1)).code(), Code::kInvalidArgument);
  EXPECT_EQ(error(RequestOf({1, 97}, 1)).code(), Code::kOutOfRange);
  EXPECT_THAT(error(RequestOf({1, 97}, 1)).message(), HasSubstr("token 97 at index 1"));
  EXPECT_FALSE(error(RequestOf({-1}, 1)).ok());
  EXPECT_THAT(error(RequestOf({1}, 0)).message(), HasSubstr("at least one"));
  EXPECT_THAT(error(RequestOf(RandomTokens(1, 30, 97), 11)).message(), HasSubstr("cache.mib"));
  EXPECT_THAT(error(RequestOf(RandomTokens(1, 30, 97), INT64_MAX)).message(),
              HasSubstr("the 40 positions"));
  EXPECT_THAT(error(RequestOf({1}, 1, -1)).message(), HasSubstr("temperature"));
  EXPECT_TRUE(error(RequestOf(RandomTokens(1, 30, 97), 10)).ok());
}

TEST(ServingEngine, NonFiniteLogitsAreAnErrorNotAnAnswer) {
  TinyEngine tiny({.variant = "", .streams = 1}, 4, 1);
  tiny.weights.norm[3] = NAN;
  EXPECT_EQ(tiny.Score(RandomTokens(8, 5, 97)).status().code(), Code::kInternal);
  EXPECT_EQ(tiny.Run(RequestOf({1, 2}, 3)).status().code(), Code::kInternal);
}

// Lets the engine stand still inside a step until told to go on.
class Gate {
 public:
  explicit Gate(FakeRowSource& source) {
    source.on_event = [this](const std::string&) {
      if (reached_) return;
      reached_ = true;
      arrived_.set_value();
      open_.get_future().wait();
    };
  }
  void AwaitArrival() { arrived_.get_future().wait(); }
  void Open() { open_.set_value(); }

 private:
  bool reached_ = false;
  std::promise<void> arrived_, open_;
};

TEST(ServingEngine, AFullQueueRefusesAndSaysSo) {
  TinyServing serving;
  serving.serving.queue_max = 2;
  TinyEngine tiny(kPaper, serving);
  Gate gate(*tiny.source);
  const auto ignore = [](Update) {};
  ASSERT_TRUE(tiny.engine->Submit(RequestOf({1, 2}, 2), ignore).ok());
  gate.AwaitArrival();  // the first one runs; its step does not end
  EXPECT_TRUE(tiny.engine->Submit(RequestOf({1}, 1), ignore).ok());
  EXPECT_TRUE(tiny.engine->Submit(RequestOf({1}, 1), ignore).ok());
  EXPECT_EQ(tiny.engine->Snapshot().waiting, 2);
  const auto refused = tiny.engine->Submit(RequestOf({1}, 1), ignore);
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("2 requests are waiting"));
  gate.Open();
  while (tiny.engine->Snapshot().waiting > 0) std::this_thread::yield();
  EXPECT_TRUE(tiny.Run(RequestOf({1}, 1)).ok());
}

TEST(ServingEngine, AProbeGoesBeforeAFullQueueAndBesideTheRunningOnes) {
  TinyServing serving;
  serving.serving.queue_max = 2;
  serving.serving.scheduler.sequences_max = 1;
  TinyEngine tiny(kPaper, serving);
  std::atomic<int> ended = 0;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) {
    const auto id = tiny.engine->Submit(RequestOf({1, 2}, 100), [&](const Update& update) {
      if (update.finish) ++ended;
    });
    if (id.ok()) ids.push_back(*id);
  }
  CompletionRequest probe = RequestOf({0}, 1);
  probe.is_probe = true;
  std::promise<int> others_ended;
  ASSERT_TRUE(tiny.engine
                  ->Submit(probe,
                           [&](const Update& update) {
                             if (update.finish) others_ended.set_value(ended);
                           })
                  .ok());
  EXPECT_LT(others_ended.get_future().get(), 2) << "it did not wait for those before it";
  for (const uint64_t id : ids) tiny.engine->Cancel(id);
  while (ended < static_cast<int>(ids.size())) std::this_thread::yield();
}

TEST(ServingEngine, ToldPhasesStepsAndLookupsAreThoseThatHappened) {
  TinyEngine tiny(kPaper, 4, 1);
  const auto result = tiny.Run(RequestOf(RandomTokens(8, 6, 97), 3));
  ASSERT_TRUE(result.ok());
  EXPECT_GT(result->finish.queue_time, Nanos::zero());
  EXPECT_GT(result->finish.prefill_time, Nanos::zero());
  EXPECT_GT(result->finish.decode_time, Nanos::zero());
  const EngineSnapshot snapshot = tiny.engine->Snapshot();
  EXPECT_EQ(snapshot.step_tokens.sum, 8) << "chunks of 4 and 2, two tokens by themselves";
  EXPECT_EQ(snapshot.step_tokens.counts[0], 2u);
  EXPECT_EQ(std::accumulate(snapshot.step_tokens.counts.begin(), snapshot.step_tokens.counts.end(),
                            uint64_t{0}),
            4u);
}

TEST(ServingEngine, ACancelledRequestEndsWithAbortAndFreesItsPages) {
  TinyEngine tiny(kPaper);
  Gate gate(*tiny.source);
  std::promise<Finish> finished;
  const auto id = tiny.engine->Submit(RequestOf(RandomTokens(1, 20, 97), 400), [&](Update update) {
    if (update.finish) finished.set_value(*update.finish);
  });
  ASSERT_TRUE(id.ok());
  gate.AwaitArrival();
  tiny.engine->Cancel(*id);
  tiny.engine->Cancel(12345);
  gate.Open();
  const Finish finish = finished.get_future().get();
  EXPECT_EQ(finish.reason, FinishReason::kAbort);
  EXPECT_LE(finish.completion_tokens, 1);
  EXPECT_EQ(tiny.engine->Snapshot().pages_used, 0);
  EXPECT_EQ(tiny.engine->Snapshot().running, 0);
}

TEST(ServingEngine, AbortingAnIdleEngineDoesNotTouchWhatComesLater) {
  TinyEngine tiny(kPaper);
  tiny.engine->AbortAll();
  const auto later = tiny.Run(RequestOf({1, 2}, 5));
  EXPECT_TRUE(later.ok()) << later.status().message();
}

TEST(ServingEngine, AbortingEndsWhatRunsAndWhatWaits) {
  TinyServing serving;
  serving.serving.scheduler.sequences_max = 1;
  TinyEngine tiny(kPaper, serving);
  Gate gate(*tiny.source);
  std::atomic<int> aborted{0};
  for (int i = 0; i < 3; ++i) {
    const auto count = [&](const Update& update) {
      aborted += update.finish && update.finish->reason == FinishReason::kAbort ? 1 : 0;
    };
    ASSERT_TRUE(tiny.engine->Submit(RequestOf({1, 2}, 400), count).ok());
  }
  gate.AwaitArrival();
  tiny.engine->AbortAll();
  gate.Open();
  EXPECT_TRUE(tiny.Run(RequestOf({1}, 1)).ok());
  EXPECT_EQ(aborted, 3);
}

TEST(ServingEngine, ARequestPastItsDeadlineEndsWithThatError) {
  TinyEngine tiny(kPaper);
  CompletionRequest request = RequestOf({1, 2, 3}, 400);
  request.deadline = Clock::Real().Now();
  const auto late = tiny.Run(request);
  EXPECT_EQ(late.status().code(), Code::kDeadlineExceeded);
  EXPECT_THAT(late.status().message(), HasSubstr("of 400 tokens"));
}

TEST(ServingEngine, DrainingRefusesNewRequestsAndFinishesTheOthers) {
  TinyEngine tiny(kPaper);
  Gate gate(*tiny.source);
  std::promise<Finish> finished;
  ASSERT_TRUE(tiny.engine
                  ->Submit(RequestOf({1, 2}, 20),
                           [&](Update update) {
                             if (update.finish) finished.set_value(*update.finish);
                           })
                  .ok());
  gate.AwaitArrival();
  tiny.engine->StartDraining();
  EXPECT_TRUE(tiny.engine->Snapshot().draining);
  EXPECT_EQ(tiny.Run(RequestOf({1}, 1)).status().code(), Code::kUnavailable);
  gate.Open();
  EXPECT_EQ(finished.get_future().get().reason, FinishReason::kLength);
}

TEST(ServingEngine, ClosingAbortsWhatRunsAndWhatWaits) {
  std::vector<FinishReason> reasons;
  {
    TinyServing serving;
    serving.serving.scheduler.sequences_max = 1;
    TinyEngine tiny(kPaper, serving);
    Gate gate(*tiny.source);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(tiny.engine
                      ->Submit(RequestOf({1, 2}, 400),
                               [&](Update update) {
                                 if (update.finish) reasons.push_back(update.finish->reason);
                               })
                      .ok());
    }
    gate.AwaitArrival();
    std::thread opener([&] { gate.Open(); });
    tiny.engine.reset();
    opener.join();
  }
  EXPECT_THAT(reasons, testing::Each(FinishReason::kAbort));
  EXPECT_EQ(reasons.size(), 3u);
}

TEST(ServingEngine, EveryUpdateHasTheFiguresUpToItsTokens) {
  TinyServing serving;
  serving.serving.degrade = true;
  TinyEngine tiny(kPaper, serving);
  CompletionRequest request = RequestOf(RandomTokens(2, 30, 97), 10);
  request.ignore_eos = true;
  ASSERT_TRUE(tiny.Run(request).ok());  // three pages of the prompt are cached now, and one more
  tiny.source->failure = Unavailable("memory node m1 is gone");
  tiny.source->fail_from_submit = 1;
  std::vector<Update> updates;
  std::promise<void> ended;
  ASSERT_TRUE(tiny.engine
                  ->Submit(request,
                           [&](Update update) {
                             updates.push_back(std::move(update));
                             if (updates.back().finish) ended.set_value();
                           })
                  .ok());
  ended.get_future().wait();
  ASSERT_EQ(updates.size(), 10u);
  for (size_t i = 0; i < updates.size(); ++i) {
    EXPECT_EQ(updates[i].cached_tokens, 24);
    EXPECT_EQ(updates[i].degraded_positions, static_cast<int64_t>(6 + i)) << i;
  }
  EXPECT_EQ(updates.back().finish->cached_tokens, 24);
  EXPECT_EQ(updates.back().finish->degraded_positions, 15);
}

TEST(ServingEngine, EveryWayOfEndingHasTheFigures) {
  const auto degrading = [](TinyEngine& tiny) {
    tiny.source->failure = Unavailable("memory node m1 is gone");
    tiny.source->fail_from_submit = 1;
  };
  TinyServing serving;
  serving.serving.degrade = true;
  // Runs until it has made a token, is ended so, and tells the last update.
  const auto last_update = [&](const std::function<void(TinyEngine&, uint64_t)>& end,
                               CompletionRequest request) {
    TinyEngine tiny(kPaper, serving);
    degrading(tiny);
    std::promise<void> began, ended;
    bool has_begun = false;
    Update last;
    const auto id = tiny.engine->Submit(std::move(request), [&](Update update) {
      if (!std::exchange(has_begun, true)) began.set_value();
      if (!update.finish) return;
      last = std::move(update);
      ended.set_value();
    });
    CHECK(id.ok()) << id.status().message();
    began.get_future().wait();
    end(tiny, *id);
    ended.get_future().wait();
    return last;
  };
  const auto expect_figures = [](const Update& last, FinishReason reason) {
    ASSERT_TRUE(last.finish.has_value());
    EXPECT_EQ(last.finish->reason, reason);
    EXPECT_GE(last.degraded_positions, 30);
    EXPECT_EQ(last.degraded_positions, last.finish->degraded_positions);
    EXPECT_GT(last.finish->queue_time, Nanos::zero());
    EXPECT_GT(last.finish->prefill_time, Nanos::zero());
    EXPECT_GT(last.finish->decode_time, Nanos::zero());
  };
  const auto wait = [](TinyEngine&, uint64_t) {};
  CompletionRequest request = RequestOf(RandomTokens(2, 30, 97), 3);
  request.ignore_eos = true;
  expect_figures(last_update(wait, request), FinishReason::kLength);
  std::vector<int32_t> made;
  {
    TinyEngine tiny(kPaper, serving);
    degrading(tiny);
    made = tiny.Run(request)->ids();
  }
  request.stop_ids = {made[2]};
  request.tokens_max = 300;
  expect_figures(last_update(wait, request), FinishReason::kStop);
  request.stop_ids.clear();
  expect_figures(
      last_update([](TinyEngine& tiny, uint64_t id) { tiny.engine->Cancel(id); }, request),
      FinishReason::kAbort);
  expect_figures(last_update([](TinyEngine& tiny, uint64_t) { tiny.engine->AbortAll(); }, request),
                 FinishReason::kAbort);
  expect_figures(last_update([](TinyEngine& tiny, uint64_t) { tiny.engine.reset(); }, request),
                 FinishReason::kAbort);
}

TEST(ServingEngine, AStopIdEndsARequestAsItsLastToken) {
  TinyEngine tiny(kPaper);
  CompletionRequest request = RequestOf({1, 2, 3}, 20);
  request.ignore_eos = true;
  const std::vector<int32_t> all = tiny.Run(request)->ids();
  request.stop_ids = {96, all[7]};
  const auto stopped = tiny.Run(request);
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->finish.reason, FinishReason::kStop);
  const auto first =
      std::find_first_of(all.begin(), all.end(), request.stop_ids.begin(), request.stop_ids.end());
  EXPECT_EQ(stopped->ids(), std::vector<int32_t>(all.begin(), first + 1));
}

TEST(ServingEngine, RandomCancellingLeavesNothingBehind) {
  TinyServing serving;
  serving.pages = 40;
  serving.serving.queue_max = 1000;
  serving.serving.scheduler = {.step_tokens = 64, .prefill_chunk = 16, .sequences_max = 6};
  TinyEngine tiny(kPaper, serving);
  Rng rng(3);
  std::atomic<int> finishes{0};
  for (int i = 0; i < 300; ++i) {
    const auto length = static_cast<int64_t>(1 + rng.NextBelow(60));
    const auto id =
        tiny.engine->Submit(RequestOf(RandomTokens(rng.NextBelow(20), length, 97),
                                      static_cast<int64_t>(1 + rng.NextBelow(12)), 0.5, 1),
                            [&](Update update) { finishes += update.finish ? 1 : 0; });
    ASSERT_TRUE(id.ok()) << id.status().message();
    if (rng.NextBelow(10) == 0) tiny.engine->Cancel(1 + rng.NextBelow(*id));
  }
  EXPECT_TRUE(tiny.Run(RequestOf({1}, 1)).ok());  // admitted after all others
  while (tiny.engine->Snapshot().running + tiny.engine->Snapshot().waiting > 0) {
    std::this_thread::yield();
  }
  EXPECT_EQ(finishes, 300);
  EXPECT_EQ(tiny.engine->Snapshot().pages_used, 0);
}

}  // namespace
}  // namespace engram::compute
