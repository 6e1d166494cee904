// Tables with memory for all, some or none of their rows: the same bytes from all, damage told,
// partitions moved by what is read.
#include "memnode/tables/open_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/base/rng.h"
#include "common/table/row_check.h"
#include "memnode/tables/partial_tables.h"
#include "tests/memnode/procedural_source.h"
#include "tests/support/eventually.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

class FakeKeeper : public StoreKeeper {
 public:
  void ReportDamage(TableSetId, uint32_t, uint64_t, const Status&) override { ++reports; }
  Status RepairPartition(const std::string&, const std::string&, uint32_t layer_index,
                         uint32_t partition, const std::atomic<bool>& given_up) override {
    ++repairs;
    if (repair) return repair(layer_index, partition);
    EXPECT_TRUE(testing_support::Eventually([&] { return given_up.load(); }));
    return Cancelled("given up");
  }

  std::atomic<int> reports = 0;
  std::atomic<int> repairs = 0;
  // Null: a repair waits until it is given up.
  std::function<Status(uint32_t layer_index, uint32_t partition)> repair;
};

class OpenTablesTest : public testing::Test {
 protected:
  OpenTablesTest() : source_({.layout = "v41", .rows_scale = 0.00002, .seed = 5}) {
    options_.map = {.epoch = 1, .members = {"m0", "m1"}};
    options_.member = "m0";
    options_.arena.pages = PageBacking::kSmall;
    options_.partial.cache_bytes = 256 << 10;
    options_.partial.reader.threads = 4;
    options_.partial.balance_period = std::chrono::hours(1);
    manifest_ =
        std::make_unique<Manifest>(*ImportProcedural(source_, "1", options_.map, "m0", store_));
    plan_ = *MakePlan(manifest_->identity, options_.map, "m0");
  }

  std::shared_ptr<ServedTables> Open() {
    auto tables = OpenTables(store_, *manifest_, options_, registry_);
    EXPECT_TRUE(tables.ok()) << tables.status().message();
    return tables.ok() ? *tables : nullptr;
  }
  static PartialTables& Partial(ServedTables& tables) {
    return dynamic_cast<PartialTables&>(tables);
  }
  uint64_t ShareBytes() const { return plan_.Map().size_bytes(); }
  // Rows of this member, spread over its partitions.
  std::vector<ColdRow> SomeRows(size_t count, uint64_t seed) const {
    Rng rng(seed);
    std::vector<ColdRow> rows;
    for (uint32_t i = 0; i < plan_.layers.size(); ++i) {
      const LayerPlan& layer = plan_.layers[i];
      for (uint32_t place = 0; place < count; ++place) {
        const uint32_t partition = layer.owned[rng.NextBelow(layer.owned.size())];
        const uint64_t row =
            layer.cut.FirstRow(partition) + rng.NextBelow(layer.cut.RowCount(partition));
        rows.push_back({i, place, i, row});
      }
    }
    return rows;
  }
  void ExpectStored(const ColdRow& row, const std::byte* stored) const {
    ASSERT_NE(stored, nullptr) << "row " << row.row;
    std::vector<std::byte> expected = source_.Row(row.layer_index, row.row);
    expected.resize(table::StoredRowBytes(plan_.row_bytes));
    table::SealRow(row.layer_index, row.row, expected);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), stored)) << "row " << row.row;
  }
  void LimitMemory(uint64_t bytes) { options_.memory = std::make_shared<MemoryBudget>(bytes); }
  // Reads rows as a data thread does: memory first, the rest as a batch.
  Status ReadAll(const ServedTables& tables, const std::vector<ColdRow>& rows,
                 size_t* cold_count = nullptr) {
    std::vector<ColdRow> missing;
    for (const ColdRow& row : rows) {
      const auto in_use = tables.Use();
      const std::byte* address = nullptr;
      RETURN_IF_ERROR(tables.Find(row.layer_index, {&row.row, 1}, {&address, 1}));
      if (address == nullptr) {
        missing.push_back(row);
      } else {
        ExpectStored(row, address);
      }
    }
    if (cold_count != nullptr) *cold_count = missing.size();
    if (missing.empty()) return OkStatus();
    std::atomic<int> told = 0;
    const auto batch = std::make_shared<ColdBatch>(missing, 2, tables.stored_row_bytes(), [&] {
      ++told;
      told.notify_all();
    });
    const bool has_first = missing.front().part == 0;
    const bool has_second = missing.back().part == 1;
    EXPECT_TRUE(tables.cold()->Submit(batch));
    const int parts = (has_first ? 1 : 0) + (has_second ? 1 : 0);
    for (int seen = told; seen < parts; seen = told) told.wait(seen);
    for (const uint32_t part : {0u, 1u}) {
      EXPECT_TRUE(batch->Arrived(part));
      RETURN_IF_ERROR(batch->status(part));
    }
    for (const ColdRow& row : missing) ExpectStored(row, batch->Find(row.part, row.place));
    return OkStatus();
  }

  const ProceduralSource source_;
  MemoryStore store_;
  obs::Metrics registry_;
  OpenTablesOptions options_;
  std::unique_ptr<Manifest> manifest_;
  TablePlan plan_;
};

TEST_F(OpenTablesTest, EveryBudgetGivesTheSameBytes) {
  for (const double share : {0.0, 0.1, 0.5, 1.0}) {
    LimitMemory(static_cast<uint64_t>(static_cast<double>(ShareBytes()) * share) + 1);
    const auto tables = Open();
    ASSERT_NE(tables, nullptr);
    EXPECT_EQ(tables->complete(), share == 1.0);
    size_t cold = 0;
    const std::vector<ColdRow> rows = SomeRows(400, 3);
    ASSERT_TRUE(ReadAll(*tables, rows, &cold).ok());
    EXPECT_EQ(cold > 0, share < 1) << share;
    EXPECT_LE(cold, share >= 0.5 ? rows.size() - 1 : rows.size()) << share;
    EXPECT_GE(cold, share == 0.0 ? rows.size() : 0) << share;
    std::vector<std::byte> out(plan_.row_bytes);
    for (size_t i = 0; i < rows.size(); i += 37) {
      ASSERT_TRUE(tables->ReadRow(rows[i].layer_index, rows[i].row, out).ok());
      EXPECT_EQ(out, source_.Row(rows[i].layer_index, rows[i].row));
    }
  }
}

TEST_F(OpenTablesTest, RowsReadOnceComeFromTheCache) {
  LimitMemory(options_.partial.cache_bytes);
  const auto tables = Open();
  const std::vector<ColdRow> rows = SomeRows(50, 4);
  ASSERT_TRUE(ReadAll(*tables, rows).ok());
  const uint64_t pages = tables->cold_figures()->pages_read;
  EXPECT_GT(pages, 0u);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(ReadAll(*tables, rows).ok());
  EXPECT_LT(tables->cold_figures()->pages_read, pages + rows.size())
      << "at most one more read each, where the cache wants to see a row twice";
  EXPECT_GT(tables->cold_figures()->cache_hits, 0u);
}

TEST_F(OpenTablesTest, ADamagedPageFailsItsPartAloneAndIsReported) {
  LimitMemory(options_.partial.cache_bytes);
  FakeKeeper keeper;
  options_.keeper = &keeper;
  const auto tables = Open();
  const std::vector<ColdRow> rows = SomeRows(50, 5);
  const uint64_t page = rows.back().row / plan_.layers[1].cut.rows_per_page;
  store_.CorruptPage(TableSetIdOf("procedural", "1"), 1, page);
  std::atomic<int> told = 0;
  const auto batch = std::make_shared<ColdBatch>(rows, 2, tables->stored_row_bytes(), [&] {
    ++told;
    told.notify_all();
  });
  ASSERT_TRUE(tables->cold()->Submit(batch));
  for (int seen = told; seen < 2; seen = told) told.wait(seen);
  EXPECT_TRUE(batch->status(0).ok());
  EXPECT_EQ(batch->status(1).code(), Code::kDataLoss);
  EXPECT_THAT(batch->status(1).message(), HasSubstr("page " + std::to_string(page)));
  EXPECT_EQ(keeper.reports, 1);
}

TEST_F(OpenTablesTest, ABusyPartitionTakesThePlaceOfAnIdleOneAndIsRemembered) {
  options_.partial.cache_bytes = 0;
  const table::ArenaMap map = plan_.Map();
  LimitMemory(10 * map.PartitionBytes(0, plan_.layers[0].owned.front()));
  auto tables = Open();
  const uint32_t last = plan_.layers[1].owned.back();
  ASSERT_FALSE(tables->IsResident(1, last));
  const uint64_t first_row = plan_.layers[1].cut.FirstRow(last);
  std::vector<ColdRow> rows;
  for (uint32_t i = 0; i < 600; ++i) rows.push_back({1, i, 1, first_row + i % 3});
  ASSERT_TRUE(ReadAll(*tables, rows).ok());
  const auto moves = Partial(*tables).Rebalance(4);
  ASSERT_TRUE(moves.ok()) << moves.status().message();
  EXPECT_EQ(*moves, 1);
  EXPECT_TRUE(tables->IsResident(1, last));
  size_t cold = 1;
  ASSERT_TRUE(ReadAll(*tables, rows, &cold).ok());
  EXPECT_EQ(cold, 0u);
  ASSERT_TRUE(Partial(*tables).SaveResident().ok());
  tables.reset();
  tables = Open();
  EXPECT_TRUE(tables->IsResident(1, last)) << "after a restart too";
}

TEST_F(OpenTablesTest, ReadersAreRightWhilePartitionsMove) {
  options_.partial.cache_bytes = 64 << 10;
  LimitMemory(ShareBytes() / 3);
  const auto tables = Open();
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    for (uint64_t seed = 0; !stop; ++seed) ASSERT_TRUE(ReadAll(*tables, SomeRows(40, seed)).ok());
  });
  for (int round = 0; round < 20; ++round) {
    const LayerPlan& layer = plan_.layers[round % 2 == 0 ? 0 : 1];
    const uint32_t busy = layer.owned[static_cast<size_t>(round) % layer.owned.size()];
    const std::vector<uint64_t> rows(5000, layer.cut.FirstRow(busy));
    std::vector<const std::byte*> addresses(rows.size());
    {
      const auto in_use = tables->Use();
      ASSERT_TRUE(tables->Find(round % 2 == 0 ? 0 : 1, rows, addresses).ok());
    }
    ASSERT_TRUE(Partial(*tables).Rebalance(4).ok());
  }
  stop = true;
  reader.join();
  EXPECT_GT(tables->cold_figures()->partitions_moved, 0u);
}

TEST_F(OpenTablesTest, MemoryThatAnotherVersionLeavesIsTakenByTheNextOne) {
  options_.partial.cache_bytes = 64 << 10;
  options_.partial.balance_period = std::chrono::milliseconds(5);
  LimitMemory(ShareBytes() + (ShareBytes() / 4));
  auto before = Open();
  ASSERT_TRUE(before->complete());
  const auto after = Open();
  ASSERT_FALSE(after->complete());
  const ServedTables::Resident tight = after->resident();
  EXPECT_LT(tight.partitions, tight.partitions_owned);
  EXPECT_GT(tight.partitions, 0u);
  EXPECT_LE(before->memory_bytes() + after->memory_bytes(), ShareBytes() + ShareBytes() / 4);
  before.reset();
  EXPECT_TRUE(testing_support::Eventually(
      [&] { return after->resident().partitions == tight.partitions_owned; }));
  EXPECT_EQ(after->cold_figures()->partitions_moved, 0u);
  size_t cold = 1;
  ASSERT_TRUE(ReadAll(*after, SomeRows(400, 7), &cold).ok());
  EXPECT_EQ(cold, 0u);
}

TEST_F(OpenTablesTest, OpeningEndsSoonAfterItIsCancelledAndLeavesItsMemory) {
  for (const bool some : {false, true}) {
    LimitMemory(some ? ShareBytes() / 2 : ShareBytes());
    std::atomic<bool> cancel = true;
    options_.cancel = &cancel;
    const uint64_t left = options_.memory->left();
    const auto opened = OpenTables(store_, *manifest_, options_, registry_);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.status().code(), Code::kCancelled);
    EXPECT_EQ(options_.memory->left(), left);
    cancel = false;
    const auto tables = Open();
    ASSERT_NE(tables, nullptr);
    cancel = true;
    size_t cold = 0;
    ASSERT_TRUE(ReadAll(*tables, SomeRows(100, 8), &cold).ok()) << "it is open by now";
    EXPECT_EQ(cold > 0, some);
  }
}

TEST_F(OpenTablesTest, ServesWhileLoadingAndIsCompleteAfterwards) {
  options_.serve_while_loading = true;
  const auto tables = Open();
  for (uint64_t seed = 0; !tables->complete(); ++seed) {
    ASSERT_TRUE(ReadAll(*tables, SomeRows(40, seed)).ok());
  }
  size_t cold = 1;
  ASSERT_TRUE(ReadAll(*tables, SomeRows(400, 1), &cold).ok());
  EXPECT_EQ(cold, 0u);
  EXPECT_EQ(tables->cold(), nullptr);
  EXPECT_EQ(tables->memory().size(), ShareBytes());
}

TEST_F(OpenTablesTest, DamageFoundWhileLoadingIsRepairedOrNamed) {
  const uint32_t partition = plan_.layers[1].owned[2];
  const uint64_t page = partition * plan_.layers[1].PagesPerPartition();
  store_.CorruptPage(TableSetIdOf("procedural", "1"), 1, page);
  const auto refused = OpenTables(store_, *manifest_, options_, registry_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kDataLoss);
  FakeKeeper keeper;
  keeper.repair = [&](uint32_t layer_index, uint32_t which) {
    EXPECT_EQ(layer_index, 1u);
    EXPECT_EQ(which, partition);
    store_.CorruptPage(TableSetIdOf("procedural", "1"), 1, page);  // the same bit again
    return OkStatus();
  };
  options_.keeper = &keeper;
  options_.load_threads = 1;
  EXPECT_NE(Open(), nullptr);
  EXPECT_EQ(keeper.repairs, 1);
  EXPECT_EQ(keeper.reports, 1);
}

// The thread that destroys them may be the one that holds up repairs.
TEST_F(OpenTablesTest, TablesEndWhileTheirLoadingWaitsForARepair) {
  const uint64_t page = plan_.layers[1].owned[2] * plan_.layers[1].PagesPerPartition();
  store_.CorruptPage(TableSetIdOf("procedural", "1"), 1, page);
  FakeKeeper keeper;
  options_.keeper = &keeper;
  options_.serve_while_loading = true;
  auto tables = Open();
  ASSERT_TRUE(testing_support::Eventually([&] { return keeper.repairs > 0; }));
  tables.reset();
  EXPECT_EQ(keeper.repairs, 1);
}

TEST_F(OpenTablesTest, TooManyRowsOnTheirWayAreHeldBackButNeverForGood) {
  options_.partial.reader.pending_rows_max = 10;
  options_.partial.cache_bytes = 0;
  LimitMemory(1);
  const auto tables = Open();
  EXPECT_TRUE(ReadAll(*tables, SomeRows(50, 6)).ok()) << "alone, a batch of any size is taken";
  EXPECT_TRUE(tables->cold()->has_room());
}

}  // namespace
}  // namespace engram::memnode
