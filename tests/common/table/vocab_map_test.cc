// The token map: built from texts, kept in a file, refused when it does not fit.
#include "common/table/vocab_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/common/table/golden.h"

namespace engram::table {
namespace {

using ::testing::HasSubstr;

class MapFile : public ::testing::Test {
 protected:
  // ctest runs each test in a process of its own, several at once: one file per test.
  std::string path() const {
    return ::testing::TempDir() + "vocab_map_" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".bin";
  }
  void WriteBytes(const std::string& bytes) const {
    std::ofstream(path(), std::ios::binary) << bytes;
  }
  void Write(const std::vector<int32_t>& map) const {
    WriteBytes({reinterpret_cast<const char*>(map.data()), map.size() * 4});
  }
  Status LoadStatus(uint64_t raw = 0, uint64_t compressed = 0) const {
    return VocabMap::Load(path(), raw, compressed).status();
  }
  void TearDown() override { std::filesystem::remove(path()); }
};

TEST(Normalizer, MatchesEveryCase) {
  const json::object golden = ReadGolden("normalizer_cases_emulated");
  const json::array& cases = golden.at("cases").get_array();
  ASSERT_EQ(cases.size(), 53u);
  for (const json::value& item : cases) {
    const auto& text = item.at("text").get_string();
    const Result<std::string> normalized = NormalizeTokenText(text);
    ASSERT_TRUE(normalized.ok()) << text;
    EXPECT_EQ(*normalized, item.at("normalized").get_string()) << "[" << text << "]";
  }
}

TEST(Normalizer, TextThatIsNotUtf8IsRefused) {
  for (const char* text : {"\xff", "a\xc3", "\xed\xa0\x80"})
    EXPECT_EQ(NormalizeTokenText(text).status().code(), Code::kInvalidArgument);
}

TEST(VocabMap, FirstOccurrenceOfAKeyNumbersIt) {
  const std::vector<VocabMap::TokenText> tokens = {
      {"The", "The"},         {" the", "Ġthe"},      {"b", "b"},   {"\xef\xbf\xbd", "â"},
      {"\xef\xbf\xbd", "âĢ"}, {"THE", "THE"},        {"â", "Ã¢x"}, {"\xcc\x81", "U+0301"},
      {"", "<empty>"},        {"\xef\xbf\xbd", "b"},
  };
  const Result<VocabMap> map = VocabMap::Build(tokens);
  ASSERT_TRUE(map.ok()) << map.status().ToString();
  std::vector<int64_t> ids;
  for (int64_t raw = 0; raw < 10; ++raw) ids.push_back(*map->Compress(raw));
  // Partial tokens are keyed by their raw form, in the same dictionary as the others ("b").
  EXPECT_EQ(ids, (std::vector<int64_t>{0, 0, 1, 2, 3, 0, 4, 5, 6, 1}));
  EXPECT_EQ(map->compressed_size(), 7u);
}

TEST(VocabMap, NormalizerCasesShareIdsExactlyWhenTheyShareKeys) {
  const json::object golden = ReadGolden("normalizer_cases_emulated");
  std::vector<VocabMap::TokenText> tokens;
  std::vector<std::string> keys;
  for (const json::value& item : golden.at("cases").get_array()) {
    tokens.push_back({std::string(item.at("text").get_string()), "raw"});
    keys.emplace_back(item.at("key").get_string());
  }
  const Result<VocabMap> map = VocabMap::Build(tokens);
  ASSERT_TRUE(map.ok());
  for (size_t a = 0; a < keys.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      EXPECT_EQ(*map->Compress(static_cast<int64_t>(a)) == *map->Compress(static_cast<int64_t>(b)),
                keys[a] == keys[b])
          << a << " " << b;
    }
  }
}

TEST(VocabMap, BuildNamesTheTokenThatIsNotUtf8) {
  const std::vector<VocabMap::TokenText> tokens = {{"a", "a"}, {"\xff", "b"}};
  EXPECT_THAT(VocabMap::Build(tokens).status().message(), HasSubstr("raw id 1"));
  EXPECT_FALSE(VocabMap::Build({}).ok());
}

TEST_F(MapFile, SurvivesSavingAndLoading) {
  const std::vector<VocabMap::TokenText> tokens = {{"a", "a"}, {"b", "b"}, {"A", "A"}, {"c", "c"}};
  ASSERT_TRUE(VocabMap::Build(tokens)->Save(path()).ok());
  const Result<VocabMap> loaded = VocabMap::Load(path(), 4, 3);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->raw_size(), 4u);
  EXPECT_EQ(*loaded->Compress(2), 0);
  EXPECT_EQ(*loaded->Compress(3), 2);
}

TEST_F(MapFile, WrongSizesAreRefused) {
  Write({0, 1, 0});
  EXPECT_TRUE(LoadStatus(3, 2).ok());
  EXPECT_THAT(LoadStatus(4, 2).message(), HasSubstr("3 entries, but the vocabulary has 4"));
  EXPECT_THAT(LoadStatus(3, 3).message(), HasSubstr("2 compressed ids, but the model has 3"));
  WriteBytes("seven b");
  EXPECT_THAT(LoadStatus().message(), HasSubstr("7 bytes"));
  WriteBytes("");
  EXPECT_THAT(LoadStatus().message(), HasSubstr("0 bytes"));
}

TEST_F(MapFile, AMapThatIsNotDenseIsRefused) {
  Write({0, 2, 1});
  EXPECT_THAT(LoadStatus().message(), HasSubstr("raw id 1 maps to 2"));
  Write({1, 0});
  EXPECT_THAT(LoadStatus().message(), HasSubstr("raw id 0 maps to 1"));
  Write({0, 1, -1});
  EXPECT_THAT(LoadStatus().message(), HasSubstr("raw id 2 maps to -1"));
}

TEST_F(MapFile, AMissingFileIsNotFound) {
  EXPECT_EQ(LoadStatus().code(), Code::kNotFound);
  EXPECT_THAT(LoadStatus().message(), HasSubstr(path()));
}

TEST_F(MapFile, IdsOutsideTheVocabularyAreRefused) {
  Write({0, 1, 0});
  const Result<VocabMap> map = VocabMap::Load(path(), 0, 0);
  ASSERT_TRUE(map.ok());
  for (const int64_t id : {int64_t{-1}, int64_t{3}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(map->Compress(id).status().code(), Code::kOutOfRange) << id;
    EXPECT_THAT(map->Compress(id).status().message(), HasSubstr(std::to_string(id)));
  }
}

}  // namespace
}  // namespace engram::table
