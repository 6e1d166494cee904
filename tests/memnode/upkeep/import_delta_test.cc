// Versions on top of versions, and versions whose member list changed: only what is new is stored,
// everything reads right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/table/owners.h"
#include "tests/memnode/stored_tables.h"
#include "tests/memnode/upkeep/import_fixture.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

class ImportDeltaTest : public testing::Test {
 protected:
  ImportDeltaTest() { CHECK(Import(base_, "1").ok()); }

  Result<Manifest> Import(const ProceduralSource& source, const std::string& version,
                          const std::string& base = "", const client::TableSource* read = nullptr) {
    const table::TableIdentity identity = source.Identity(version);
    ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(identity, map_, "m0"));
    ImportOptions options;
    options.threads = 2;
    options.base_version = base;
    options.on_progress = [this](const ImportProgress& progress) { progress_ = progress; };
    return ImportTables(read != nullptr ? *read : source, identity, map_, plan, store_, options);
  }
  // The row's page is held by m0.
  bool Held(uint32_t layer_index, uint64_t row) {
    std::vector<table::LayerPartitions> cuts;
    for (uint32_t i = 0; i < base_.layer_count(); ++i) {
      cuts.push_back(table::CutLayer(base_.rows(i), base_.row_format().row_bytes()));
    }
    return table::OwnerTable(map_, cuts).Owns(0, layer_index, cuts[layer_index].PartitionOf(row));
  }
  // Changes every `step`-th row; returns the number of held pages that changed.
  size_t Change(ChangedSource& source, uint64_t step, uint64_t first) {
    std::set<std::pair<uint32_t, uint64_t>> pages;
    for (uint32_t i = 0; i < source.layer_count(); ++i) {
      for (uint64_t row = first; row < source.rows(i); row += step) {
        source.Change(i, row);
        if (Held(i, row)) pages.insert({i, row / 25});
      }
    }
    return pages.size();
  }
  Manifest Find(const std::string& version) { return **FindManifest(store_, kModel, version); }

  table::ClusterMap map_ = {.epoch = 1, .members = {"m0", "m1"}};
  MemoryStore store_;
  ChangedSource base_;
  ImportProgress progress_;
};

TEST_F(ImportDeltaTest, OnlyChangedPagesAreStored) {
  ASSERT_EQ(table::RowsPerPage(base_.row_format().row_bytes()), 25u);
  const size_t before = store_.page_count();
  ChangedSource changed;
  const size_t pages = Change(changed, 311, 5);
  ASSERT_GT(pages, 5u);
  const auto manifest = Import(changed, "2", "1");
  ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  EXPECT_EQ(store_.page_count(), before + pages);
  EXPECT_EQ(progress_.pages_changed, pages);
  EXPECT_NE(manifest->identity.content_digest, Find("1").identity.content_digest);
  ExpectRowsOf(changed, store_, *manifest);
  ExpectRowsOf(base_, store_, Find("1"));
}

TEST_F(ImportDeltaTest, ADeltaHasTheDigestOfTheFullVersion) {
  ChangedSource changed;
  Change(changed, 100, 0);
  const auto delta = Import(changed, "2", "1");
  const auto full = Import(changed, "3");
  ASSERT_TRUE(delta.ok() && full.ok());
  EXPECT_EQ(delta->identity.content_digest, full->identity.content_digest);
}

TEST_F(ImportDeltaTest, NothingChangedStoresNothing) {
  const size_t before = store_.page_count();
  const auto same = Import(base_, "2", "1");
  ASSERT_TRUE(same.ok()) << same.status().message();
  EXPECT_EQ(store_.page_count(), before);
  EXPECT_EQ(same->identity.content_digest, Find("1").identity.content_digest);
  ExpectRowsOf(base_, store_, *same);
}

TEST_F(ImportDeltaTest, EveryLengthOfChainThatIsImportedCanBeRead) {
  ChangedSource changed;
  int version = 1;
  for (Status status = OkStatus(); status.ok() && version < 40;) {
    changed.Change(0, static_cast<uint64_t>(version) * 40);
    changed.Change(1, static_cast<uint64_t>(version) * 26);
    status = Import(changed, fmt::format("{}", version + 1), fmt::format("{}", version)).status();
    if (status.ok()) {
      ++version;
      ExpectRowsOf(changed, store_, Find(fmt::format("{}", version)));
      if (HasFailure()) return;
    } else {
      EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.message();
      EXPECT_THAT(status.message(), HasSubstr("full version"));
    }
  }
  EXPECT_GT(version, 10);
  EXPECT_LT(version, 40);
  ExpectRowsOf(base_, store_, Find("1"));
}

TEST_F(ImportDeltaTest, ABaseThatDoesNotFitIsRefused) {
  const Status missing = Import(base_, "2", "0").status();
  EXPECT_EQ(missing.code(), Code::kFailedPrecondition);
  EXPECT_THAT(missing.message(), HasSubstr("version 0"));
  const ProceduralSource larger({.layout = "paper", .rows_scale = 2e-4, .seed = 3});
  const Status sizes = Import(larger, "2", "1").status();
  EXPECT_EQ(sizes.code(), Code::kFailedPrecondition);
  EXPECT_THAT(sizes.message(), HasSubstr("base"));
  map_.members = {"m0"};
  const Status members = Import(base_, "2", "1").status();
  EXPECT_EQ(members.code(), Code::kFailedPrecondition);
  EXPECT_THAT(members.message(), HasSubstr("m0, m1"));
  EXPECT_FALSE(FindManifest(store_, kModel, "2")->has_value());
}

TEST_F(ImportDeltaTest, ADamagedBasePageFailsTheDelta) {
  const Manifest base = Find("1");
  const uint32_t partition = base.layers[0].held.front();
  const auto reader = *TableReader::Open(store_, base);
  store_.CorruptPage(TableSetIdOf(kModel, "1"), 0, reader->FirstPage(0, partition));
  ChangedSource changed;
  Change(changed, 50, 0);
  EXPECT_EQ(Import(changed, "2", "1").status().code(), Code::kDataLoss);
  EXPECT_FALSE(FindManifest(store_, kModel, "2")->has_value());
}

TEST_F(ImportDeltaTest, AStoppedDeltaGoesOn) {
  ChangedSource changed;
  const size_t pages = Change(changed, 33, 3);
  const size_t before = store_.page_count();
  const table::TableIdentity identity = changed.Identity("2");
  const TablePlan plan = *MakePlan(identity, map_, "m0");
  uint64_t steps = 0;
  for (bool complete = false; !complete; ++steps) {
    ASSERT_LT(steps, 100u);
    FaultyStore faulty(store_);
    faulty.FailOperation(steps, steps % 2 == 1);
    ImportOptions options;
    options.threads = 1;
    options.ingest_files = 1;
    options.base_version = "1";
    complete = ImportTables(changed, identity, map_, plan, faulty, options).ok();
  }
  EXPECT_GT(steps, 5u);
  EXPECT_EQ(store_.page_count(), before + pages);
  ExpectRowsOf(changed, store_, Find("2"));
}

TEST_F(ImportDeltaTest, AChangedMemberListAddsWhatIsMissing) {
  const Manifest before = Find("1");
  map_ = {.epoch = 2, .members = {"m0"}};
  const size_t pages = store_.page_count();
  const auto after = Import(base_, "1");
  ASSERT_TRUE(after.ok()) << after.status().message();
  EXPECT_EQ(after->map, map_);
  EXPECT_EQ(after->identity.content_digest, before.identity.content_digest);
  EXPECT_EQ(after->layers[0].held.size(), after->layers[0].digests.size());
  EXPECT_GT(store_.page_count(), pages);
  ExpectRowsOf(base_, store_, *after);

  // More members need nothing of this one: nothing is read, nothing is lost.
  map_ = {.epoch = 3, .members = {"m0", "m1", "m2"}};
  const WatchedSource watched(base_);
  const size_t all = store_.page_count();
  const auto smaller = Import(base_, "1", "", &watched);
  ASSERT_TRUE(smaller.ok()) << smaller.status().message();
  EXPECT_EQ(watched.reads(), 0u);
  EXPECT_EQ(store_.page_count(), all);
  EXPECT_EQ(smaller->map, map_);
  ExpectRowsOf(base_, store_, *smaller);
}

TEST_F(ImportDeltaTest, AChangedMemberListKeepsADelta) {
  ChangedSource changed;
  Change(changed, 33, 3);
  ASSERT_TRUE(Import(changed, "2", "1").ok());
  map_ = {.epoch = 2, .members = {"m0"}};
  EXPECT_EQ(Import(changed, "2", "1").status().code(), Code::kFailedPrecondition);  // base first
  ASSERT_TRUE(Import(base_, "1").ok());
  const auto after = Import(changed, "2", "1");
  ASSERT_TRUE(after.ok()) << after.status().message();
  EXPECT_EQ(after->base_version, "1");
  ExpectRowsOf(changed, store_, *after);
  ExpectRowsOf(base_, store_, Find("1"));
}

TEST_F(ImportDeltaTest, OtherRowsUnderTheSameVersionAreRefused) {
  ChangedSource changed;
  Change(changed, 311, 5);
  map_ = {.epoch = 2, .members = {"m0"}};
  const Status refused = Import(changed, "1").status();
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("another version"));
  const Manifest kept = Find("1");
  EXPECT_EQ(kept.map.epoch, 1u);
  ExpectRowsOf(base_, store_, kept);
  ASSERT_TRUE(Import(base_, "1").ok());
  ExpectRowsOf(base_, store_, Find("1"));
}

}  // namespace
}  // namespace engram::memnode
