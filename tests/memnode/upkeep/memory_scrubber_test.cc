// Rows that decay in memory: found by reading them through or by a client's word, written again
// from the store, and never anything but the damaged rows touched.
#include "memnode/upkeep/memory_scrubber.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "memnode/tables/open_tables.h"
#include "memnode/tables/procedural_tables.h"
#include "tests/memnode/stored_tables.h"
#include "tests/support/eventually.h"

namespace engram::memnode {
namespace {

class MemoryScrubberTest : public testing::Test {
 protected:
  MemoryScrubberTest() : stored_(store_) {}
  ~MemoryScrubberTest() override { scrubber_.reset(); }

  void Open(uint64_t budget_bytes = 0) {
    OpenTablesOptions options;
    options.map = {.members = {"m0"}};
    options.member = "m0";
    options.arena.pages = PageBacking::kSmall;
    options.load_threads = 1;
    options.partial.cache_bytes = 64 << 10;
    if (budget_bytes > 0) options.memory = std::make_shared<MemoryBudget>(budget_bytes);
    auto tables = OpenTables(store_, *stored_.Find("1"), options, registry_);
    ASSERT_TRUE(tables.ok()) << tables.status().message();
    tables_ = *std::move(tables);
  }
  void Scrub(double mib_per_s) {
    MemoryScrubberOptions options;
    options.mib_per_s = mib_per_s;
    loaded_.Add(tables_);
    scrubber_ = std::make_unique<MemoryScrubber>(loaded_, &repairer_, registry_, options);
    ASSERT_TRUE(scrubber_->Start().ok());
  }
  const std::byte* AddressOf(uint32_t layer, uint64_t row) const {
    const std::byte* address = nullptr;
    EXPECT_TRUE(tables_->Find(layer, {&row, 1}, {&address, 1}).ok());
    return address;
  }
  void FlipBit(uint32_t layer, uint64_t row) const {
    auto* byte = const_cast<std::byte*>(AddressOf(layer, row) + 7);
    *byte ^= std::byte{0x10};
  }
  bool IsRight(uint32_t layer, uint64_t row) const {
    std::vector<std::byte> bytes(tables_->row_bytes());
    return tables_->ReadRow(layer, row, bytes).ok() && bytes == stored_.base().Row(layer, row);
  }
  double Count(const std::string& name) {
    return registry_.GetCounter("engram_memnode_" + name + "_total", "").Value();
  }
  // False: it did not come to that in time.
  bool WaitFor(const std::string& name, double count) {
    return testing_support::Eventually([&] { return Count(name) >= count; });
  }

  MemoryStore store_;
  StoredTables stored_;
  obs::Metrics registry_;
  std::shared_ptr<const ServedTables> tables_;
  LoadedTables loaded_;
  Repairer repairer_{store_, loaded_};
  std::unique_ptr<MemoryScrubber> scrubber_;
};

TEST_F(MemoryScrubberTest, ABitThatFlipsInTheArenaIsFoundByReadingItThrough) {
  Open();
  FlipBit(1, 1234);
  FlipBit(0, 60);
  FlipBit(0, 61);
  EXPECT_FALSE(IsRight(1, 1234));
  Scrub(10'000);
  ASSERT_TRUE(WaitFor("memory_scrub_passes", 1));
  EXPECT_TRUE(IsRight(1, 1234) && IsRight(0, 60) && IsRight(0, 61));
  EXPECT_EQ(Count("memory_damaged_rows"), 3);
  EXPECT_EQ(Count("memory_mended_rows"), 3);
}

TEST_F(MemoryScrubberTest, ARowThatAClientReportsIsMendedWithTheDamagedOnesBesideIt) {
  Open();
  Scrub(0);
  FlipBit(1, 100);
  FlipBit(1, 101);
  FlipBit(0, 1000);
  scrubber_->Report(tables_, 1, 100);
  ASSERT_TRUE(WaitFor("memory_mended_rows", 2));
  EXPECT_TRUE(IsRight(1, 100) && IsRight(1, 101));
  EXPECT_FALSE(IsRight(0, 1000)) << "elsewhere, and not reported";
  EXPECT_EQ(Count("damage_reports"), 1);
}

TEST_F(MemoryScrubberTest, AClientsWordAboutSoundRowsChangesNothing) {
  Open();
  Scrub(0);
  scrubber_->Report(tables_, 0, 5);
  scrubber_->Report(tables_, 99, 5);
  scrubber_->Report(tables_, 0, uint64_t{1} << 60);
  FlipBit(0, 6);
  scrubber_->Report(tables_, 0, 6);
  ASSERT_TRUE(WaitFor("memory_mended_rows", 1)) << "those before it are done, too";
  EXPECT_EQ(Count("memory_damaged_rows"), 1);
  EXPECT_EQ(Count("memory_mend_failures"), 0);
}

TEST_F(MemoryScrubberTest, ADamagedRowStaysAndIsToldWhenThereIsNoSoundCopy) {
  Open();
  Scrub(0);
  FlipBit(0, 6);
  store_.CorruptPage(StoredTables::Id("1"), 0, 0);
  scrubber_->Report(tables_, 0, 6);
  ASSERT_TRUE(WaitFor("memory_mend_failures", 1));
  EXPECT_TRUE(testing_support::Eventually([&] { return scrubber_->unmended() == 1; }));
  EXPECT_FALSE(tables_->RowIsSound(0, 6)) << "clients refuse it";
  EXPECT_TRUE(IsRight(0, 7)) << "nothing else was touched";
}

TEST_F(MemoryScrubberTest, PartitionsOfATierAreMendedWhileTheyAreInMemory) {
  Open(1 << 20);  // of 1.9 MB
  ASSERT_FALSE(tables_->complete());
  uint64_t row = 0;
  while (AddressOf(0, row) == nullptr) ASSERT_LT(++row, stored_.base().rows(0));
  FlipBit(0, row);
  EXPECT_FALSE(IsRight(0, row));
  Scrub(10'000);
  ASSERT_TRUE(WaitFor("memory_mended_rows", 1));
  EXPECT_TRUE(IsRight(0, row));
}

TEST_F(MemoryScrubberTest, ProceduralRowsAreComputedAgain) {
  const table::ProceduralSpec spec = SmallSpec();
  auto tables =
      OpenProceduralTables(spec, {.members = {"m0"}}, "m0", {.pages = PageBacking::kSmall},
                           /*budget_bytes=*/0, registry_);
  ASSERT_TRUE(tables.ok()) << tables.status().message();
  ASSERT_TRUE((*tables)->complete());
  tables_ = *tables;
  FlipBit(0, 17);
  Scrub(0);
  scrubber_->Report(tables_, 0, 17);
  ASSERT_TRUE(WaitFor("memory_mended_rows", 1));
  EXPECT_TRUE(IsRight(0, 17));
}

}  // namespace
}  // namespace engram::memnode
