// Verification: all damage is found, counted exactly, and nothing else is called damaged.
#include "memnode/upkeep/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "tests/memnode/stored_tables.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

class VerifyTest : public testing::Test {
 protected:
  VerifyReport Verify(const std::string& version, const VerifyOptions& options = {.threads = 2}) {
    auto report = VerifyTables(*tables_.Open(version), options);
    CHECK(report.ok()) << report.status().message();
    return *std::move(report);
  }
  static std::vector<std::pair<uint32_t, uint64_t>> PagesOf(const VerifyReport& report) {
    std::vector<std::pair<uint32_t, uint64_t>> pages;
    for (const Damage& damage : report.damage) {
      pages.emplace_back(damage.layer_index, damage.page.value_or(~0ull));
    }
    return pages;
  }

  MemoryStore store_;
  StoredTables tables_{store_};
  const TableSetId id_ = StoredTables::Id("1");
};

TEST_F(VerifyTest, SoundTablesAreSoundAndCountedWhole) {
  const VerifyReport report = Verify("1");
  EXPECT_TRUE(report.sound());
  EXPECT_TRUE(report.holds_all);
  EXPECT_EQ(report.pages(), store_.page_count());
  EXPECT_EQ(report.bytes, (tables_.base().rows(0) + tables_.base().rows(1)) * 160);
  EXPECT_EQ(report.layers[0].partitions, tables_.Open("1")->cut(0).partition_count);
  EXPECT_TRUE(report.damage.empty());
}

TEST_F(VerifyTest, AMembersShareIsNotTheWhole) {
  MemoryStore store;
  StoredTables share(store, {.members = {"m0", "m1"}});
  const auto report = VerifyTables(*share.Open("1"));
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->sound());
  EXPECT_FALSE(report->holds_all);
  EXPECT_EQ(report->pages(), store.page_count());
}

TEST_F(VerifyTest, GoesOnAfterDamageAndListsItInOrder) {
  store_.CorruptPage(id_, 1, 17);
  store_.CorruptPage(id_, 0, 40);
  store_.LosePage(id_, 0, 41);
  store_.CorruptPage(id_, 0, 3);
  const VerifyReport report = Verify("1");
  EXPECT_FALSE(report.sound());
  EXPECT_EQ(report.bad_pages(), 4u);
  EXPECT_EQ(report.layers[0].bad_pages, 3u);
  EXPECT_EQ(report.layers[0].bad_partitions, 2u) << "pages 40 and 41 lie in one partition";
  EXPECT_EQ(report.layers[1].bad_partitions, 1u);
  using Page = std::pair<uint32_t, uint64_t>;
  EXPECT_THAT(PagesOf(report),
              testing::ElementsAre(Page(0, 3), Page(0, 40), Page(0, 41), Page(1, 17)));
  EXPECT_THAT(report.damage[0].why, HasSubstr("CRC"));
  EXPECT_THAT(report.damage[2].why, HasSubstr("missing"));
}

TEST_F(VerifyTest, TellsOfDamageAsItIsFound) {
  store_.CorruptPage(id_, 1, 17);
  store_.LosePage(id_, 0, 41);
  std::set<std::tuple<TableSetId, uint32_t, uint64_t>> told;
  VerifyOptions options;
  options.threads = 1;
  options.on_damage = [&](TableSetId id, uint32_t layer_index, uint64_t page) {
    told.emplace(id, layer_index, page);
  };
  EXPECT_FALSE(Verify("1", options).sound());
  EXPECT_EQ(told,
            (std::set<std::tuple<TableSetId, uint32_t, uint64_t>>{{id_, 0, 41}, {id_, 1, 17}}));
}

TEST_F(VerifyTest, TheListIsBoundedTheCountExact) {
  for (uint64_t page = 0; page < 60; ++page) store_.CorruptPage(id_, 0, page);
  const VerifyReport report = Verify("1", {.threads = 3, .listed_max = 7});
  EXPECT_EQ(report.bad_pages(), 60u);
  ASSERT_EQ(report.damage.size(), 7u);
  EXPECT_EQ(report.damage[6].page, 6u) << "the first ones, whatever the threads did";
}

TEST_F(VerifyTest, ASoundPageOfOtherTablesIsFoundByThePartitionsDigest) {
  tables_.PutForeignPage("1", 1, 8);
  const VerifyReport report = Verify("1");
  EXPECT_EQ(report.bad_pages(), 0u);
  EXPECT_EQ(report.bad_partitions(), 1u);
  ASSERT_EQ(report.damage.size(), 1u);
  EXPECT_EQ(report.damage[0].partition, 4u);
  EXPECT_FALSE(report.damage[0].page.has_value());
  EXPECT_THAT(report.damage[0].why, HasSubstr("SHA-256"));
}

TEST_F(VerifyTest, ADeltaIsAsSoundAsThePagesItReads) {
  ChangedSource changed = tables_.base();
  changed.Change(0, 250);  // page 10
  tables_.PutDelta(changed, "2", "1");
  EXPECT_TRUE(Verify("2").sound());
  store_.CorruptPage(id_, 0, 10);
  EXPECT_TRUE(Verify("2").sound()) << "version 2 has a page 10 of its own";
  EXPECT_EQ(Verify("1").bad_pages(), 1u);
  store_.CorruptPage(id_, 0, 11);
  EXPECT_EQ(Verify("2").bad_pages(), 1u) << "page 11 is its base's";
  store_.CorruptPage(StoredTables::Id("2"), 0, 10);
  EXPECT_EQ(Verify("2").bad_pages(), 2u);
}

TEST_F(VerifyTest, AReadThatFailsOnceIsNoDamage) {
  store_.FailNextRead(DataLoss("a cable was loose"));
  EXPECT_TRUE(Verify("1").sound());
}

TEST_F(VerifyTest, ProgressReachesTheEndAndCanBeCancelled) {
  VerifyProgress last;
  VerifyOptions options;
  options.threads = 1;
  options.on_progress = [&](const VerifyProgress& progress) { last = progress; };
  Verify("1", options);
  EXPECT_EQ(last.pages_done, store_.page_count());
  EXPECT_EQ(last.pages_total, store_.page_count());

  std::atomic<bool> cancel = true;
  options.cancel = &cancel;
  EXPECT_EQ(VerifyTables(*tables_.Open("1"), options).status().code(), Code::kCancelled);
}

}  // namespace
}  // namespace engram::memnode
