// Hot sets: what is written is read back, damage is told, and the rows are those that hashing
// finds.
#include "common/table/hot_set.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "common/base/crc32c.h"
#include "common/base/rng.h"
#include "common/table/ngram.h"
#include "common/table/procedural.h"

namespace engram::table {
namespace {

using testing::HasSubstr;

// N-grams of random tokens over the vocabulary of `layout`, with falling counts.
HotSet RandomHotSet(const TableLayout& layout, uint64_t seed, size_t count) {
  Rng rng(seed);
  HotSet hot_set;
  hot_set.max_ngram_size = static_cast<uint32_t>(layout.max_ngram_size);
  hot_set.compressed_vocab_size = layout.compressed_vocab_size;
  hot_set.pad_compressed = layout.pad_compressed;
  hot_set.token_map_digest = std::string(64, 'a');
  hot_set.corpus = "random tokens";
  hot_set.tokens_counted = 12345;
  for (size_t n = 2; n <= hot_set.max_ngram_size; ++n) {
    HotSet::Order order;
    for (size_t i = 0; i < count; ++i) {
      for (size_t k = 0; k < n; ++k) {
        order.ids.push_back(static_cast<uint32_t>(rng.NextBelow(layout.compressed_vocab_size)));
      }
      order.counts.push_back(1 + rng.NextBelow(1000));
    }
    std::sort(order.counts.rbegin(), order.counts.rend());
    hot_set.orders.push_back(std::move(order));
  }
  return hot_set;
}

class HotSetTest : public testing::Test {
 protected:
  HotSetTest() : path_(testing::TempDir() + fmt::format("hot_set_test.{}.hot", ::getpid())) {
    CHECK(layout_.ok());
  }
  ~HotSetTest() override { std::filesystem::remove(path_); }

  std::string Bytes() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void Put(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  // With a checksum that is right, as a faulty writer would leave it.
  void PutSealed(std::string bytes) const {
    const auto body = std::as_bytes(std::span(bytes)).first(bytes.size() - 4);
    const uint32_t crc = Crc32c(body);
    std::memcpy(bytes.data() + body.size(), &crc, sizeof(crc));
    Put(bytes);
  }
  void ExpectDamage(const std::string& what) const {
    const auto read = ReadHotSet(path_);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.status().code(), Code::kDataLoss);
    EXPECT_THAT(read.status().message(), HasSubstr(what));
    EXPECT_THAT(read.status().message(), HasSubstr(path_));
  }

  const Result<TableLayout> layout_ =
      MakeProceduralLayout({.layout = "v41", .rows_scale = 1e-4, .seed = 3});
  const std::string path_;
};

TEST_F(HotSetTest, WhatIsWrittenIsReadBack) {
  HotSet written = RandomHotSet(*layout_, 1, 100);
  ASSERT_TRUE(WriteHotSet(path_, written).ok());
  auto read = ReadHotSet(path_);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, written);
  written.token_map_digest.clear();
  written.corpus.clear();
  written.orders.assign(written.orders.size(), {});
  ASSERT_TRUE(WriteHotSet(path_, written).ok()) << "in place of the other";
  read = ReadHotSet(path_);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, written);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

TEST_F(HotSetTest, NoChangedByteGoesUnnoticed) {
  ASSERT_TRUE(WriteHotSet(path_, RandomHotSet(*layout_, 2, 20)).ok());
  const std::string sound = Bytes();
  Rng rng(7);
  for (int round = 0; round < 400; ++round) {
    std::string bytes = sound;
    if (round % 4 == 0) {
      bytes.resize(rng.NextBelow(bytes.size()));
    } else {
      for (uint64_t i = 0; i <= rng.NextBelow(4); ++i) {
        char& byte = bytes[rng.NextBelow(bytes.size())];
        byte = static_cast<char>(byte ^ static_cast<char>(1 + rng.NextBelow(255)));
      }
    }
    if (bytes == sound) continue;
    Put(bytes);
    const auto read = ReadHotSet(path_);
    ASSERT_FALSE(read.ok()) << "round " << round;
    ASSERT_THAT(read.status().message(), HasSubstr(path_));
  }
}

TEST_F(HotSetTest, AFaultyWritersFilesAreRefusedOrValid) {
  ASSERT_TRUE(WriteHotSet(path_, RandomHotSet(*layout_, 3, 20)).ok());
  const std::string sound = Bytes();
  Rng rng(8);
  int accepted = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bytes = sound;
    const size_t range = round % 2 == 0 ? 168 : bytes.size();  // half of them in the header
    bytes[8 + rng.NextBelow(range - 12)] = static_cast<char>(rng.NextU64());
    PutSealed(bytes);
    const auto read = ReadHotSet(path_);
    if (!read.ok()) continue;
    ++accepted;
    ASSERT_EQ(read->orders.size(), read->max_ngram_size - 1);
    for (const HotSet::Order& order : read->orders) {
      ASSERT_TRUE(std::is_sorted(order.counts.rbegin(), order.counts.rend()));
      for (const uint32_t id : order.ids) ASSERT_LT(id, read->compressed_vocab_size);
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST_F(HotSetTest, EachKindOfDamageHasItsOwnMessage) {
  EXPECT_EQ(ReadHotSet(path_ + ".none").status().code(), Code::kNotFound);
  ASSERT_TRUE(WriteHotSet(path_, RandomHotSet(*layout_, 4, 20)).ok());
  const std::string sound = Bytes();
  const auto with = [&](size_t offset, uint64_t value, size_t size) {
    std::string bytes = sound;
    std::memcpy(bytes.data() + offset, &value, size);
    return bytes;
  };
  Put("PK\x03\x04 something else");
  ExpectDamage("not a hot set");
  Put(sound.substr(0, 100));
  ExpectDamage("ends after 100 bytes");
  Put(sound.substr(0, sound.size() - 9));
  ExpectDamage("checksum");
  PutSealed(sound + "1234");
  ExpectDamage("bytes, not");
  PutSealed(with(12, 1, 4));
  ExpectDamage("of up to 1 tokens");
  PutSealed(with(16, uint64_t{1} << 40, 8));
  ExpectDamage("a vocabulary of");
  PutSealed(with(24, uint64_t{1} << 40, 8));
  ExpectDamage("pad id");
  PutSealed(with(104, 1 << 20, 4));
  ExpectDamage("about the corpus");
  PutSealed(with(112, uint64_t{1} << 60, 8));
  ExpectDamage("more than may be");
  const size_t first_id = 168 + std::strlen("random tokens");
  PutSealed(with(first_id, 0xffffffff, 4));
  ExpectDamage("outside the vocabulary");
  PutSealed(with(first_id + 20 * 2 * 4 + 19 * 8, 1 << 20, 8));
  ExpectDamage("not sorted");
  PutSealed(with(first_id + 20 * 2 * 4 + 19 * 8, 0, 8));
  ExpectDamage("0 times");
  Put(with(8, 2, 4));
  EXPECT_EQ(ReadHotSet(path_).status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(ReadHotSet(path_).status().message(), HasSubstr("format 2"));
}

TEST_F(HotSetTest, AnInvalidSetIsNotWritten) {
  const HotSet valid = RandomHotSet(*layout_, 5, 20);
  HotSet unsorted = valid;
  unsorted.orders[1].counts.back() += 100'000;
  HotSet lengthy = valid;
  lengthy.corpus.assign(kHotSetCorpusBytesMax + 1, 'x');
  HotSet torn = valid;
  torn.orders[0].ids.pop_back();
  HotSet fewer = valid;
  fewer.orders.pop_back();
  for (const HotSet& wrong : {unsorted, lengthy, torn, fewer}) {
    EXPECT_EQ(WriteHotSet(path_, wrong).code(), Code::kInvalidArgument);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  const Status nowhere = WriteHotSet(path_ + ".d/x", valid);
  EXPECT_EQ(nowhere.code(), Code::kUnavailable);
  EXPECT_THAT(nowhere.message(), HasSubstr("No such file"));
}

TEST_F(HotSetTest, TheRowsAreThoseThatATextsPositionsRead) {
  const TableIdentity identity = MakeIdentity(*layout_, "m", "1");
  const auto columns = static_cast<size_t>(layout_->rows_per_position());
  const auto heads = static_cast<size_t>(layout_->heads_per_order);
  Rng rng(9);
  std::vector<int64_t> text;
  for (int i = 0; i < 50; ++i) {
    text.push_back(static_cast<int64_t>(rng.NextBelow(layout_->compressed_vocab_size)));
  }
  // Each position's n-gram of one order alone, also those that begin before the text.
  for (size_t n = 2; n <= static_cast<size_t>(layout_->max_ngram_size); ++n) {
    for (size_t t = 0; t < text.size(); ++t) {
      HotSet hot_set = RandomHotSet(*layout_, 1, 0);
      for (size_t k = n; k-- > 0;) {
        hot_set.orders[n - 2].ids.push_back(
            static_cast<uint32_t>(k <= t ? text[t - k] : layout_->pad_compressed));
      }
      hot_set.orders[n - 2].counts.push_back(1);
      std::set<RowOf> expected;
      for (uint32_t i = 0; i < layout_->layers.size(); ++i) {
        std::vector<uint64_t> rows(text.size() * columns);
        HashRows(*layout_, layout_->layers[i], NgramState(), text, {}, rows);
        for (size_t head = 0; head < heads; ++head) {
          expected.insert({i, rows[t * columns + (n - 2) * heads + head]});
        }
      }
      const auto found = HotRows(hot_set, identity, 1'000'000);
      ASSERT_TRUE(found.ok()) << found.status().message();
      ASSERT_EQ(std::set<RowOf>(found->begin(), found->end()), expected) << n << " at " << t;
    }
  }
}

TEST_F(HotSetTest, TheMostFrequentComeFirstEachRowOnceAndNoMoreThanAskedFor) {
  const TableIdentity identity = MakeIdentity(*layout_, "m", "1");
  const HotSet hot_set = RandomHotSet(*layout_, 11, 3000);
  const std::vector<RowOf> all = *HotRows(hot_set, identity, 1'000'000);
  EXPECT_EQ(std::set<RowOf>(all.begin(), all.end()).size(), all.size());
  EXPECT_GT(all.size(), 60'000u) << "some collide, most do not";
  for (const uint64_t limit : {0, 1, 5, 1000, 70'000}) {
    const std::vector<RowOf> few = *HotRows(hot_set, identity, limit);
    ASSERT_EQ(few.size(), std::min<uint64_t>(limit, all.size()));
    EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin()));
  }
  // Every row comes at the turn of the most frequent n-gram that reads it.
  std::vector<uint64_t> rows(identity.heads_per_order);
  std::map<RowOf, uint64_t> wanted;
  for (size_t i = 0; i < hot_set.orders.size(); ++i) {
    const HotSet::Order& order = hot_set.orders[i];
    for (size_t k = 0; k < order.counts.size(); ++k) {
      for (uint32_t layer = 0; layer < layout_->layers.size(); ++layer) {
        HashNgram(*layout_, layout_->layers[layer],
                  std::span(order.ids).subspan(k * (i + 2), i + 2), rows);
        for (const uint64_t row : rows) {
          uint64_t& count = wanted[{layer, row}];
          count = std::max(count, order.counts[k]);
        }
      }
    }
  }
  ASSERT_EQ(wanted.size(), all.size());
  for (size_t i = 1; i < all.size(); ++i) ASSERT_GE(wanted[all[i - 1]], wanted[all[i]]);
}

TEST_F(HotSetTest, OtherTablesAreRefusedNamingWhatDiffers) {
  const TableIdentity identity = MakeIdentity(*layout_, "m", "1");
  const HotSet fitting = RandomHotSet(*layout_, 12, 3);
  const auto refusal = [&](const HotSet& hot_set, const TableIdentity& tables) {
    const auto rows = HotRows(hot_set, tables, 10);
    EXPECT_EQ(rows.status().code(), Code::kFailedPrecondition);
    return rows.status().message();
  };
  HotSet other = fitting;
  other.compressed_vocab_size += 1;
  EXPECT_THAT(refusal(other, identity), HasSubstr("vocabulary"));
  other = fitting;
  other.pad_compressed += 1;
  EXPECT_THAT(refusal(other, identity), HasSubstr("pad id"));
  other = fitting;
  other.max_ngram_size -= 1;
  EXPECT_THAT(refusal(other, identity), HasSubstr("n-grams of up to"));
  TableIdentity by_number = identity;
  by_number.layers[1].primes.clear();
  EXPECT_THAT(refusal(fitting, by_number), HasSubstr("not found by n-grams"));
}

TEST(TokenMapDigest, IsThatOfTheFile) {
  const std::vector<VocabMap::TokenText> tokens = {{"a", "a"}, {"A", "A"}, {"b", "b"}};
  const VocabMap map = *VocabMap::Build(tokens);
  const std::string path = testing::TempDir() + fmt::format("hot_set_test.{}.map", ::getpid());
  ASSERT_TRUE(map.Save(path).ok());
  EXPECT_EQ(TokenMapDigest(map), TokenMapDigest(*VocabMap::Load(path, 0, 0)));
  EXPECT_EQ(TokenMapDigest(map),
            "c3e42245ffdff31c980d63b232de1414ca2461a08c6efccca2af96737ef4d068");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace engram::table
