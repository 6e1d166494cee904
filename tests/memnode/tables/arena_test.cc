// Addresses in the arena: by arithmetic, checked before anything is copied.
#include "memnode/tables/arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/base/rng.h"
#include "common/table/row_check.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr uint32_t kRowBytes = 264;

// Two layers, the first with every third partition owned, the second whole.
TablePlan MakeTestPlan() {
  TablePlan plan;
  plan.row_bytes = kRowBytes;
  for (const uint64_t rows : {20'011u, 997u}) {
    LayerPlan layer;
    layer.layer_id = static_cast<int>(plan.layers.size()) * 10 + 1;
    layer.cut = table::CutLayer(rows, kRowBytes);
    const uint32_t step = plan.layers.empty() ? 3 : 1;
    for (uint32_t p = 0; p < layer.cut.partition_count; p += step) layer.owned.push_back(p);
    plan.layers.push_back(std::move(layer));
  }
  return plan;
}

void FillRow(uint32_t layer, uint64_t row, std::byte* out) {
  Rng rng(Mix64(layer, row));
  for (uint32_t i = 0; i < kRowBytes; ++i) out[i] = static_cast<std::byte>(rng.NextU64());
}

class ArenaTest : public testing::Test {
 protected:
  ArenaTest()
      : plan_(MakeTestPlan()), arena_(*Arena::Allocate(plan_, {.pages = PageBacking::kSmall})) {
    for (uint32_t i = 0; i < plan_.layers.size(); ++i) {
      for (const uint32_t partition : plan_.layers[i].owned) {
        const uint64_t first = plan_.layers[i].cut.FirstRow(partition);
        std::vector<std::byte> row(kRowBytes);
        for (uint64_t k = 0; k < plan_.layers[i].cut.RowCount(partition); ++k) {
          FillRow(i, first + k, row.data());
          arena_.PutRows(i, partition, k, row);
        }
      }
    }
  }
  bool Owned(uint32_t layer, uint64_t row) const {
    return layer == 1 || plan_.layers[0].cut.PartitionOf(row) % 3 == 0;
  }

  TablePlan plan_;
  Arena arena_;
};

TEST_F(ArenaTest, EveryOwnedRowIsFoundAndNoOther) {
  std::vector<std::byte> expected(kRowBytes), out(kRowBytes);
  for (uint32_t i = 0; i < plan_.layers.size(); ++i) {
    for (uint64_t row = 0; row < plan_.layers[i].cut.total_rows; ++row) {
      const Status got = arena_.GatherRows(i, {&row, 1}, out);
      ASSERT_EQ(got.ok(), Owned(i, row)) << got.message();
      if (!got.ok()) continue;
      FillRow(i, row, expected.data());
      ASSERT_EQ(out, expected) << "row " << row;
    }
  }
}

TEST_F(ArenaTest, GathersAnyOrderWithDuplicates) {
  Rng rng(3);
  std::vector<uint64_t> rows;
  while (rows.size() < 2000) {
    const uint64_t row = rng.NextBelow(plan_.layers[0].cut.total_rows);
    if (Owned(0, row)) rows.push_back(row);
  }
  rows[1999] = rows[0];
  std::vector<std::byte> out(rows.size() * kRowBytes), expected(kRowBytes);
  ASSERT_TRUE(arena_.GatherRows(0, rows, out).ok());
  for (size_t i = 0; i < rows.size(); ++i) {
    FillRow(0, rows[i], expected.data());
    ASSERT_EQ(std::memcmp(&out[i * kRowBytes], expected.data(), kRowBytes), 0) << i;
  }
}

TEST_F(ArenaTest, EveryStoredRowCarriesTheCheckOfItsOwnNumber) {
  std::vector<const std::byte*> address(1);
  for (uint64_t row = 0; row < plan_.layers[1].cut.total_rows; ++row) {
    ASSERT_TRUE(arena_.Find(1, {&row, 1}, address).ok());
    uint32_t check = 0;
    std::memcpy(&check, address[0] + kRowBytes, sizeof(check));
    ASSERT_EQ(check, table::RowCheck(1, row, {address[0], kRowBytes}));
    ASSERT_NE(check, table::RowCheck(1, row + 1, {address[0], kRowBytes}));
    ASSERT_NE(check, table::RowCheck(0, row, {address[0], kRowBytes}));
  }
}

TEST_F(ArenaTest, ARowThatIsNotHereIsNamed) {
  std::vector<std::byte> out(2 * kRowBytes);
  const uint64_t total = plan_.layers[0].cut.total_rows;
  const uint64_t foreign = plan_.layers[0].cut.FirstRow(1);
  for (const uint64_t bad : {total, total + 1, UINT64_MAX}) {
    const std::vector<uint64_t> rows = {0, bad};
    const Status got = arena_.GatherRows(0, rows, out);
    EXPECT_EQ(got.code(), Code::kOutOfRange);
    EXPECT_THAT(got.message(), HasSubstr(std::to_string(bad)));
  }
  const std::vector<uint64_t> rows = {0, foreign};
  const Status got = arena_.GatherRows(0, rows, out);
  EXPECT_EQ(got.code(), Code::kFailedPrecondition);
  EXPECT_THAT(got.message(), HasSubstr("not on this node"));
  EXPECT_EQ(arena_.GatherRows(2, rows, out).code(), Code::kOutOfRange);
}

TEST(Arena, DividesExactlyAtEveryPartitionEdgeOfALargeLayer) {
  TablePlan plan;
  plan.row_bytes = kRowBytes;
  LayerPlan layer;
  layer.cut = table::CutLayer(384'006'168, kRowBytes);  // DeepSeek-V4.1-Flash, layer 1
  layer.owned = {0};
  plan.layers.push_back(layer);
  const Arena arena = *Arena::Allocate(plan, {.pages = PageBacking::kSmall});
  std::vector<const std::byte*> address(1);
  for (uint32_t partition = 0; partition < layer.cut.partition_count; ++partition) {
    const uint64_t first = layer.cut.FirstRow(partition);
    const uint64_t last = first + layer.cut.RowCount(partition) - 1;
    for (const uint64_t row : {first, last}) {
      const Status found = arena.Find(0, {&row, 1}, address);
      ASSERT_EQ(found.ok(), partition == 0) << row;
      if (found.ok()) continue;
      ASSERT_THAT(found.message(), HasSubstr("(partition " + std::to_string(partition) + ")"));
    }
  }
}

TEST(Arena, OwningNothingIsNoError) {
  TablePlan plan;
  plan.row_bytes = kRowBytes;
  plan.layers.push_back({.layer_id = 1, .cut = table::CutLayer(100, kRowBytes), .owned = {}});
  const auto arena = Arena::Allocate(plan, {});
  ASSERT_TRUE(arena.ok());
  const uint64_t row = 5;
  std::vector<std::byte> out(kRowBytes);
  EXPECT_EQ(arena->GatherRows(0, {&row, 1}, out).code(), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace engram::memnode
