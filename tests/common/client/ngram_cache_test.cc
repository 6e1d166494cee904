// The n-gram cache by itself: right bytes or none, bounds, counts, threads.
#include "common/client/ngram_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "common/base/rng.h"
#include "tests/common/client/lookup/fake_node.h"

namespace engram::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kRowBytes = 264;
constexpr size_t kHeads = 2;
constexpr size_t kNgramBytes = kHeads * kRowBytes;
constexpr uint64_t kEnough = 1 << 20;

std::unique_ptr<NgramCache> MakeCache(uint64_t bytes) {
  auto cache = NgramCache::Make(MakeTestLayout(), {bytes});
  CHECK(cache.ok()) << cache.status().ToString();
  return std::move(*cache);
}

std::vector<std::byte> BytesOf(uint32_t layer, const std::vector<uint64_t>& rows) {
  std::vector<std::byte> bytes(rows.size() * kRowBytes);
  for (size_t i = 0; i < rows.size(); ++i) {
    FillRow(layer, rows[i], std::span(bytes).subspan(i * kRowBytes, kRowBytes));
  }
  return bytes;
}

void InsertRows(NgramCache& cache, uint32_t layer, const std::vector<uint64_t>& rows) {
  cache.Insert(layer, rows, BytesOf(layer, rows));
}

// What is missed; what is not must be right, and places of missed n-grams untouched.
std::vector<uint32_t> LookupAndCheck(NgramCache& cache, uint32_t layer,
                                     const std::vector<uint64_t>& rows) {
  std::vector<std::byte> out(rows.size() * kRowBytes, std::byte{0xee});
  std::vector<std::byte> expected = BytesOf(layer, rows);
  std::vector<uint32_t> missed = {12345};
  cache.Lookup(layer, rows, out, missed);
  for (const uint32_t ngram : missed) {
    const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(ngram * kNgramBytes);
    std::fill(begin, begin + kNgramBytes, std::byte{0xee});
  }
  EXPECT_EQ(out, expected);
  return missed;
}

TEST(NgramCache, FindsExactlyWhatWasInserted) {
  const auto cache = MakeCache(kEnough);
  EXPECT_THAT(LookupAndCheck(*cache, 0, {1, 1001, 2, 1002}), ElementsAre(0, 1));
  InsertRows(*cache, 0, {1, 1001});
  EXPECT_THAT(LookupAndCheck(*cache, 0, {2, 1002, 1, 1001, 1, 1001}), ElementsAre(0));
}

TEST(NgramCache, OneDifferentIdIsAnotherNgram) {
  const auto cache = MakeCache(kEnough);
  InsertRows(*cache, 0, {1, 1001});
  EXPECT_THAT(LookupAndCheck(*cache, 0, {1, 1002}), ElementsAre(0));
  EXPECT_THAT(LookupAndCheck(*cache, 0, {2, 1001}), ElementsAre(0));
  EXPECT_THAT(LookupAndCheck(*cache, 0, {1001, 1}), ElementsAre(0));
}

TEST(NgramCache, TheSameIdsOfAnotherLayerAreNotMixedUp) {
  const auto cache = MakeCache(kEnough);
  InsertRows(*cache, 0, {1, 1001});
  EXPECT_THAT(LookupAndCheck(*cache, 1, {1, 1001}), ElementsAre(0));
  InsertRows(*cache, 1, {1, 1001});
  EXPECT_THAT(LookupAndCheck(*cache, 1, {1, 1001}), IsEmpty());
  EXPECT_THAT(LookupAndCheck(*cache, 0, {1, 1001}), IsEmpty());
}

TEST(NgramCache, IdsOfEveryNgramInASetAreComparedInFull) {
  // One set a layer: thousands of n-grams share 16 places and 2^16 tags, so tags agree by chance.
  const auto cache = MakeCache(24 << 10);
  ASSERT_EQ(cache->stats().entries_max, 2u * 16);
  Rng rng(11);
  uint64_t hits = 0;
  for (int round = 0; round < 40000; ++round) {
    const uint64_t first = rng.NextBelow(300);
    const std::vector<uint64_t> rows = {first, 1000 + rng.NextBelow(2)};
    if (LookupAndCheck(*cache, 0, rows).empty()) {
      ++hits;
    } else {
      InsertRows(*cache, 0, rows);
    }
  }
  EXPECT_GT(hits, 100u);
  EXPECT_EQ(cache->stats().Total().hits, hits);
}

TEST(NgramCache, CountsByLayerAndOrder) {
  const auto cache = MakeCache(kEnough);
  InsertRows(*cache, 1, {7, 1507, 3003, 4503});  // a 2-gram and a 3-gram
  LookupAndCheck(*cache, 1, {7, 1507, 3003, 4503, 8, 1507, 3003, 4503});
  const CacheStats stats = cache->stats();
  ASSERT_EQ(stats.layers.size(), 2u);
  ASSERT_EQ(stats.layers[1].size(), 2u);
  EXPECT_EQ(stats.layers[1][0].hits, 1u);
  EXPECT_EQ(stats.layers[1][0].misses, 1u);
  EXPECT_EQ(stats.layers[1][0].inserts, 1u);
  EXPECT_EQ(stats.layers[1][1].hits, 2u);
  EXPECT_EQ(stats.layers[1][1].misses, 0u);
  EXPECT_EQ(stats.layers[1][1].inserts, 1u);
  EXPECT_EQ(stats.layers[0][0].hits + stats.layers[0][1].misses, 0u);
  EXPECT_EQ(stats.Total().evictions, 0u);
}

TEST(NgramCache, InsertingTwiceKeepsOneEntry) {
  const auto cache = MakeCache(kEnough);
  InsertRows(*cache, 0, {5, 1005, 5, 1005});
  InsertRows(*cache, 0, {5, 1005});
  EXPECT_EQ(cache->stats().entries, 1u);
  EXPECT_EQ(cache->stats().Total().inserts, 1u);
}

TEST(NgramCache, NeverHoldsMoreThanItsBytes) {
  for (const uint64_t bytes : {100'000ull, 1'000'000ull, 5'000'000ull}) {
    const auto cache = MakeCache(bytes);
    const uint64_t empty = cache->stats().bytes_used;
    for (uint64_t row = 0; row < 1000; ++row) {
      std::vector<uint64_t> rows;
      for (uint64_t second = 0; second < 12; ++second) {
        rows.insert(rows.end(), {row, 1000 + second});
      }
      InsertRows(*cache, 0, rows);
    }
    const CacheStats stats = cache->stats();
    EXPECT_LE(stats.bytes_used, stats.bytes_max);
    EXPECT_LE(stats.bytes_max, bytes);
    EXPECT_GE(stats.bytes_max, bytes / 2) << "most of what was given is used";
    EXPECT_EQ(stats.entries, stats.Total().inserts - stats.Total().evictions);
    EXPECT_GE(stats.bytes_used, empty + stats.entries * kNgramBytes);
    EXPECT_GE(stats.entries, std::min<uint64_t>(12000, stats.entries_max / 2) * 9 / 10);
  }
}

TEST(NgramCache, WhatIsHitOutlivesWhatIsNot) {
  const auto cache = MakeCache(200'000);
  const uint64_t entries = cache->stats().entries_max / 2;  // of one layer
  std::vector<uint64_t> hot;
  for (uint64_t i = 0; i < entries / 8; ++i) hot.insert(hot.end(), {i, 1000});
  InsertRows(*cache, 0, hot);
  std::vector<uint64_t> cold(20);
  size_t missed = 0;
  uint64_t next = 0;
  for (int round = 0; round < 200; ++round) {  // 2000 cold n-grams, many times the cache
    missed += LookupAndCheck(*cache, 0, hot).size();
    for (size_t i = 0; i < cold.size(); i += 2, ++next) {
      cold[i] = next % 1000;
      cold[i + 1] = 1001 + next / 1000;
    }
    InsertRows(*cache, 0, cold);
    InsertRows(*cache, 0, cold);  // seen twice: taken
  }
  EXPECT_GT(cache->stats().Total().evictions, 1000u);
  EXPECT_LT(missed, hot.size() / 2 * 200 / 100) << "of " << hot.size() / 2 * 200 << " lookups";
}

TEST(NgramCache, OnceFullItTakesWhatComesTwice) {
  const auto cache = MakeCache(200'000);
  for (uint64_t i = 0; i < 4000; ++i) InsertRows(*cache, 0, {i % 1000, 1000 + i / 1000});
  const CacheStats full = cache->stats();
  ASSERT_EQ(full.entries, full.entries_max / 2);
  EXPECT_LE(full.Total().evictions, 40u) << "16-bit tags that happen to agree";
  EXPECT_EQ(full.Total().inserts + full.Total().passed_by, 4000u);
  InsertRows(*cache, 0, {7, 1900});
  EXPECT_THAT(LookupAndCheck(*cache, 0, {7, 1900}), ElementsAre(0));
  InsertRows(*cache, 0, {7, 1900});
  EXPECT_THAT(LookupAndCheck(*cache, 0, {7, 1900}), IsEmpty());
  EXPECT_EQ(cache->stats().Total().evictions, full.Total().evictions + 1);
  EXPECT_EQ(cache->stats().entries, full.entries);
}

TEST(NgramCache, TooFewBytesAreRefusedWithTheLeast) {
  const auto refused = NgramCache::Make(MakeTestLayout(), {5000});
  ASSERT_EQ(refused.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("5000 bytes"));
  const std::string text = refused.status().message();
  const size_t at = text.find(" bytes; give it more");
  ASSERT_NE(at, std::string::npos) << text;
  const uint64_t least = std::stoull(text.substr(text.rfind(' ', at - 1)));
  EXPECT_TRUE(NgramCache::Make(MakeTestLayout(), {least}).ok());
}

TEST(NgramCache, ManyThreadsGetRightRowsAndExactCounts) {
  const auto cache = MakeCache(400'000);  // small enough to evict all the time
  constexpr int kThreads = 4;
  constexpr int kRounds = 300;
  constexpr uint64_t kNgrams = 80;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&cache, t] {
      Rng rng(static_cast<uint64_t>(t));
      for (int round = 0; round < kRounds; ++round) {
        std::vector<uint64_t> rows;
        for (uint64_t i = 0; i < kNgrams; ++i) {
          rows.insert(rows.end(), {rng.NextBelow(1000), 1000 + rng.NextBelow(2)});
        }
        std::vector<uint64_t> to_insert;
        for (const uint32_t ngram : LookupAndCheck(*cache, 0, rows)) {
          to_insert.insert(to_insert.end(), {rows[ngram * 2], rows[ngram * 2 + 1]});
        }
        InsertRows(*cache, 0, to_insert);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const CacheStats stats = cache->stats();
  const CacheCounts total = stats.Total();
  EXPECT_EQ(total.hits + total.misses, kThreads * kRounds * kNgrams);
  EXPECT_EQ(stats.entries, total.inserts - total.evictions);
  EXPECT_GT(total.hits, 0u);
  EXPECT_GT(total.evictions, 0u);
}

}  // namespace
}  // namespace engram::client
