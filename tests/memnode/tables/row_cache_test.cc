// The cache of single rows and the pinned rows: never a wrong byte, bounded, what is asked for
// again stays.
#include "memnode/tables/row_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <thread>

#include "common/base/rng.h"
#include "common/table/row_check.h"
#include "memnode/tables/pinned_rows.h"
#include "tests/memnode/procedural_source.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

constexpr uint32_t kBytes = 268;

std::vector<std::byte> RowFor(uint32_t layer, uint64_t row) {
  std::vector<std::byte> bytes(kBytes);
  Rng rng(Mix64(layer, row));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.NextU64());
  return bytes;
}

TEST(RowCache, GivesBackWhatWasPutAndNothingElse) {
  const auto cache = *RowCache::Create(1 << 20, kBytes);
  std::vector<std::byte> out(kBytes);
  EXPECT_FALSE(cache->Get(0, 7, out.data()));
  cache->Put(0, 7, RowFor(0, 7).data());
  cache->Put(1, 7, RowFor(1, 7).data());
  ASSERT_TRUE(cache->Get(0, 7, out.data()));
  EXPECT_EQ(out, RowFor(0, 7));
  ASSERT_TRUE(cache->Get(1, 7, out.data()));
  EXPECT_EQ(out, RowFor(1, 7));
  EXPECT_FALSE(cache->Get(0, 8, out.data()));
  EXPECT_EQ(cache->hits(), 2u);
  EXPECT_EQ(cache->misses(), 2u);
}

TEST(RowCache, HoldsNoMoreThanItsBudgetAndAtLeastOneSet) {
  EXPECT_EQ((*RowCache::Create(0, kBytes))->capacity_rows(), 8u);
  const auto cache = *RowCache::Create(100 * kBytes, kBytes);
  EXPECT_LE(cache->capacity_rows(), 100u);
  for (uint64_t row = 0; row < 5000; ++row) cache->Put(0, row, RowFor(0, row).data());
  uint64_t found = 0;
  std::vector<std::byte> out(kBytes);
  for (uint64_t row = 0; row < 5000; ++row) {
    if (!cache->Get(0, row, out.data())) continue;
    ++found;
    EXPECT_EQ(out, RowFor(0, row));
  }
  EXPECT_EQ(found, cache->capacity_rows());
}

TEST(RowCache, AScanDoesNotPushOutRowsThatAreAskedForAgain) {
  const auto cache = *RowCache::Create(2000 * kBytes, kBytes);
  std::vector<std::byte> out(kBytes);
  const auto touch = [&](uint64_t row) {
    if (cache->Get(0, row, out.data())) return true;
    cache->Put(0, row, RowFor(0, row).data());
    return false;
  };
  for (int round = 0; round < 4; ++round) {
    for (uint64_t row = 0; row < 500; ++row) touch(row);
  }
  for (uint64_t row = 10'000; row < 12'000; ++row) touch(row);  // as much as fits, once
  uint64_t kept = 0;
  for (uint64_t row = 0; row < 500; ++row) kept += touch(row) ? 1 : 0;
  EXPECT_GE(kept, 450u);
}

TEST(RowCache, ARowThatComesBackSoonIsKept) {
  const auto cache = *RowCache::Create(2000 * kBytes, kBytes);
  std::vector<std::byte> out(kBytes);
  const auto touch = [&](uint64_t row) {
    if (cache->Get(0, row, out.data())) return true;
    cache->Put(0, row, RowFor(0, row).data());
    return false;
  };
  for (uint64_t row = 10'000; row < 15'000; ++row) touch(row);  // full of rows read once
  // Each of 200 rows comes back after as many others as the ways for new rows hold, so that it has
  // left by then; that it was there is remembered.
  uint64_t other = 20'000;
  for (int round = 0; round < 4; ++round) {
    for (uint64_t row = 0; row < 200; ++row) touch(row);
    for (int i = 0; i < 1000; ++i) touch(other++);
  }
  uint64_t kept = 0;
  for (uint64_t row = 0; row < 200; ++row) kept += touch(row) ? 1 : 0;
  EXPECT_GE(kept, 160u);
}

TEST(RowCache, ManyThreadsReadAndWriteWholeRows) {
  const auto cache = *RowCache::Create(200 * kBytes, kBytes);
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      Rng rng(seed);
      std::vector<std::byte> out(kBytes);
      for (int i = 0; i < 5000; ++i) {
        const uint64_t row = rng.NextBelow(400);
        if (cache->Get(0, row, out.data())) {
          ASSERT_EQ(out, RowFor(0, row));
        } else {
          cache->Put(0, row, RowFor(0, row).data());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cache->hits() + cache->misses(), 20'000u);
}

TEST(PinnedRows, EveryPinnedRowIsThereSealedAndNoOther) {
  const ProceduralSource source({.layout = "v41", .rows_scale = 0.00002, .seed = 5});
  MemoryStore store;
  const table::ClusterMap map = {.epoch = 1, .members = {"m0"}};
  const auto manifest = ImportProcedural(source, "1", map, "m0", store);
  ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  const auto reader = *TableReader::Open(store, *manifest);
  Rng rng(1);
  std::set<RowId> wanted;
  while (wanted.size() < 700) {
    const auto layer = static_cast<uint32_t>(rng.NextBelow(2));
    wanted.insert({layer, rng.NextBelow(source.rows(layer))});
  }
  const auto pinned = PinnedRows::Read(*reader, {wanted.begin(), wanted.end()});
  ASSERT_TRUE(pinned.ok()) << pinned.status().message();
  EXPECT_EQ((*pinned)->size(), 700u);
  EXPECT_LE((*pinned)->memory_bytes(), 700 * (268 + 40) + (1 << 21));
  for (uint32_t layer = 0; layer < 2; ++layer) {
    for (uint64_t row = 0; row < source.rows(layer); ++row) {
      const std::byte* stored = (*pinned)->Find(layer, row);
      ASSERT_EQ(stored != nullptr, wanted.contains({layer, row}));
      if (stored == nullptr) continue;
      std::vector<std::byte> expected = source.Row(layer, row);
      expected.resize(kBytes);
      table::SealRow(layer, row, expected);
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), stored));
    }
  }
  EXPECT_EQ((*PinnedRows::Read(*reader, {}))->Find(0, 0), nullptr);
}

TEST(PinnedRows, ADamagedPageIsAnErrorNotARow) {
  const ProceduralSource source({.layout = "v41", .rows_scale = 0.00002, .seed = 5});
  MemoryStore store;
  const auto manifest = ImportProcedural(source, "1", {.epoch = 1, .members = {"m0"}}, "m0", store);
  store.CorruptPage(TableSetIdOf("procedural", "1"), 1, 3);
  const auto reader = *TableReader::Open(store, *manifest);
  EXPECT_EQ(PinnedRows::Read(*reader, {{0, 1}, {1, 45}}).status().code(), Code::kDataLoss);
}

}  // namespace
}  // namespace engram::memnode
