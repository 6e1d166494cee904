// From checkpoint to arena: every row right, every kind of damage and mismatch told.
#include "memnode/node/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/table/owners.h"
#include "memnode/store/manifest.h"
#include "memnode/store/rocks_store.h"
#include "memnode/tables/open_tables.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("loader");
    options_.model_path = folder_ + "/tiny";
    options_.model_name = "tiny";
    options_.model_version = "1";
    options_.map = {.epoch = 1, .members = {"m0", "m1"}};
    options_.member = "m0";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const TinyCheckpoint& tiny) { tiny.Write(options_.model_path); }

  Result<std::shared_ptr<ServedTables>> LoadFrom(RowStore& store, bool* imported = nullptr) {
    ASSIGN_OR_RETURN(const FoundModel found, FindOrImport(options_, store));
    if (imported != nullptr) *imported = found.imported;
    OpenTablesOptions open;
    open.map = options_.map;
    open.member = options_.member;
    open.arena.pages = PageBacking::kSmall;
    return OpenTables(store, found.manifest, open, registry_);
  }
  Status Load() { return LoadFrom(store_).status(); }

  // Every row of the table set is here, right, or owned by the other member.
  void ExpectRowsOfCheckpoint(const ServedTables& loaded) {
    std::vector<table::LayerPartitions> cuts;
    for (const LayerPlan& layer : loaded.plan().layers) cuts.push_back(layer.cut);
    const table::OwnerTable owners(options_.map, cuts);
    uint64_t found = 0;
    for (uint32_t i = 0; i < loaded.plan().layers.size(); ++i) {
      for (uint64_t row = 0; row < loaded.plan().layers[i].cut.total_rows; row += 7) {
        std::vector<std::byte> out(loaded.plan().row_bytes);
        const Status got = loaded.ReadRow(i, row, out);
        const uint32_t partition = loaded.plan().layers[i].cut.PartitionOf(row);
        const bool owned = options_.map.members[owners.Of(i, partition)[0]] == options_.member;
        ASSERT_EQ(got.ok(), owned) << got.message();
        if (!owned) continue;
        ++found;
        EXPECT_EQ(out, CheckpointRow(options_.model_path, i, row)) << "row " << row;
      }
    }
    EXPECT_GT(found, 50u);
  }

  TableSetId table_set() const { return TableSetIdOf("tiny", "1"); }

  std::string folder_;
  ModelRequest options_;
  obs::Metrics registry_;
  MemoryStore store_;
};

TEST_F(LoaderTest, ImportsThenLoadsOwnedRowsOnly) {
  Write({});
  bool imported = false;
  const auto result = LoadFrom(store_, &imported);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& loaded = *result;
  EXPECT_TRUE(imported);
  ExpectRowsOfCheckpoint(*loaded);
}

TEST_F(LoaderTest, ScaledRowsCarryTheirScales) {
  Write({.variant = "v41"});
  bool imported = false;
  const auto result = LoadFrom(store_, &imported);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& loaded = *result;
  EXPECT_EQ(loaded->plan().row_bytes, 33u);
  ExpectRowsOfCheckpoint(*loaded);
}

TEST_F(LoaderTest, AllMembersAgreeOnTheDigestAndASeedChangesIt) {
  Write({});
  const auto m0 = *LoadFrom(store_);
  MemoryStore other;
  options_.member = "m1";
  const auto m1 = *LoadFrom(other);
  EXPECT_EQ(m0->identity().content_digest, m1->identity().content_digest);
  EXPECT_EQ(m0->plan().OwnedRows() + m1->plan().OwnedRows(), m0->plan().TotalRows());
  Write({.seed = 8});
  MemoryStore third;
  const auto changed = *LoadFrom(third);
  EXPECT_NE(changed->identity().content_digest, m0->identity().content_digest);
}

TEST_F(LoaderTest, SecondStartDoesNotImportAndNeedsNoCheckpoint) {
  Write({});
  ASSERT_TRUE(Load().ok());
  std::filesystem::rename(options_.model_path, folder_ + "/away");
  bool imported = true;
  const auto again = LoadFrom(store_, &imported);
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_FALSE(imported);
  options_.model_path = folder_ + "/away";
  ExpectRowsOfCheckpoint(**again);
}

TEST_F(LoaderTest, ImportKilledBeforeItsManifestIsRedone) {
  Write({});
  store_.FailNextRecord("manifest/", Unavailable("killed"));
  EXPECT_FALSE(Load().ok());
  EXPECT_GT(store_.page_count(), 0u) << "pages were there, and must not be believed";
  Write({.seed = 9});
  bool imported = false;
  const auto result = LoadFrom(store_, &imported);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& loaded = *result;
  EXPECT_TRUE(imported);
  ExpectRowsOfCheckpoint(*loaded);
}

TEST_F(LoaderTest, AMemberThatNowOwnsMoreImportsAgain) {
  Write({});
  ASSERT_TRUE(Load().ok());
  options_.map.members = {"m0"};
  bool imported = false;
  const auto result = LoadFrom(store_, &imported);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& loaded = *result;
  EXPECT_FALSE(imported) << "the version is no new one, to be published";
  EXPECT_EQ(loaded->plan().OwnedRows(), loaded->plan().TotalRows());
  ExpectRowsOfCheckpoint(*loaded);
  options_.map.members = {"m0", "m1"};
  EXPECT_FALSE(FindOrImport(options_, store_)->imported) << "it holds what it now owns";
}

TEST_F(LoaderTest, AMemberThatNowOwnsMoreWithoutCheckpointSaysWhatToDo) {
  Write({});
  ASSERT_TRUE(Load().ok());
  std::filesystem::remove_all(options_.model_path);
  options_.map.members = {"m0"};
  const Status status = Load();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("m0, m1"), HasSubstr("set model.path")));
}

TEST_F(LoaderTest, DamagedPageIsNamed) {
  Write({});
  bool imported = false;
  const auto result = LoadFrom(store_, &imported);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& loaded = *result;
  const LayerPlan layer = loaded->plan().layers[1];
  const uint64_t page = layer.owned.back() * layer.PagesPerPartition();
  store_.CorruptPage(table_set(), 1, page);
  const Status status = Load();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("page " + std::to_string(page) + " of layer 3"), HasSubstr("CRC")));
}

TEST_F(LoaderTest, LostPageAndFailingDiskAreErrors) {
  Write({});
  bool imported = false;
  const auto result = LoadFrom(store_, &imported);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& loaded = *result;
  const LayerPlan layer = loaded->plan().layers[0];
  store_.FailNextRead(DataLoss("disk on fire"));
  EXPECT_THAT(Load().message(), HasSubstr("disk on fire"));
  store_.LosePage(table_set(), 0, layer.owned.front() * layer.PagesPerPartition());
  EXPECT_THAT(Load().message(), HasSubstr("is missing"));
}

TEST_F(LoaderTest, StoreHoldingOtherTablesIsRefusedNamingTheField) {
  Write({});
  ASSERT_TRUE(Load().ok());
  Write({.vocab_size = 400});
  const Status status = Load();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("total_rows"), HasSubstr("another store.path or model.version")));
  options_.model_version = "2";
  EXPECT_TRUE(Load().ok()) << "versions live side by side";
}

TEST_F(LoaderTest, DamagedManifestIsRefused) {
  Write({});
  ASSERT_TRUE(Load().ok());
  RecordChange record = {store_.ReadRecords("manifest/")->begin()->first,
                         store_.ReadRecords("manifest/")->begin()->second};
  std::string& text = *record.value;
  const size_t at = text.rfind("\"digests\":\"") + 20;
  text[at] = text[at] == '0' ? '1' : '0';
  ASSERT_TRUE(store_.WriteRecords({&record, 1}).ok());
  EXPECT_EQ(Load().code(), Code::kDataLoss);
}

TEST_F(LoaderTest, MissingFolderIsNamed) {
  const Status status = Load();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr(options_.model_path));
}

TEST_F(LoaderTest, ConfigWithoutEngramLayersIsRefused) {
  Write({.layer_ids = "[]"});
  EXPECT_THAT(Load().message(), HasSubstr("engram_layer_ids"));
}

TEST_F(LoaderTest, MissingTensorIsNamed) {
  Write({.left_out = "model.layers.3.engram.embed.weight"});
  EXPECT_THAT(Load().message(), HasSubstr("model.layers.3.engram.embed.weight"));
}

TEST_F(LoaderTest, TableOfTheWrongSizeIsRefused) {
  Write({.rows_missing = 1});
  EXPECT_THAT(Load().message(), AllOf(HasSubstr("layer 1"), HasSubstr("rows")));
}

TEST_F(LoaderTest, TruncatedShardIsNamed) {
  Write({});
  const std::string shard = options_.model_path + "/model.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 10);
  EXPECT_THAT(Load().message(), HasSubstr("model.safetensors"));
}

TEST_F(LoaderTest, TokenMapOfTheWrongSizeIsNamed) {
  Write({});
  std::filesystem::resize_file(options_.model_path + "/engram_token_map.bin", 80);
  EXPECT_THAT(Load().message(), HasSubstr("engram_token_map.bin"));
}

}  // namespace
}  // namespace engram::memnode
