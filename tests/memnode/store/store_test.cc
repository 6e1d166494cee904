// The row store's promises, of the durable one and of the fake alike.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/base/rng.h"
#include "memnode/store/page.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr TableSetId kSet = 0x0102030405060708;

std::string PageText(uint32_t layer, uint64_t page) { return fmt::format("{}:{}", layer, page); }

Status Import(RowStore& store, TableSetId table_set, uint64_t pages_per_layer) {
  ASSIGN_OR_RETURN(std::unique_ptr<PageWriter> writer, store.NewFile(table_set));
  for (uint32_t layer = 0; layer < 2; ++layer) {
    for (uint64_t page = 0; page < pages_per_layer; ++page) {
      const std::string text = PageText(layer, page);
      RETURN_IF_ERROR(writer->Put(layer, page, std::as_bytes(std::span(text))));
    }
  }
  RETURN_IF_ERROR(writer->Finish());
  std::vector<std::unique_ptr<PageWriter>> files;
  files.push_back(std::move(writer));
  return store.Ingest(std::move(files));
}

Status PutRecord(RowStore& store, const std::string& key, const std::string& value) {
  const RecordChange change = {key, value};
  return store.WriteRecords({&change, 1});
}

Result<std::vector<std::string>> Read(RowStore& store, TableSetId table_set, uint32_t layer,
                                      uint64_t first, uint64_t count) {
  std::vector<std::string> texts;
  RETURN_IF_ERROR(store.ReadPages(
      table_set, layer, first, count, [&](uint64_t page, std::span<const std::byte> bytes) {
        EXPECT_EQ(page, first + texts.size());
        texts.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return OkStatus();
      }));
  return texts;
}

class StoreTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("store");
    Open();
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }
  void Open() {
    if (!GetParam()) {
      store_ = std::make_unique<MemoryStore>();
      return;
    }
    store_.reset();  // a store has one owner
    auto opened = OpenRocksStore(folder_ + "/store");
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    store_ = std::move(*opened);
  }

  std::string folder_;
  std::unique_ptr<RowStore> store_;
};

INSTANTIATE_TEST_SUITE_P(, StoreTest, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "Rocks" : "Memory"; });

TEST_P(StoreTest, PagesComeBackInOrderAlsoPastByteBoundaries) {
  ASSERT_TRUE(Import(*store_, kSet, 300).ok());
  const auto texts = Read(*store_, kSet, 1, 254, 4);
  ASSERT_TRUE(texts.ok()) << texts.status().message();
  EXPECT_THAT(*texts, ElementsAre("1:254", "1:255", "1:256", "1:257"));
}

TEST_P(StoreTest, TableSetsDoNotMix) {
  ASSERT_TRUE(Import(*store_, kSet, 2).ok());
  ASSERT_TRUE(Import(*store_, kSet + 1, 3).ok());
  ASSERT_TRUE(store_->DropPages(kSet).ok());
  EXPECT_TRUE(Read(*store_, kSet + 1, 1, 0, 3).ok());
  const auto dropped = Read(*store_, kSet, 1, 0, 1);
  ASSERT_FALSE(dropped.ok());
  EXPECT_EQ(dropped.status().code(), Code::kDataLoss);
}

TEST_P(StoreTest, MissingPageIsNamed) {
  ASSERT_TRUE(Import(*store_, kSet, 3).ok());
  const auto past = Read(*store_, kSet, 0, 2, 2);  // the next key is of layer 1
  ASSERT_FALSE(past.ok());
  EXPECT_EQ(past.status().code(), Code::kDataLoss);
  EXPECT_THAT(past.status().message(), HasSubstr("page 3 of Engram layer index 0 is missing"));
}

TEST_P(StoreTest, RecordsAreListedByPrefixAndChangedTogether) {
  EXPECT_TRUE(store_->ReadRecords("")->empty());
  ASSERT_TRUE(PutRecord(*store_, "a/1", "one").ok());
  ASSERT_TRUE(PutRecord(*store_, "b/1", "two").ok());
  const std::vector<RecordChange> changes = {{"a/2", "three"}, {"a/1", std::nullopt}};
  ASSERT_TRUE(store_->WriteRecords(changes).ok());
  EXPECT_THAT(*store_->ReadRecords("a/"), ElementsAre(testing::Pair("a/2", "three")));
  EXPECT_EQ(store_->ReadRecords("")->size(), 2u);
}

TEST_P(StoreTest, AnImportMayBeRepeated) {
  ASSERT_TRUE(Import(*store_, kSet, 5).ok());
  ASSERT_TRUE(store_->DropPages(kSet).ok());
  ASSERT_TRUE(Import(*store_, kSet, 2).ok());
  EXPECT_TRUE(Read(*store_, kSet, 1, 0, 2).ok());
  EXPECT_FALSE(Read(*store_, kSet, 1, 2, 1).ok()) << "a page of the import before";
}

class ReopenedStoreTest : public StoreTest {};
INSTANTIATE_TEST_SUITE_P(, ReopenedStoreTest, testing::Values(true));

TEST_P(ReopenedStoreTest, SurvivesReopening) {
  ASSERT_TRUE(Import(*store_, kSet, 3).ok());
  ASSERT_TRUE(PutRecord(*store_, "manifest/1", "text").ok());
  Open();
  EXPECT_THAT(*store_->ReadRecords("m"), ElementsAre(testing::Pair("manifest/1", "text")));
  EXPECT_THAT(*Read(*store_, kSet, 0, 0, 3), ElementsAre("0:0", "0:1", "0:2"));
}

TEST_P(ReopenedStoreTest, HasOneOwner) {
  const auto second = OpenRocksStore(folder_ + "/store");
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.status().message(), HasSubstr(folder_ + "/store"));
}

TEST_P(ReopenedStoreTest, UnwritablePathIsOneClearError) {
  std::ofstream(folder_ + "/file") << "not a folder";
  const auto store = OpenRocksStore(folder_ + "/file");
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(store.status().message(), HasSubstr("store.path " + folder_ + "/file"));
}

TEST_P(ReopenedStoreTest, BytesDamagedOnDiskAreNeverReturned) {
  ASSERT_TRUE(Import(*store_, kSet, 300).ok());
  store_.reset();
  for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/store")) {
    if (entry.path().extension() != ".sst") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(40);
    file.put('\xff');
  }
  Open();
  const auto texts = Read(*store_, kSet, 0, 0, 300);
  ASSERT_FALSE(texts.ok());
  EXPECT_EQ(texts.status().code(), Code::kDataLoss);
}

TEST(Page, AnyFlippedBitIsFound) {
  std::vector<std::byte> rows(5 * 24);
  Rng rng(1);
  for (std::byte& byte : rows) byte = static_cast<std::byte>(rng.NextU64());
  std::string page;
  EncodePage(rows, 24, &page);
  const auto decoded = DecodePage(std::as_bytes(std::span(page)), 24, 5);
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(std::equal(decoded->begin(), decoded->end(), rows.begin(), rows.end()));
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    std::string damaged = page;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(DecodePage(std::as_bytes(std::span(damaged)), 24, 5).ok()) << "bit " << bit;
  }
  EXPECT_FALSE(DecodePage(std::as_bytes(std::span(page)), 24, 4).ok()) << "another row count";
  EXPECT_FALSE(DecodePage({}, 24, 5).ok());
}

}  // namespace
}  // namespace engram::memnode
