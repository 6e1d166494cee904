// Row ids against the published code's results and a naive restatement of the rule.
#include "common/table/ngram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "tests/common/table/golden.h"

namespace engram::table {
namespace {

std::vector<uint64_t> Hash(const TableLayout& layout, size_t layer, const NgramState& before,
                           std::span<const int64_t> ids, std::span<const uint8_t> live = {}) {
  std::vector<uint64_t> rows(ids.size() * static_cast<size_t>(layout.rows_per_position()));
  HashRows(layout, layout.layers[layer], before, ids, live, rows);
  return rows;
}

// The rule as written: each value by walking back from t, 128-bit products, floor mod by hand.
std::vector<uint64_t> NaiveRows(const TableLayout& layout, size_t layer_index,
                                std::span<const int64_t> ids, std::span<const uint8_t> live) {
  const LayerLayout& layer = layout.layers[layer_index];
  std::vector<uint64_t> rows;
  for (size_t t = 0; t < ids.size(); ++t) {
    std::vector<int64_t> values;
    bool blocked = false;
    for (size_t s = 0; s < static_cast<size_t>(layout.max_ngram_size); ++s) {
      blocked = blocked || s > t || live[t - s] == 0;
      values.push_back(blocked ? layout.pad_compressed : ids[t - s]);
    }
    size_t column = 0;
    for (size_t order = 2; order <= values.size(); ++order) {
      int64_t mix = 0;
      for (size_t s = 0; s < order; ++s) {
        const __int128 product = static_cast<__int128>(values[s]) * layer.multipliers[s];
        mix ^= static_cast<int64_t>(static_cast<uint64_t>(product));
      }
      for (int head = 0; head < layout.heads_per_order; ++head, ++column) {
        const auto prime = static_cast<int64_t>(layer.primes[column]);
        const int64_t hash = (mix % prime + prime) % prime;
        rows.push_back(layer.offsets[column] + static_cast<uint64_t>(hash));
      }
    }
  }
  return rows;
}

struct Text {
  std::vector<int64_t> ids;
  std::vector<uint8_t> live;
};

Text RandomText(uint64_t seed, size_t length, int dead_percent) {
  Rng rng(seed);
  Text text;
  for (size_t i = 0; i < length; ++i) {
    text.ids.push_back(static_cast<int64_t>(rng.NextBelow(99092)));
    text.live.push_back(rng.NextBelow(100) >= static_cast<uint64_t>(dead_percent) ? 1 : 0);
  }
  return text;
}

class HashGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(HashGoldenTest, EveryRowMatchesThePublishedCode) {
  const HashGolden golden(GetParam());
  const auto columns = static_cast<size_t>(golden.layout.rows_per_position());
  for (size_t l = 0; l < golden.layout.layers.size(); ++l) {
    const LayerLayout& layer = golden.layout.layers[l];
    std::vector<uint64_t> all;
    for (const std::vector<int64_t>& ids : golden.sequences) {
      const std::vector<uint64_t> rows = Hash(golden.layout, l, NgramState(), ids);
      all.insert(all.end(), rows.begin(), rows.end());
    }
    const std::vector<int64_t> hashes =
        Flatten(golden.OfLayer("hash_ids_before_offset_[B][T][head]", layer.layer_id));
    ASSERT_EQ(hashes.size(), all.size());
    for (size_t i = 0; i < all.size(); ++i)
      ASSERT_EQ(all[i], layer.offsets[i % columns] + static_cast<uint64_t>(hashes[i])) << i;
    const std::vector<int64_t> first =
        Flatten(golden.OfLayer("row_ids_after_offset_first_sequence", layer.layer_id));
    ASSERT_LE(first.size(), all.size());
    for (size_t i = 0; i < first.size(); ++i)
      ASSERT_EQ(all[i], static_cast<uint64_t>(first[i])) << i;
    Sha256 sha;  // over the row ids as little-endian 64-bit integers, [B][T][H]
    sha.Update(std::as_bytes(std::span(all)));
    EXPECT_EQ(ToHex(sha.Finish()),
              golden.OfLayer("row_ids_sha256_all", layer.layer_id).get_string());
  }
}

INSTANTIATE_TEST_SUITE_P(All, HashGoldenTest,
                         ::testing::Values("tiny", "demo_default_compressed_99092",
                                           "demo_default_identity_vocab_128815",
                                           "v41_layout_99092"));

TEST(HashRows, DeadPositionsBlockThemselvesAndEverythingBehindThem) {
  const HashGolden golden("v41_layout_99092");
  for (const int dead_percent : {0, 10, 50, 100}) {
    const Text text = RandomText(static_cast<uint64_t>(dead_percent) + 1, 200, dead_percent);
    for (size_t l = 0; l < 2; ++l) {
      EXPECT_EQ(Hash(golden.layout, l, NgramState(), text.ids, text.live),
                NaiveRows(golden.layout, l, text.ids, text.live))
          << dead_percent;
    }
  }
}

TEST(HashRows, MultipliersBeyondADoublesPrecisionStayExact) {
  EngramConfig config;
  config.layer_ids = {0, 7};
  config.max_ngram_size = kMaxNgramSizeMax;
  config.heads_per_order = 3;
  config.head_dim = 8;
  config.requested_vocab_sizes.assign(static_cast<size_t>(config.order_count()), 1000);
  const Result<TableLayout> layout = MakeLayout(config, 5, 1, RowEncoding::kBf16);
  ASSERT_TRUE(layout.ok());
  EXPECT_GT(layout->layers[0].multipliers[0], int64_t{1} << 53);
  Rng rng(3);
  Text text{{INT64_MIN, INT64_MAX, -1, 0, 4}, {1, 1, 1, 1, 1}};
  for (int i = 0; i < 100; ++i) {
    text.ids.push_back(static_cast<int64_t>(rng.NextU64()));  // any int64, many products wrap
    text.live.push_back(rng.NextBelow(10) != 0);
  }
  for (size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(Hash(*layout, l, NgramState(), text.ids, text.live),
              NaiveRows(*layout, l, text.ids, text.live));
  }
}

TEST(HashRows, ChunksGiveTheSameRowsAsTheWhole) {
  const HashGolden golden("v41_layout_99092");
  const Text text = RandomText(9, 300, 15);
  const std::vector<uint64_t> whole = Hash(golden.layout, 1, NgramState(), text.ids, text.live);
  for (const size_t chunk : {1u, 2u, 3u, 7u, 64u, 299u}) {
    NgramState state;
    std::vector<uint64_t> rows;
    for (size_t first = 0; first < text.ids.size(); first += chunk) {
      const size_t count = std::min(chunk, text.ids.size() - first);
      const std::vector<uint64_t> part =
          Hash(golden.layout, 1, state, std::span(text.ids).subspan(first, count),
               std::span(text.live).subspan(first, count));
      rows.insert(rows.end(), part.begin(), part.end());
      for (size_t i = first; i < first + count; ++i) state.Append(text.ids[i], text.live[i] != 0);
    }
    EXPECT_EQ(rows, whole) << "chunks of " << chunk;
  }
}

TEST(NgramState, RollbackForgetsExactlyTheRejectedTokens) {
  const HashGolden golden("v41_layout_99092");
  const Text text = RandomText(4, 400, 10);
  const Text drafts = RandomText(5, 400, 30);
  const std::vector<uint64_t> whole = Hash(golden.layout, 0, NgramState(), text.ids, text.live);
  const auto columns = static_cast<size_t>(golden.layout.rows_per_position());
  Rng rng(6);
  NgramState state;
  for (size_t t = 0; t < text.ids.size(); ++t) {
    const auto rejected = static_cast<int>(rng.NextBelow(NgramState::kRollbackMax + 1));
    for (int i = 0; i < rejected; ++i)
      state.Append(drafts.ids[static_cast<size_t>(i)], drafts.live[static_cast<size_t>(i)] != 0);
    state.Rollback(rejected);
    ASSERT_EQ(state.length(), static_cast<int64_t>(t));
    const std::vector<uint64_t> rows =
        Hash(golden.layout, 0, state, std::span(text.ids).subspan(t, 1),
             std::span(text.live).subspan(t, 1));
    const std::vector<uint64_t> expected(whole.begin() + static_cast<ptrdiff_t>(t * columns),
                                         whole.begin() + static_cast<ptrdiff_t>((t + 1) * columns));
    ASSERT_EQ(rows, expected) << t;
    state.Append(text.ids[t], text.live[t] != 0);
  }
}

TEST(NgramState, ACopyIsASnapshot) {
  NgramState state;
  state.Append(1);
  state.Append(2, false);
  const NgramState snapshot = state;
  state.Append(3);
  EXPECT_EQ(snapshot.length(), 2);
  EXPECT_EQ(snapshot.Back(1).id, 2);
  EXPECT_FALSE(snapshot.Back(1).live);
  EXPECT_EQ(state.Back(3).id, 1);
}

TEST(NgramStateDeathTest, RollingBackPastWhatIsKeptIsLoud) {
  NgramState state;
  EXPECT_DEATH(state.Rollback(1), "rolling back 1 of 0");
  for (int i = 0; i < 200; ++i) state.Append(i);
  EXPECT_DEATH(state.Rollback(NgramState::kRollbackMax + 1), "rolling back");
  state.Rollback(NgramState::kRollbackMax);
  EXPECT_EQ(state.Back(7).id, 129);
  EXPECT_DEATH(state.Rollback(NgramState::kRollbackMax), "are kept");
}

}  // namespace
}  // namespace engram::table
