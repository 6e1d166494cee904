// Fetches are keyed and checked: rows are handed over only to the step they were fetched for.
#include "compute/memory/prefetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/tiny_model.h"
#include "tests/support/fakes/fake_clock.h"

namespace engram::compute {
namespace {

using testing::HasSubstr;

class PrefetcherTest : public testing::Test {
 protected:
  PrefetcherTest() : tiny_({}, 8, 1) {}
  static TokenRun Run(int64_t first, std::span<const int32_t> tokens, uint64_t sequence = 1) {
    return {sequence, first, tokens, table::NgramState()};
  }
  Status Submit(const TokenRun& run) {
    return prefetcher_.Submit({&run, 1}, client::Priority::kPrefill);
  }
  StepRows Take(const TokenRun& run) { return prefetcher_.Take({&run, 1}); }
  // The bytes that the rows of these tokens must have.
  std::vector<std::byte> Expected(uint32_t layer, std::span<const int32_t> tokens) const {
    std::vector<int64_t> ids;
    for (const int32_t token : tokens) ids.push_back(token / 2);  // the map halves
    std::vector<uint64_t> rows(ids.size() * 4);
    table::HashRows(tiny_.layout, tiny_.layout.layers[layer], {}, ids, {}, rows);
    const size_t row_bytes = tiny_.layout.row_format.row_bytes();
    std::vector<std::byte> bytes(rows.size() * row_bytes);
    for (size_t i = 0; i < rows.size(); ++i) {
      FakeRowSource::FillRow(tiny_.layout.row_format, layer, rows[i],
                             std::span(bytes).subspan(i * row_bytes, row_bytes));
    }
    return bytes;
  }
  static std::vector<std::byte> Bytes(std::span<const std::byte> rows) {
    return {rows.begin(), rows.end()};
  }

  TinyEngine tiny_;
  Prefetcher& prefetcher_ = *tiny_.prefetcher;
  const std::vector<int32_t> tokens_ = {5, 9, 11};
  const std::vector<int32_t> others_ = {40, 2};
};

TEST_F(PrefetcherTest, HandsOverTheRowsOfTheTokensInOrder) {
  ASSERT_TRUE(Submit(Run(0, tokens_)).ok());
  StepRows rows = Take(Run(0, tokens_));
  EXPECT_EQ(prefetcher_.late_tokens(), 0);
  for (uint32_t l = 0; l < 2; ++l) {
    rows.Wait(l);
    EXPECT_EQ(Bytes(rows.Rows(0, l)), Expected(l, tokens_));
  }
  EXPECT_EQ(prefetcher_.waits()[0].waits, 1);
}

TEST_F(PrefetcherTest, AStepTakesItsRunsFromSeveralFetchesInAnyOrder) {
  const std::vector<TokenRun> both = {Run(0, tokens_, 1), Run(7, others_, 2)};
  const std::vector<int32_t> one = {77};
  ASSERT_TRUE(prefetcher_.Submit(both, client::Priority::kPrefill).ok());
  ASSERT_TRUE(Submit(Run(3, one, 3)).ok());
  EXPECT_EQ(tiny_.source->submits, 2);
  const std::vector<TokenRun> wanted = {Run(3, one, 3), Run(7, others_, 2), Run(0, tokens_, 1)};
  StepRows rows = prefetcher_.Take(wanted);
  rows.Wait(1);
  EXPECT_EQ(Bytes(rows.Rows(0, 1)), Expected(1, one));
  EXPECT_EQ(Bytes(rows.Rows(1, 1)), Expected(1, others_));
  EXPECT_EQ(Bytes(rows.Rows(2, 1)), Expected(1, tokens_));
  EXPECT_EQ(prefetcher_.late_tokens(), 0);
}

TEST_F(PrefetcherTest, RowsFetchedForOtherTokensPositionsOrSequencesAreNotUsed) {
  ASSERT_TRUE(Submit(Run(0, tokens_)).ok());
  const std::vector<int32_t> changed = {5, 9, 12};
  for (const TokenRun& run : {Run(0, changed), Run(3, tokens_), Run(0, tokens_, 2)}) {
    const int64_t late = prefetcher_.late_tokens();
    StepRows rows = Take(run);
    EXPECT_EQ(prefetcher_.late_tokens(), late + 3);
    rows.Wait(0);
    EXPECT_EQ(Bytes(rows.Rows(0, 0)), Expected(0, run.tokens));
  }
}

TEST_F(PrefetcherTest, AFetchUnusedInTheNextStepIsGivenUp) {
  ASSERT_TRUE(Submit(Run(0, tokens_)).ok());
  prefetcher_.EndStep(Take(Run(0, others_, 2)));  // the step under way at the time of submission
  StepRows rows = Take(Run(0, tokens_));
  EXPECT_EQ(prefetcher_.late_tokens(), 2);
  prefetcher_.EndStep(std::move(rows));
  ASSERT_TRUE(Submit(Run(0, tokens_)).ok());
  prefetcher_.EndStep(Take(Run(0, others_, 2)));
  prefetcher_.EndStep(Take(Run(2, others_, 2)));
  StepRows late = Take(Run(0, tokens_));
  EXPECT_EQ(prefetcher_.late_tokens(), 2 + 2 + 2 + 3);
}

TEST_F(PrefetcherTest, FetchesUnderWayAreLimited) {
  for (size_t i = 0; i < Prefetcher::kFetchesMax; ++i) {
    ASSERT_TRUE(Submit(Run(static_cast<int64_t>(i), others_)).ok());
  }
  EXPECT_EQ(Submit(Run(9, tokens_)).code(), Code::kResourceExhausted);
  const StepRows rows = Take(Run(9, tokens_));
  EXPECT_EQ(rows.status(0).code(), Code::kResourceExhausted);
  EXPECT_TRUE(rows.Rows(0, 0).empty());
  prefetcher_.Cancel();
  EXPECT_TRUE(Submit(Run(9, tokens_)).ok());
}

TEST_F(PrefetcherTest, AFailedFetchFailsItsRunsAndNoOthers) {
  tiny_.source->failure = Unavailable("memory node m1: 3 rows missing");
  ASSERT_TRUE(Submit(Run(0, tokens_, 1)).ok());
  tiny_.source->fail_from_submit = 2;
  ASSERT_TRUE(Submit(Run(7, others_, 2)).ok());
  const std::vector<TokenRun> wanted = {Run(7, others_, 2), Run(0, tokens_, 1)};
  StepRows rows = prefetcher_.Take(wanted);
  rows.Wait(0);
  EXPECT_EQ(rows.status(0).code(), Code::kUnavailable);
  EXPECT_THAT(rows.status(0).message(), HasSubstr("layer 1, positions 7 to 8: memory node m1"));
  EXPECT_TRUE(rows.Rows(0, 0).empty());
  EXPECT_TRUE(rows.status(1).ok());
  EXPECT_EQ(Bytes(rows.Rows(1, 0)), Expected(0, tokens_));
}

TEST_F(PrefetcherTest, WhenASharedLookupFailsEachRunIsAskedForAlone) {
  tiny_.source->failure = DataLoss("a row's check does not match");
  tiny_.source->fail_submits_above = 8;  // rows a layer: 4 a token
  const std::vector<TokenRun> runs = {Run(0, tokens_, 1), Run(7, others_, 2)};
  ASSERT_TRUE(prefetcher_.Submit(runs, client::Priority::kPrefill).ok());
  StepRows rows = prefetcher_.Take(runs);
  for (uint32_t l = 0; l < 2; ++l) {
    rows.Wait(l);
    EXPECT_TRUE(rows.Rows(0, l).empty());
    EXPECT_EQ(Bytes(rows.Rows(1, l)), Expected(l, others_));
  }
  EXPECT_EQ(rows.status(0).code(), Code::kDataLoss);
  EXPECT_TRUE(rows.status(1).ok());
  EXPECT_EQ(tiny_.source->submits, 3);
}

// A node that is gone or skipped refuses a lookup as a whole, also for runs that do not need it.
TEST_F(PrefetcherTest, RunsThatAreRefusedTogetherAreAskedForOneByOne) {
  tiny_.source->failure = Unavailable("memory node m1: does not answer; it is skipped");
  tiny_.source->refuse_submits_above = 8;  // rows a layer: 4 a token
  const std::vector<TokenRun> runs = {Run(0, tokens_, 1), Run(7, others_, 2)};
  StepRows rows = prefetcher_.Take(runs);
  rows.Wait(0);
  EXPECT_EQ(rows.status(0).code(), Code::kUnavailable);
  EXPECT_THAT(rows.status(0).message(), HasSubstr("positions 0 to 2: memory node m1"));
  EXPECT_TRUE(rows.status(1).ok());
  EXPECT_EQ(Bytes(rows.Rows(1, 0)), Expected(0, others_));
}

TEST_F(PrefetcherTest, WhenTheTimeIsUpNothingIsAskedForAgain) {
  tiny_.source->failure = DeadlineExceeded("memory node m1 did not answer in 2000 ms");
  tiny_.source->fail_from_submit = 1;
  const std::vector<TokenRun> runs = {Run(0, tokens_, 1), Run(7, others_, 2)};
  StepRows rows = prefetcher_.Take(runs);
  rows.Wait(0);
  EXPECT_EQ(rows.status(1).code(), Code::kDeadlineExceeded);
  EXPECT_EQ(tiny_.source->submits, 1);
}

TEST_F(PrefetcherTest, VerifyFindsRowsFetchedUnderAnotherHistory) {
  ASSERT_TRUE(Submit(Run(1, tokens_)).ok());
  TokenRun consumed = Run(1, tokens_);
  consumed.before.Append(33);
  StepRows rows = Take(consumed);
  rows.Wait(0);
  EXPECT_EQ(rows.status(0).code(), Code::kInternal);
  EXPECT_THAT(rows.status(0).message(), HasSubstr("engram.verify: layer 1, position 1"));
  EXPECT_TRUE(rows.Rows(0, 0).empty());
}

TEST_F(PrefetcherTest, ATokenOutsideTheMapIsRefused) {
  const std::vector<int32_t> outside = {97};
  EXPECT_EQ(Submit(Run(0, outside)).code(), Code::kOutOfRange);
  EXPECT_EQ(Take(Run(0, outside)).status(0).code(), Code::kOutOfRange);
}

TEST_F(PrefetcherTest, CountsTheTimeAStepStoodStill) {
  FakeClock clock;
  Prefetcher prefetcher(tiny_.source.get(), tiny_.layout, tiny_.map, {}, clock);
  tiny_.source->on_event = [&](const std::string& event) {
    if (event == "wait 1") clock.Advance(std::chrono::microseconds(7));
  };
  const TokenRun run = Run(0, tokens_);
  StepRows rows = prefetcher.Take({&run, 1});
  rows.Wait(0);
  rows.Wait(1);
  EXPECT_EQ(prefetcher.waits()[0].exposed_ns, 0);
  EXPECT_EQ(prefetcher.waits()[1].exposed_ns, 7000);
  EXPECT_EQ(prefetcher.exposed_ns(), 7000);
}

}  // namespace
}  // namespace engram::compute
