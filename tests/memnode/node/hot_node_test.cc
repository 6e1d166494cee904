// A node with a hot set: the rows of its n-grams are in memory, the most frequent first, and a file
// that does not fit or is damaged is an error when the node starts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/base/rng.h"
#include "common/table/hot_set.h"
#include "common/table/row_check.h"
#include "memnode/node/node_tables.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/tiny_checkpoint.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr uint64_t kBudgetMib = 2;  // of a share of 41

class HotNodeTest : public testing::Test {
 protected:
  HotNodeTest() : source_({.layout = "v41", .rows_scale = 0.0002, .seed = 5}) {
    folder_ = FreshFolder("hot");
    config_.model_name = "procedural";
    config_.store_path = folder_ + "/store";
    config_.arena_budget_mib = kBudgetMib;
    config_.tiers_cache_mib = 0;
    config_.tiers_hot_set = folder_ + "/ngrams.hot";
    auto store = OpenRocksStore(config_.store_path);
    CHECK(store.ok()) << store.status().message();
    CHECK(ImportProcedural(source_, "1", config_.Map(), config_.node_name, **store).ok());
  }
  ~HotNodeTest() override { std::filesystem::remove_all(folder_); }

  table::HotSet RandomHotSet(size_t ngrams) const {
    Rng rng(3);
    const table::TableLayout& layout = source_.layout();
    table::HotSet hot_set;
    hot_set.max_ngram_size = static_cast<uint32_t>(layout.max_ngram_size);
    hot_set.compressed_vocab_size = layout.compressed_vocab_size;
    hot_set.pad_compressed = layout.pad_compressed;
    for (size_t n = 2; n <= hot_set.max_ngram_size; ++n) {
      table::HotSet::Order order;
      for (size_t i = 0; i < ngrams; ++i) {
        for (size_t k = 0; k < n; ++k) {
          order.ids.push_back(static_cast<uint32_t>(rng.NextBelow(layout.compressed_vocab_size)));
        }
        order.counts.push_back(10 * (ngrams - i) + n);
      }
      hot_set.orders.push_back(std::move(order));
    }
    return hot_set;
  }
  Result<std::unique_ptr<NodeTables>> Open() {
    ASSIGN_OR_RETURN(auto store, NodeTables::OpenStore(config_));
    return NodeTables::Open(config_, config_.Map(), nullptr, metrics_, std::move(store));
  }
  void ExpectPinned(const ServedTables& tables, const table::RowOf& row) const {
    const std::byte* stored = nullptr;
    const auto in_use = tables.Use();
    ASSERT_TRUE(tables.Find(row.layer_index, {&row.row, 1}, {&stored, 1}).ok());
    ASSERT_NE(stored, nullptr) << "layer " << row.layer_index << " row " << row.row;
    std::vector<std::byte> expected = source_.Row(row.layer_index, row.row);
    expected.resize(table::StoredRowBytes(source_.row_format().row_bytes()));
    table::SealRow(row.layer_index, row.row, expected);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), stored));
  }
  void ExpectRefusal(Code code, const std::string& what) {
    const auto tables = Open();
    ASSERT_FALSE(tables.ok());
    EXPECT_EQ(tables.status().code(), code);
    EXPECT_THAT(tables.status().message(), HasSubstr(what));
    EXPECT_THAT(tables.status().message(), HasSubstr(config_.tiers_hot_set));
  }

  const ProceduralSource source_;
  std::string folder_;
  NodeConfig config_;
  obs::Metrics metrics_;
};

TEST_F(HotNodeTest, RowsOfTheHotSetAreServedFromMemory) {
  const table::HotSet hot_set = RandomHotSet(50);
  ASSERT_TRUE(table::WriteHotSet(config_.tiers_hot_set, hot_set).ok());
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const TablesPtr tables = (*opened)->TakeMain();
  ASSERT_FALSE(tables->complete());
  const auto rows = *table::HotRows(hot_set, source_.Identity("1"), 1 << 20);
  EXPECT_GT(rows.size(), 2000u);
  EXPECT_EQ(tables->cold_figures()->pinned_rows, rows.size());
  for (const table::RowOf& row : rows) ExpectPinned(*tables, row);
  EXPECT_EQ(tables->cold_figures()->pages_read, 0u) << "for lookups";
}

TEST_F(HotNodeTest, WhenNotAllFitTheMostFrequentAreKept) {
  const table::HotSet hot_set = RandomHotSet(500);
  ASSERT_TRUE(table::WriteHotSet(config_.tiers_hot_set, hot_set).ok());
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const TablesPtr tables = (*opened)->TakeMain();
  const auto rows = *table::HotRows(hot_set, source_.Identity("1"), 1 << 20);
  const uint64_t kept = tables->cold_figures()->pinned_rows;
  EXPECT_LT(kept, rows.size());
  EXPECT_GT(kept, 2000u);
  EXPECT_LE(tables->memory_bytes(), kBudgetMib << 20);
  for (size_t i = 0; i < kept; ++i) ExpectPinned(*tables, rows[i]);
}

TEST_F(HotNodeTest, AFileThatDoesNotServeIsAnErrorAtStart) {
  ExpectRefusal(Code::kNotFound, "No such file");
  table::HotSet hot_set = RandomHotSet(10);
  hot_set.compressed_vocab_size += 1;
  ASSERT_TRUE(table::WriteHotSet(config_.tiers_hot_set, hot_set).ok());
  ExpectRefusal(Code::kFailedPrecondition, "vocabulary");
  std::ofstream(config_.tiers_hot_set, std::ios::app) << 'x';
  ExpectRefusal(Code::kDataLoss, "checksum");
  config_.arena_budget_mib = 0;  // everything fits: nothing to pin, nothing to read
  EXPECT_TRUE(Open().ok());
}

}  // namespace
}  // namespace engram::memnode
