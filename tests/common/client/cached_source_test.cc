// CachedSource: the caller cannot tell it from its inner source, except that it is asked less.
#include "common/client/cached_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/common/client/lookup/fake_cluster.h"
#include "tests/common/client/scripted_source.h"
#include "tests/support/allocation_count.h"

namespace engram::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::AllocationCount;

constexpr uint64_t kCacheBytes = 4 << 20;

class CachedSourceTest : public testing::Test {
 protected:
  CachedSourceTest() {
    auto inner = std::make_unique<ScriptedSource>();
    inner_ = inner.get();
    auto made = CachedSource::Make(std::move(inner), MakeTestLayout(), {kCacheBytes});
    CHECK(made.ok()) << made.status().ToString();
    source_ = std::move(*made);
  }

  Ticket Submit(Lookup& lookup, TimePoint deadline = TimePoint::max()) {
    const std::vector<LayerLookup> layers = lookup.Layers();
    auto ticket = source_->Submit(layers, deadline);
    CHECK(ticket.ok()) << ticket.status().ToString();
    return std::move(*ticket);
  }
  // Through to the last layer; both right.
  void Fetch(Lookup& lookup) {
    lookup.Resize();
    auto ticket = Submit(lookup);
    for (const uint32_t layer : {0u, 1u}) {
      EXPECT_TRUE(ticket.Wait(layer).ok());
      EXPECT_TRUE(lookup.Right(layer)) << layer;
    }
  }

  ScriptedSource* inner_ = nullptr;  // owned by source_
  std::unique_ptr<CachedSource> source_;
};

TEST_F(CachedSourceTest, TheSecondTimeNobodyIsAsked) {
  Lookup lookup(1, 40);
  Fetch(lookup);
  EXPECT_EQ(inner_->submits, 1u);
  lookup.Resize();
  auto ticket = Submit(lookup);
  EXPECT_TRUE(lookup.Right(0) && lookup.Right(1)) << "hits are there at once";
  EXPECT_TRUE(ticket.Ready(0) && ticket.Ready(1));
  EXPECT_TRUE(ticket.Wait(0).ok() && ticket.Wait(1).ok());
  EXPECT_EQ(inner_->submits, 1u);
  EXPECT_EQ(source_->stats().rows_asked, 160u);
  EXPECT_EQ(source_->stats().rows_distinct, 80u);
  EXPECT_EQ(source_->cache_stats().Total().hits, 40u);
  EXPECT_EQ(source_->cache_stats().Total().misses, 40u);
}

TEST_F(CachedSourceTest, NothingKnownGoesStraightIntoTheCallersBuffer) {
  Lookup lookup(2, 10);
  Fetch(lookup);
  ASSERT_EQ(inner_->asked.size(), 2u);
  EXPECT_EQ(inner_->asked[0].out, lookup.bytes[0].data());
  EXPECT_EQ(inner_->asked[1].rows, lookup.rows[1]);
}

TEST_F(CachedSourceTest, OnlyTheNgramsNotKnownAreAskedFor) {
  Lookup lookup(3, 0);
  lookup.rows[0] = {1, 1001, 2, 1002, 3, 1003};
  lookup.rows[1] = {1, 1501};
  Fetch(lookup);
  inner_->asked.clear();
  lookup.rows[0] = {2, 1002, 9, 1003, 1, 1001, 3, 1009, 9, 1003};
  Fetch(lookup);
  ASSERT_EQ(inner_->asked.size(), 1u) << "layer 1 was known";
  EXPECT_EQ(inner_->asked[0].layer_index, 0u);
  EXPECT_THAT(inner_->asked[0].rows, ElementsAre(9, 1003, 3, 1009, 9, 1003));
  EXPECT_EQ(source_->cache_stats().layers[0][0].inserts, 5u);
}

TEST_F(CachedSourceTest, ListsThatAreNotWholeNgramsPassThrough) {
  Lookup lookup(4, 7);
  Fetch(lookup);
  Fetch(lookup);
  EXPECT_EQ(inner_->submits, 2u);
  EXPECT_EQ(source_->cache_stats().Total().misses, 0u);
}

TEST_F(CachedSourceTest, DeadlinesAndPriorityPassThrough) {
  Lookup lookup(5, 4);
  Fetch(lookup);
  lookup.rows[0][3] += 1;  // so that the request is cut
  std::vector<LayerLookup> layers = lookup.Layers();
  const TimePoint soon = Clock::Real().Now() + std::chrono::seconds(7);
  layers[0].deadline = soon;
  const TimePoint later = soon + std::chrono::seconds(1);
  inner_->asked.clear();
  ASSERT_TRUE(source_->Submit(layers, {later, Priority::kPrefill}).ok());
  ASSERT_EQ(inner_->asked.size(), 1u);
  EXPECT_EQ(inner_->asked[0].deadline, soon);
  EXPECT_EQ(inner_->options.back().deadline, later);
  EXPECT_EQ(inner_->options.back().priority, Priority::kPrefill);
}

TEST_F(CachedSourceTest, AFailedLayerIsToldAndNeverCached) {
  Lookup lookup(6, 20);
  inner_->FailLayer(1, Unavailable("node m1 is gone"));
  {
    auto ticket = Submit(lookup);
    EXPECT_TRUE(ticket.Wait(0).ok());
    EXPECT_TRUE(lookup.Right(0));
    EXPECT_EQ(ticket.Wait(1).code(), Code::kUnavailable);
    EXPECT_EQ(ticket.Wait(1).code(), Code::kUnavailable) << "again";
  }
  EXPECT_EQ(source_->cache_stats().layers[1][0].inserts, 0u);
  EXPECT_EQ(source_->cache_stats().layers[1][1].inserts, 0u);
  {
    lookup.Resize();
    auto ticket = Submit(lookup);
    EXPECT_TRUE(ticket.Wait(0).ok()) << "known: needs no node";
    EXPECT_TRUE(lookup.Right(0));
    EXPECT_THAT(ticket.Wait(1).message(), HasSubstr("m1"));
  }
  inner_->FailNothing();
  Fetch(lookup);
}

TEST_F(CachedSourceTest, ARefusedLookupIsRefusedAndTheNextOneWorks) {
  Lookup lookup(7, 20);
  const std::vector<LayerLookup> layers = lookup.Layers();
  inner_->FailSubmit(ResourceExhausted("too many"));
  EXPECT_EQ(source_->Submit(layers, TimePoint::max()).status().code(), Code::kResourceExhausted);
  inner_->FailNothing();
  Fetch(lookup);
  EXPECT_EQ(source_->stats().rows_asked, 40u);
}

TEST_F(CachedSourceTest, MalformedLookupsAreTheInnerSourcesToRefuse) {
  Lookup lookup(8, 4);
  Fetch(lookup);  // now everything is known
  lookup.Resize();
  inner_->FailSubmit(InvalidArgument("no"));
  std::vector<LayerLookup> layers = lookup.Layers();
  layers[1].layer_index = 0;
  EXPECT_FALSE(source_->Submit(layers, TimePoint::max()).ok()) << "a layer twice";
  layers[1].layer_index = 2;
  EXPECT_FALSE(source_->Submit(layers, TimePoint::max()).ok()) << "no such layer";
  layers = lookup.Layers();
  layers[1].out = layers[1].out.first(10);
  EXPECT_FALSE(source_->Submit(layers, TimePoint::max()).ok()) << "buffer of another size";
  EXPECT_TRUE(lookup.Untouched());
}

TEST_F(CachedSourceTest, ALayerNotAskedForIsAnError) {
  Lookup lookup(9, 4);
  const std::vector<LayerLookup> one = {lookup.Layers()[1]};
  auto ticket = source_->Submit(one, TimePoint::max());
  ASSERT_TRUE(ticket.ok());
  EXPECT_EQ(ticket->Wait(0).code(), Code::kInvalidArgument);
  EXPECT_TRUE(ticket->Ready(0));
  EXPECT_TRUE(ticket->Wait(1).ok());
}

TEST_F(CachedSourceTest, ADestroyedTicketWritesNothingMore) {
  Lookup known(10, 20);
  Fetch(known);
  for (const bool some_known : {false, true}) {
    Lookup lookup(11, 20);
    if (some_known) std::copy_n(known.rows[0].begin(), 10, lookup.rows[0].begin());
    inner_->Hold(true);
    auto ticket = Submit(lookup);
    EXPECT_FALSE(ticket.Ready(0));
    ticket = {};
    const auto after = lookup.bytes;
    inner_->Hold(false);
    Lookup other(12, 20);
    Fetch(other);  // takes the pooled buffers of the one given up
    EXPECT_EQ(lookup.bytes, after);
  }
}

TEST_F(CachedSourceTest, WaitingTwiceLeavesTheCallersBufferAlone) {
  Lookup lookup(13, 6);
  auto ticket = Submit(lookup);
  ASSERT_TRUE(ticket.Wait(0).ok());
  lookup.Resize();
  ASSERT_TRUE(ticket.Wait(0).ok());
  EXPECT_TRUE(std::all_of(lookup.bytes[0].begin(), lookup.bytes[0].end(),
                          [](std::byte byte) { return byte == std::byte{0xee}; }));
}

TEST_F(CachedSourceTest, TicketsMayOutliveTheSource) {
  Lookup lookup(14, 6);
  Fetch(lookup);
  lookup.Resize();
  auto ticket = Submit(lookup);
  source_.reset();
  EXPECT_TRUE(ticket.Wait(1).ok());
  EXPECT_TRUE(lookup.Right(1));
}

TEST_F(CachedSourceTest, AKnownStepAllocatesNothing) {
  Lookup lookup(15, 200);
  Fetch(lookup);
  const std::vector<LayerLookup> layers = lookup.Layers();
  const auto run = [&] {
    auto ticket = source_->Submit(layers, TimePoint::max());
    return ticket.ok() && ticket->Wait(0).ok() && ticket->Wait(1).ok();
  };
  ASSERT_TRUE(run());
  const uint64_t before = AllocationCount();
  bool good = true;
  for (int i = 0; i < 100; ++i) good = run() && good;
  EXPECT_EQ(AllocationCount() - before, 0u);
  EXPECT_TRUE(good);
}

// Counts its own way, so that only the decorator's allocations are left.
class QuietSource : public RowSource {
 public:
  const table::TableIdentity& identity() const override { return identity_; }
  Result<Ticket> Submit(std::span<const LayerLookup> layers, const SubmitOptions&) override {
    return Ticket::Done(layers);
  }
  SourceStats stats() const override { return {}; }

 private:
  table::TableIdentity identity_;
};

TEST(CachedSourceAllocations, NoneForMissesAfterWarmUpEither) {
  auto source = *CachedSource::Make(std::make_unique<QuietSource>(), MakeTestLayout(), {200'000});
  Lookup lookup(16, 400);
  const std::vector<LayerLookup> layers = lookup.Layers();
  uint64_t next = 0;
  const auto run = [&] {  // half of the n-grams change every time, and the cache evicts
    for (size_t i = 0; i < lookup.rows[0].size(); i += 4) {
      lookup.rows[0][i] = ++next % 1000;
      lookup.rows[1][i] = next % 999;
    }
    auto ticket = source->Submit(layers, TimePoint::max());
    return ticket.ok() && ticket->Wait(0).ok() && ticket->Wait(1).ok();
  };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(run());
  const uint64_t before = AllocationCount();
  bool good = true;
  for (int i = 0; i < 100; ++i) good = run() && good;
  EXPECT_EQ(AllocationCount() - before, 0u);
  EXPECT_TRUE(good);
  EXPECT_GT(source->cache_stats().Total().evictions, 0u);
}

TEST(CachedSourceOverNodes, ManyThreadsGetTheSameRowsAsWithoutIt) {
  FakeCluster nodes(2);
  nodes.StartAll();
  auto source = *CachedSource::Make(nodes.MustConnect(), MakeTestLayout(), {150'000});
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&source, &wrong, t] {
      for (uint64_t round = 0; round < 60; ++round) {
        Lookup lookup(round / 2 * 3 + t, 60, 50);  // every other step is the same
        const std::vector<LayerLookup> layers = lookup.Layers();
        auto ticket = source->Submit(layers, Clock::Real().Now() + std::chrono::seconds(30));
        if (!ticket.ok() || !ticket->Wait(0).ok() || !ticket->Wait(1).ok() || !lookup.Right(0) ||
            !lookup.Right(1)) {
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  const CacheCounts total = source->cache_stats().Total();
  EXPECT_EQ(total.hits + total.misses, 3u * 60 * 60);
  EXPECT_GT(total.hits, 500u);
  EXPECT_GT(total.evictions, 0u);
  EXPECT_EQ(source->stats().rows_asked, 2 * (total.hits + total.misses));
}

TEST(CachedSourceOverNodes, ALostNodeFailsOnlyWhatItWasNeededFor) {
  FakeCluster nodes(1);
  nodes.StartAll();
  auto source = *CachedSource::Make(nodes.MustConnect(), MakeTestLayout(), {kCacheBytes});
  const TimePoint deadline = Clock::Real().Now() + std::chrono::seconds(20);
  Lookup known(1, 20);
  {
    auto ticket = source->Submit(known.Layers(), deadline);
    ASSERT_TRUE(ticket.ok() && ticket->Wait(0).ok() && ticket->Wait(1).ok());
  }
  nodes.nodes.clear();
  known.Resize();
  Lookup unknown(2, 20);
  auto ticket = source->Submit(known.Layers(), deadline);
  ASSERT_TRUE(ticket.ok());
  EXPECT_TRUE(ticket->Wait(0).ok());
  EXPECT_TRUE(known.Right(0) && known.Right(1));
  auto lost = source->Submit(unknown.Layers(), deadline);
  EXPECT_EQ(lost.ok() ? lost->Wait(0).code() : lost.status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace engram::client
