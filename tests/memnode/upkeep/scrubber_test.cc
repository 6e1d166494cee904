// The scrubber: damage is found, reported damage is repaired at once, and it goes on where it was.
#include "memnode/upkeep/scrubber.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/memnode/stored_tables.h"
#include "tests/support/eventually.h"
#include "tests/support/fakes/fake_clock.h"

namespace engram::memnode {
namespace {

using namespace std::chrono_literals;

// Counts what is written under scrub/.
class CountingStore : public MemoryStore {
 public:
  Status WriteRecords(std::span<const RecordChange> changes) override {
    for (const RecordChange& change : changes) {
      if (change.key.starts_with(kScrubRecords) && change.value) ++scrub_writes_;
    }
    return MemoryStore::WriteRecords(changes);
  }
  int scrub_writes() const { return scrub_writes_; }

 private:
  std::atomic<int> scrub_writes_ = 0;
};

class ScrubberTest : public testing::Test, protected RowCopies {
 protected:
  ScrubberTest() {
    options_.clock = &clock_;
    options_.mib_per_s = 1000;
    options_.idle_pause = 1h;
  }
  bool CopyRows(TableSetId, uint32_t layer_index, uint64_t first, uint64_t count,
                std::byte* out) const override {
    if (memory_waits_) memory_open_.wait();
    return in_memory_ && tables_.base().ReadRows(layer_index, first, count, out).ok();
  }
  void Start() {
    scrubber_ = std::make_unique<Scrubber>(store_, repairer_, metrics_, options_);
    ASSERT_TRUE(scrubber_->Start().ok());
  }
  void Advance(Nanos by) {
    clock_.Advance(by);
    scrubber_->Refresh();
  }
  ScrubState State(const std::string& version = "1") {
    return scrubber_->States()[StoredTables::Id(version)];
  }
  double Metric(const std::string& name) {
    return name.ends_with("_total") ? metrics_.GetCounter(name, "").Value()
                                    : metrics_.GetGauge(name, "").Value();
  }
  bool PassesReach(uint64_t passes, const std::string& version = "1") {
    return testing_support::Eventually([&] {
      Advance(10ms);  // what the rate lets through
      return State(version).passes >= passes;
    });
  }
  bool SoundInStore(uint32_t layer, uint64_t page) {
    std::string scratch;
    return tables_.Open("1")->ReadPage(layer, page, &scratch).ok();
  }

  CountingStore store_;
  StoredTables tables_{store_};
  const TableSetId id_ = StoredTables::Id("1");
  std::atomic<bool> in_memory_ = true;
  std::promise<void> memory_gate_;
  std::shared_future<void> memory_open_ = memory_gate_.get_future().share();
  std::atomic<bool> memory_waits_ = false;
  Repairer repairer_{store_, *this,
                     [](const Manifest&) -> Result<std::unique_ptr<client::TableSource>> {
                       return NotFound("no folder");
                     }};
  obs::Metrics metrics_;
  FakeClock clock_;
  ScrubberOptions options_;
  std::unique_ptr<Scrubber> scrubber_;
};

TEST_F(ScrubberTest, APassFindsAndRepairsDamage) {
  store_.CorruptPage(id_, 0, 12);
  store_.LosePage(id_, 1, 100);
  Start();
  ASSERT_TRUE(PassesReach(1));
  EXPECT_TRUE(SoundInStore(0, 12));
  EXPECT_TRUE(SoundInStore(1, 100));
  EXPECT_EQ(State().bad_pages_found, 2u);
  EXPECT_EQ(State().bad_pages_repaired, 2u);
  EXPECT_EQ(State().pages_checked, store_.page_count());
  EXPECT_EQ(Metric("engram_memnode_bad_pages_found_total"), 2);
  EXPECT_EQ(Metric("engram_memnode_bad_pages_repaired_total"), 2);
  EXPECT_EQ(Metric("engram_memnode_bad_pages"), 0);
  EXPECT_EQ(Metric("engram_memnode_scrub_passes_total"), 1);
}

TEST_F(ScrubberTest, ReportedDamageIsRepairedAlsoWithScrubbingOff) {
  options_.mib_per_s = 0;
  Start();
  store_.CorruptPage(id_, 1, 33);
  EXPECT_TRUE(scrubber_->ReportDamage(id_, 1, 33));
  EXPECT_TRUE(testing_support::Eventually([&] { return SoundInStore(1, 33); }));
  EXPECT_TRUE(testing_support::Eventually([&] { return State().bad_pages_repaired == 1; }));
  EXPECT_EQ(State().passes, 0u);
  EXPECT_EQ(Metric("engram_memnode_scrub_bytes_total"), 0);
}

TEST_F(ScrubberTest, AReportIsNotHeldUpByTheRate) {
  options_.mib_per_s = 1e-6;
  Start();
  ASSERT_TRUE(
      testing_support::Eventually([&] { return Metric("engram_memnode_scrub_bytes_total") > 0; }));
  store_.CorruptPage(id_, 1, 33);
  scrubber_->ReportDamage(id_, 1, 33);
  EXPECT_TRUE(testing_support::Eventually([&] { return SoundInStore(1, 33); }));
  EXPECT_EQ(State().passes, 0u);
}

TEST_F(ScrubberTest, ReportsThatMakeNoSenseAreIgnored) {
  options_.mib_per_s = 0;
  Start();
  EXPECT_TRUE(scrubber_->ReportDamage(id_ + 1, 0, 0));
  EXPECT_TRUE(scrubber_->ReportDamage(id_, 7, 0));
  EXPECT_TRUE(scrubber_->ReportDamage(id_, 0, 1ull << 40));
  EXPECT_TRUE(scrubber_->ReportDamage(id_, 0, 2)) << "it is sound";
  store_.CorruptPage(id_, 0, 5);
  scrubber_->ReportDamage(id_, 0, 5);
  EXPECT_TRUE(testing_support::Eventually([&] { return SoundInStore(0, 5); })) << "and it works on";
  EXPECT_EQ(Metric("engram_memnode_bad_pages_found_total"), 1);
}

TEST_F(ScrubberTest, WaitingReportsAreMergedAndBounded) {
  options_.mib_per_s = 0;
  options_.reports_max = 3;
  memory_waits_ = true;
  store_.CorruptPage(id_, 0, 0);
  Start();
  scrubber_->ReportDamage(id_, 0, 0);
  ASSERT_TRUE(testing_support::Eventually(
      [&] { return Metric("engram_memnode_bad_pages_found_total") == 1; }));
  for (int again = 0; again < 100; ++again) {
    EXPECT_TRUE(scrubber_->ReportDamage(id_, 0, 10)) << "all of one page count as one";
  }
  EXPECT_TRUE(scrubber_->ReportDamage(id_, 0, 11));
  EXPECT_TRUE(scrubber_->ReportDamage(id_, 0, 12));
  EXPECT_FALSE(scrubber_->ReportDamage(id_, 0, 13));
  EXPECT_EQ(Metric("engram_memnode_damage_reports_dropped_total"), 1);
  memory_gate_.set_value();
  EXPECT_TRUE(testing_support::Eventually([&] { return SoundInStore(0, 0); }));
}

TEST_F(ScrubberTest, WhatCannotBeRepairedIsListedAndTriedAgainLater) {
  options_.mib_per_s = 0;
  in_memory_ = false;
  store_.CorruptPage(id_, 0, 8);
  store_.CorruptPage(id_, 0, 9);
  Start();
  scrubber_->ReportDamage(id_, 0, 8);
  ASSERT_TRUE(testing_support::Eventually([&] { return Metric("engram_memnode_bad_pages") == 2; }));
  ASSERT_EQ(scrubber_->Bad().size(), 2u);
  EXPECT_EQ(scrubber_->Bad()[1].page, 9u);
  EXPECT_EQ(Metric("engram_memnode_repair_failures_total"), 1);
  in_memory_ = true;
  scrubber_->ReportDamage(id_, 0, 8);
  store_.CorruptPage(id_, 1, 0);
  scrubber_->ReportDamage(id_, 1, 0);
  ASSERT_TRUE(testing_support::Eventually([&] { return SoundInStore(1, 0); }));
  EXPECT_FALSE(SoundInStore(0, 8)) << "not again within retry_pause";
  Advance(options_.retry_pause);
  scrubber_->ReportDamage(id_, 0, 8);
  EXPECT_TRUE(testing_support::Eventually([&] { return Metric("engram_memnode_bad_pages") == 0; }));
  EXPECT_TRUE(SoundInStore(0, 8));
  EXPECT_EQ(State().bad_pages_found, 3u) << "counted once, however often it was met";
  EXPECT_TRUE(scrubber_->Bad().empty());
}

TEST_F(ScrubberTest, ReadsNoFasterThanTheRate) {
  options_.mib_per_s = 0.25;
  const double burst_bytes = 0.05 * 0.25 * (1 << 20) + 4000;
  Start();
  double allowed = burst_bytes;
  for (int step = 0; step < 60; ++step) {
    clock_.Advance(30ms);  // less than a burst, which is all that can be saved up
    allowed += 0.03 * 0.25 * (1 << 20);
    ASSERT_TRUE(testing_support::Eventually([&] {
      scrubber_->Refresh();
      return Metric("engram_memnode_scrub_bytes_total") >= allowed - burst_bytes - 4000;
    }));
    EXPECT_LE(Metric("engram_memnode_scrub_bytes_total"), allowed);
  }
}

TEST_F(ScrubberTest, GoesOnWhereItWasAfterARestart) {
  options_.mib_per_s = 0.25;
  Start();
  ASSERT_TRUE(testing_support::Eventually([&] {
    Advance(20ms);
    return State().next_partition >= 30;
  }));
  scrubber_.reset();
  const auto records = *store_.ReadRecords(kScrubRecords);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records.begin()->first, ScrubKey(id_));
  const ScrubState saved =
      ParseScrubState(records.begin()->second, tables_.Find("1")->identity.content_digest);
  EXPECT_GE(saved.next_partition, 30u);
  store_.CorruptPage(id_, 0, 0);  // behind its place
  options_.mib_per_s = 1000;
  Start();
  ASSERT_TRUE(PassesReach(1));
  EXPECT_EQ(State().pages_checked, store_.page_count()) << "no page was read twice";
  EXPECT_FALSE(SoundInStore(0, 0)) << "it did not begin anew";
}

TEST_F(ScrubberTest, ItsPlaceIsNotWrittenMoreOftenThanAsked) {
  Start();
  ASSERT_TRUE(PassesReach(1));
  // The end of the pass is written after it is counted.
  ASSERT_TRUE(testing_support::Eventually([&] { return store_.scrub_writes() >= 1; }));
  EXPECT_LE(store_.scrub_writes(), 2) << "144 partitions, no time passes, and the end of the pass";
}

TEST_F(ScrubberTest, RestsBetweenPassesAndThenBeginsAnew) {
  Start();
  ASSERT_TRUE(PassesReach(1));
  store_.CorruptPage(id_, 0, 3);
  Advance(options_.idle_pause / 2);
  scrubber_->ReportDamage(id_, 1, 0);
  ASSERT_TRUE(testing_support::Eventually(
      [&] { return Metric("engram_memnode_scrub_pages_total") > 290; }));
  EXPECT_FALSE(SoundInStore(0, 3));
  Advance(options_.idle_pause);
  ASSERT_TRUE(PassesReach(2));
  EXPECT_TRUE(SoundInStore(0, 3));
}

TEST_F(ScrubberTest, NewVersionsArePickedUpAndDroppedOnesForgotten) {
  in_memory_ = false;
  store_.CorruptPage(id_, 0, 0);
  Start();
  ASSERT_TRUE(PassesReach(1));
  EXPECT_EQ(scrubber_->Bad().size(), 1u);
  ASSERT_TRUE(ImportProcedural(tables_.base(), "2", {.members = {"m0"}}, "m0", store_).ok());
  ASSERT_TRUE(DropTableSet(store_, kModel, "1").ok());
  scrubber_->Refresh();
  ASSERT_TRUE(testing_support::Eventually([&] { return scrubber_->Bad().empty(); }));
  EXPECT_EQ(Metric("engram_memnode_bad_pages"), 0);
  Advance(options_.idle_pause);
  ASSERT_TRUE(PassesReach(1, "2"));
  EXPECT_EQ(scrubber_->States().size(), 1u);
  scrubber_.reset();
  EXPECT_EQ(store_.ReadRecords(kScrubRecords)->size(), 1u);
}

TEST_F(ScrubberTest, AVersionDroppedWhileItIsReadIsNoDamage) {
  options_.mib_per_s = 0.25;
  Start();
  ASSERT_TRUE(
      testing_support::Eventually([&] { return Metric("engram_memnode_scrub_bytes_total") > 0; }));
  ASSERT_TRUE(DropTableSet(store_, kModel, "1").ok());
  ASSERT_TRUE(testing_support::Eventually([&] {
    Advance(100ms);
    return scrubber_->States().empty();
  }));
  EXPECT_EQ(Metric("engram_memnode_bad_pages_found_total"), 0);
  scrubber_.reset();
  EXPECT_TRUE(store_.ReadRecords(kScrubRecords)->empty());
}

TEST_F(ScrubberTest, ReportsFromManyThreadsAreAllMended) {
  for (uint64_t page = 0; page < 40; ++page) store_.CorruptPage(id_, 1, page);
  Start();
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t page = thread; page < 40; page += 4) scrubber_->ReportDamage(id_, 1, page);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(testing_support::Eventually([&] {
    for (uint64_t page = 0; page < 40; ++page) {
      if (!SoundInStore(1, page)) return false;
    }
    return true;
  }));
}

TEST(ScrubStateTest, IsReadBackAndRefusedForOtherContent) {
  const ScrubState state = {.next_partition = 7, .round = 3, .passes = 2, .pages_checked = 99};
  const std::string text = ScrubStateToText(state, "d1");
  EXPECT_EQ(ParseScrubState(text, "d1"), state);
  EXPECT_EQ(ParseScrubState(text, "d2"), ScrubState());
  EXPECT_EQ(ParseScrubState(text.substr(0, 30), "d1"), ScrubState());
  EXPECT_EQ(TableSetOfScrubKey(ScrubKey(0xabcdef)), 0xabcdefu);
  EXPECT_EQ(TableSetOfScrubKey("manifest/12"), 0u);
}

TEST(ReadRateTest, SpreadsBytesOverTime) {
  FakeClock clock;
  ReadRate rate(1, clock);
  const TimePoint begin = clock.Now();
  EXPECT_EQ(rate.Take(0), begin - 50ms) << "a burst's worth of time was saved up";
  rate.Take(1 << 20);
  EXPECT_EQ(rate.Take(1 << 20), begin + 1950ms);
  clock.Advance(10s);
  EXPECT_EQ(rate.Take(1 << 20), begin + 10s - 50ms + 1s) << "but no more than that";
  EXPECT_EQ(ReadRate(0, clock).Take(1 << 30), clock.Now());
}

}  // namespace
}  // namespace engram::memnode
