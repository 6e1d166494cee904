// Fetches are keyed and checked: rows are handed over only to the step they were fetched for.
#include "compute/memory/prefetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::HasSubstr;

class PrefetcherTest : public testing::Test {
 protected:
  PrefetcherTest() : tiny_({}, 8, 1) {}
  StepTokens Step(int64_t first, std::span<const int32_t> tokens) const {
    return {1, first, tokens, table::NgramState()};
  }
  TinyEngine tiny_;
  const std::vector<int32_t> tokens_ = {5, 9, 11};
};

TEST_F(PrefetcherTest, HandsOverTheRowsOfTheTokensInOrder) {
  Prefetcher& prefetcher = *tiny_.prefetcher;
  ASSERT_TRUE(prefetcher.Submit(Step(0, tokens_)).ok());
  auto fetch = prefetcher.Take(Step(0, tokens_));
  ASSERT_TRUE(fetch.ok());
  EXPECT_EQ(prefetcher.late_fetches(), 0);
  const size_t row_bytes = tiny_.layout.row_format.row_bytes();
  const std::vector<int64_t> ids = {2, 4, 5};  // the map halves
  for (uint32_t l = 0; l < 2; ++l) {
    std::vector<uint64_t> expected(ids.size() * 4);
    table::HashRows(tiny_.layout, tiny_.layout.layers[l], {}, ids, {}, expected);
    auto rows = (*fetch)->Rows(l);
    ASSERT_TRUE(rows.ok());
    ASSERT_EQ(rows->size(), expected.size() * row_bytes);
    for (size_t i = 0; i < expected.size(); ++i) {
      std::vector<std::byte> row(row_bytes);
      FakeRowSource::FillRow(tiny_.layout.row_format, l, expected[i], row);
      EXPECT_TRUE(std::equal(row.begin(), row.end(),
                             rows->begin() + static_cast<ptrdiff_t>(i * row_bytes)));
    }
  }
  EXPECT_EQ(prefetcher.waits()[0].waits, 1);
}

TEST_F(PrefetcherTest, AFetchForOtherTokensOrPositionsIsNotUsed) {
  Prefetcher& prefetcher = *tiny_.prefetcher;
  ASSERT_TRUE(prefetcher.Submit(Step(0, tokens_)).ok());
  const std::vector<int32_t> other = {5, 9, 12};
  auto fetch = prefetcher.Take(Step(0, other));
  ASSERT_TRUE(fetch.ok());
  EXPECT_EQ(prefetcher.late_fetches(), 1);
  EXPECT_EQ(tiny_.source->submits, 2);
  prefetcher.Cancel();
  ASSERT_TRUE(prefetcher.Submit(Step(0, tokens_)).ok());
  ASSERT_TRUE(prefetcher.Take(Step(3, tokens_)).ok());
  EXPECT_EQ(prefetcher.late_fetches(), 2);
}

TEST_F(PrefetcherTest, AThirdFetchIsRefused) {
  Prefetcher& prefetcher = *tiny_.prefetcher;
  ASSERT_TRUE(prefetcher.Submit(Step(0, tokens_)).ok());
  ASSERT_TRUE(prefetcher.Submit(Step(3, tokens_)).ok());
  EXPECT_EQ(prefetcher.Submit(Step(6, tokens_)).code(), Code::kResourceExhausted);
  prefetcher.Cancel();
  EXPECT_TRUE(prefetcher.Submit(Step(6, tokens_)).ok());
}

TEST_F(PrefetcherTest, VerifyFindsRowsFetchedUnderAnotherHistory) {
  Prefetcher& prefetcher = *tiny_.prefetcher;
  ASSERT_TRUE(prefetcher.Submit(Step(1, tokens_)).ok());
  StepTokens consumed = Step(1, tokens_);
  consumed.before.Append(33);
  auto fetch = prefetcher.Take(consumed);
  ASSERT_TRUE(fetch.ok());
  const Status status = (*fetch)->Rows(0).status();
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("engram.verify: layer 1, position 1"));
}

TEST_F(PrefetcherTest, ATokenOutsideTheMapIsRefused) {
  EXPECT_EQ(tiny_.prefetcher->Submit(Step(0, std::vector<int32_t>{97})).code(), Code::kOutOfRange);
}

TEST_F(PrefetcherTest, CountsTheTimeAStepStoodStill) {
  FakeClock clock;
  Prefetcher prefetcher(tiny_.source.get(), tiny_.layout, tiny_.map, {}, clock);
  tiny_.source->on_event = [&](const std::string& event) {
    if (event == "wait 1") clock.Advance(std::chrono::microseconds(7));
  };
  auto fetch = prefetcher.Take(Step(0, tokens_));
  ASSERT_TRUE(fetch.ok());
  ASSERT_TRUE((*fetch)->Rows(0).ok());
  ASSERT_TRUE((*fetch)->Rows(1).ok());
  EXPECT_EQ(prefetcher.waits()[0].exposed_ns, 0);
  EXPECT_EQ(prefetcher.waits()[1].exposed_ns, 7000);
}

}  // namespace
}  // namespace engram::compute
