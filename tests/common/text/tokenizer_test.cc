// The tokenizer against hand-made vocabularies (every expectation worked out by hand from the BPE
// rules), every refusal, and exact round trips through a trained one.
#include "common/text/tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "common/base/rng.h"
#include "common/io/json.h"
#include "common/text/bpe_trainer.h"
#include "common/text/byte_level.h"
#include "common/text/pretokenizer.h"

namespace engram::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Save(const json::value& document) {
  const std::string path =
      testing::TempDir() +
      fmt::format("tokenizer_{}.json", Mix64(std::hash<std::string>{}(json::serialize(document))));
  std::ofstream(path) << json::serialize(document);
  return path;
}

// Ids 0..255 are the bytes, 256.. the merges in order; "<eos>" and "<eos>x" follow.
json::object Document(const std::vector<std::string>& merges) {
  json::object vocabulary;
  int64_t id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary[ToByteLevel(std::string(1, static_cast<char>(byte)))] = id++;
  }
  json::array list;
  for (const std::string& merge : merges) {
    std::string merged = merge;
    merged.erase(merged.find(' '), 1);
    vocabulary[merged] = id++;
    list.push_back(json::string(merge));
  }
  json::array added;
  for (const char* content : {"<eos>", "<eos>x"}) {
    added.push_back(json::object{{"id", id++}, {"content", content}, {"lstrip", false}});
  }
  return json::object{
      {"normalizer", nullptr},
      {"pre_tokenizer", DeepSeekPreTokenizer()},
      {"decoder", json::object{{"type", "ByteLevel"}}},
      {"added_tokens", std::move(added)},
      {"model", json::object{{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

Tokenizer MustLoad(const json::value& document) {
  auto tokenizer = Tokenizer::Load(Save(document));
  CHECK(tokenizer.ok()) << tokenizer.status().ToString();
  return std::move(*tokenizer);
}

std::string Refusal(const json::value& document) {
  const auto tokenizer = Tokenizer::Load(Save(document));
  return tokenizer.ok() ? "accepted" : tokenizer.status().message();
}

std::vector<std::string> Words(std::string_view text) {
  const auto splitter = PreTokenizer::FromJson(DeepSeekPreTokenizer(), "test");
  CHECK(splitter.ok()) << splitter.status().ToString();
  const auto pieces = splitter->Split(text);
  CHECK(pieces.ok()) << pieces.status().ToString();
  return {pieces->begin(), pieces->end()};
}

const std::string& TrainingText() {
  static const std::string text = [] {
    const char* words[] = {"memory", "nodes",  "answer", "rows",  "the",  "engine", "asks", "for",
                           "tables", "résumé", "你好",   "世界",  "42",   "1024",   "() {", "};\n",
                           "never",  "zeros",  "Ωmega",  "every", "step", "naïve",  "🙂", "\t"};
    Rng rng(7);
    std::string out;
    for (int i = 0; i < 20000; ++i) {
      out += words[rng.NextBelow(std::size(words))];
      out += rng.NextBelow(12) == 0 ? ".\n" : " ";
    }
    return out;
  }();
  return text;
}

json::value Trained(int vocab_size) {
  const std::vector<std::string> special = {"<bos>", "<eos>", "<pad>"};
  auto document = TrainTokenizer(TrainingText(), vocab_size, special);
  CHECK(document.ok()) << document.status().ToString();
  return std::move(*document);
}

TEST(Tokenizer, MergesLowestRankFirstThenLeftmost) {
  const Tokenizer tokenizer = MustLoad(Document({"b c", "a b", "a a", "ab c"}));
  // "abc": b+c (rank 0) wins over a+b (rank 1), and a+bc is no merge.
  EXPECT_THAT(*tokenizer.Encode("abc"), ElementsAre('a', 256));
  EXPECT_THAT(*tokenizer.Encode("ab"), ElementsAre(257));
  EXPECT_THAT(*tokenizer.Encode("aaa"), ElementsAre(258, 'a'));
  EXPECT_THAT(*tokenizer.Encode("aaab"), ElementsAre(258, 257));
  EXPECT_THAT(*tokenizer.Encode(""), ElementsAre());
}

TEST(Tokenizer, AddedTokensMatchLongestAndLeftmost) {
  const Tokenizer tokenizer = MustLoad(Document({"a b"}));
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_THAT(*tokenizer.Encode("ab<eos>ab<eos>x<eo"),
              ElementsAre(256, 257, 256, 258, '<', 'e', 'o'));
  EXPECT_EQ(*tokenizer.Decode(std::vector<int32_t>{256, 257, 258}), "ab<eos><eos>x");
  EXPECT_EQ(*tokenizer.RawToken(257), "<eos>");
}

struct Added {
  std::string content;
  bool normalized = false;
  const char* flag = "";  // "lstrip", "rstrip", "single_word"
};

// The bytes, the merges, then `added` (none that the vocabulary has).
json::object DocumentWith(const std::vector<std::string>& merges, const std::vector<Added>& added) {
  json::object document = Document(merges);
  json::array list;
  int64_t id = 256 + static_cast<int64_t>(merges.size());
  for (const Added& token : added) {
    json::object item{{"id", id++}, {"content", token.content}, {"normalized", token.normalized}};
    if (*token.flag != 0) item[token.flag] = true;
    list.push_back(std::move(item));
  }
  document["added_tokens"] = std::move(list);
  return document;
}

std::string Decoded(const Tokenizer& tokenizer, int32_t id) { return *tokenizer.Decode({&id, 1}); }

TEST(Tokenizer, AddedTokensOfByteAlphabetLettersDecodeToThoseBytes) {
  const Tokenizer tokenizer = MustLoad(
      DocumentWith({}, {{"Ãµ"}, {"Ġthe·"}, {"‹|français|>"}, {"<|français|>"}, {"<|end|>"}}));
  EXPECT_EQ(Decoded(tokenizer, 256), "õ");
  EXPECT_EQ(Decoded(tokenizer, 257), " the\xb7");
  EXPECT_EQ(Decoded(tokenizer, 258), "‹|français|>") << "a letter that is no byte: itself";
  EXPECT_EQ(Decoded(tokenizer, 259),
            "<|fran\xe7"
            "ais|>");
  EXPECT_EQ(Decoded(tokenizer, 260), "<|end|>");
  EXPECT_EQ(*tokenizer.RawToken(256), "Ãµ");
  EXPECT_THAT(*tokenizer.Encode("aÃµ"), ElementsAre('a', 256)) << "looked for as it is spelled";
}

TEST(Tokenizer, AnAddedTokenThatTheVocabularySpellsAsAByteStaysThatByte) {
  json::object document = Document({});
  document["added_tokens"] = json::array{json::object{{"id", 0xf5}, {"content", "õ"}}};
  const Tokenizer tokenizer = MustLoad(document);
  EXPECT_EQ(Decoded(tokenizer, 0xf5), "\xf5");
  EXPECT_THAT(*tokenizer.Encode("õ"), ElementsAre(0xf5));
}

TEST(Tokenizer, BytesThatAreAddedTokensOnlyAreFound) {
  // As in DeepSeek-V2: the vocabulary lacks the bytes that no UTF-8 contains.
  json::object document = Document({});
  json::object vocabulary;
  for (const auto& [spelling, id] : document["model"].at("vocab").get_object()) {
    if (spelling != "ÿ") vocabulary[spelling] = id;
  }
  document["model"].get_object()["vocab"] = vocabulary;
  document["added_tokens"] = json::array{json::object{{"id", 0xff}, {"content", "ÿ"}}};
  const Tokenizer tokenizer = MustLoad(document);
  EXPECT_EQ(Decoded(tokenizer, 0xff), "\xff");
  EXPECT_THAT(*tokenizer.Encode("a\xff"), ElementsAre('a', 0xff));
}

TEST(Tokenizer, AddedTokensThatAreNotNormalizedAreTakenFirst) {
  const Tokenizer tokenizer = MustLoad(DocumentWith({}, {{"⟨XQ", true}, {"XQ⟩"}}));
  EXPECT_THAT(*tokenizer.Encode("⟨XQ⟩"), ElementsAre(0xe2, 0x9f, 0xa8, 257));
  EXPECT_THAT(*tokenizer.Encode("⟨XQ⟨XQ⟩"), ElementsAre(256, 0xe2, 0x9f, 0xa8, 257));
}

TEST(Tokenizer, WithoutTheFlagASpecialTokenIsNotNormalized) {
  json::object document = DocumentWith({}, {{"ab", true}, {"bc"}});
  json::object& second = document["added_tokens"].get_array()[1].get_object();
  second.erase("normalized");
  EXPECT_THAT(*MustLoad(document).Encode("abc"), ElementsAre(256, 'c'));
  second["special"] = true;
  EXPECT_THAT(*MustLoad(document).Encode("abc"), ElementsAre('a', 257));
}

TEST(Tokenizer, NormalizedAddedTokensAreFoundInTheNormalizedRest) {
  json::object document = DocumentWith({}, {{"e\u0301x", true}, {"e\u0301y"}, {"étt", true}});
  document["normalizer"] = json::object{{"type", "NFC"}};
  const Tokenizer tokenizer = MustLoad(document);
  EXPECT_THAT(*tokenizer.Encode("éx"), ElementsAre(256)) << "its content is normalised, too";
  EXPECT_THAT(*tokenizer.Encode("e\u0301x"), ElementsAre(256));
  EXPECT_THAT(*tokenizer.Encode("e\u0301y"), ElementsAre(257));
  EXPECT_THAT(*tokenizer.Encode("éy"), ElementsAre(0xc3, 0xa9, 'y')) << "not as it is spelled";
  EXPECT_THAT(*tokenizer.Encode("e\u0301tt\xff"
                                "e\u0301"),
              ElementsAre(258, 0xff, 0xc3, 0xa9));
  const std::vector<TextPart> text{{"e\u0301y", false}};
  EXPECT_THAT(*tokenizer.EncodeParts(text), ElementsAre(0xc3, 0xa9, 'y'));
}

TEST(Tokenizer, AddedTokensThatStripTakeTheWhiteSpaceBesideThem) {
  const Tokenizer tokenizer =
      MustLoad(DocumentWith({}, {{"<L>", false, "lstrip"}, {"<R>", false, "rstrip"}}));
  EXPECT_THAT(*tokenizer.Encode("a \u3000\t<L> b<R>\n c"),
              ElementsAre('a', 256, ' ', 'b', 257, 'c'));
  EXPECT_THAT(*tokenizer.Encode("<R> <L>"), ElementsAre(257, 256));
  EXPECT_THAT(*tokenizer.Encode(" <L>"), ElementsAre(256));
  EXPECT_GE(tokenizer.token_bytes_max(), size_t{1} << 30) << "any text may be one token";
}

TEST(Tokenizer, AddedTokensThatAreSingleWordsAreNotFoundInsideOthers) {
  const Tokenizer tokenizer = MustLoad(DocumentWith({}, {{"abc", false, "single_word"}, {"bc"}}));
  EXPECT_THAT(*tokenizer.Encode("abc-abc"), ElementsAre(256, '-', 256));
  EXPECT_THAT(*tokenizer.Encode("abc_"), ElementsAre('a', 'b', 'c', '_')) << "it hides bc";
  EXPECT_THAT(*tokenizer.Encode("éabc"), ElementsAre(0xc3, 0xa9, 'a', 'b', 'c'));
  EXPECT_THAT(*tokenizer.Encode("\xff"
                                "abc"),
              ElementsAre(0xff, 256));
}

TEST(Tokenizer, WordsOfTheVocabularyStayWholeWhereMergesAreIgnored) {
  json::object document = DocumentWith({"a b", "b c"}, {{"Ġxy"}});
  json::object& model = document["model"].get_object();
  model["vocab"].get_object()["Ġabc"] = 259;
  EXPECT_THAT(*MustLoad(document).Encode(" abc"), ElementsAre(' ', 256, 'c'));
  model["ignore_merges"] = true;
  EXPECT_THAT(*MustLoad(document).Encode(" abc xy"), ElementsAre(259, ' ', 'x', 'y'));
}

TEST(Tokenizer, AddedTokensAreTextInPartsThatDoNotHaveThem) {
  const Tokenizer tokenizer = MustLoad(Document({"a b"}));
  EXPECT_THAT(*tokenizer.EncodeParts(std::vector<TextPart>{{"ab<eos>", true}, {"<eos>", false}}),
              ElementsAre(256, 257, '<', 'e', 'o', 's', '>'));
  // A token inside one part only, whatever the neighbours would make of it.
  EXPECT_THAT(*tokenizer.EncodeParts(std::vector<TextPart>{{"<eos>", true}, {"xa", false}}),
              ElementsAre(257, 'x', 'a'));
  EXPECT_THAT(*tokenizer.EncodeParts(std::vector<TextPart>{{"<eo", true}, {"s>", true}}),
              ElementsAre('<', 'e', 'o', 's', '>'));
  EXPECT_THAT(*tokenizer.EncodeParts({}), ElementsAre());
}

TEST(Tokenizer, AddedTokensThatAreNotSpecialAreTextThereToo) {
  json::object document = Document({});
  document["added_tokens"].get_array()[0].get_object()["special"] = false;
  const Tokenizer tokenizer = MustLoad(document);
  EXPECT_THAT(*tokenizer.Encode("<eos>"), ElementsAre(256));
  EXPECT_THAT(*tokenizer.EncodeParts(std::vector<TextPart>{{"<eos>", false}}),
              ElementsAre('<', 'e', 'o', 's', '>'));
}

TEST(Tokenizer, PartsGiveTheTokensOfTheWholeWhereverTheirBordersAre) {
  const Tokenizer tokenizer = MustLoad(Trained(340));
  Rng rng(5);
  const std::string& text = TrainingText();
  for (int round = 0; round < 300; ++round) {
    std::string whole;
    std::vector<TextPart> parts;
    for (uint64_t count = 1 + rng.NextBelow(5); count > 0; --count) {
      const bool marker = rng.NextBelow(3) == 0;
      // Cut anywhere, also inside words and characters.
      parts.push_back(
          {marker ? "<bos>" : text.substr(rng.NextBelow(text.size() - 60), rng.NextBelow(60)),
           marker});
      whole += parts.back().text;
    }
    EXPECT_EQ(*tokenizer.EncodeParts(parts), *tokenizer.Encode(whole)) << whole;
  }
}

TEST(Tokenizer, RawTokenIsTheVocabularysSpelling) {
  const Tokenizer tokenizer = MustLoad(Document({"Ġ a"}));
  EXPECT_EQ(*tokenizer.RawToken(256), "Ġa");
  EXPECT_EQ(*tokenizer.Decode(std::vector<int32_t>{256}), " a");
  EXPECT_EQ(*tokenizer.RawToken('\n'), "Ċ");
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreNamed) {
  const Tokenizer tokenizer = MustLoad(Document({}));
  for (const int32_t id : {-1, 258}) {
    const auto decoded = tokenizer.Decode(std::vector<int32_t>{id});
    EXPECT_EQ(decoded.status().code(), Code::kOutOfRange);
    EXPECT_THAT(decoded.status().message(), HasSubstr(fmt::format("token {}:", id)));
    EXPECT_EQ(tokenizer.RawToken(id).status().code(), Code::kOutOfRange);
  }
}

TEST(Tokenizer, MergesMayBePairs) {
  json::object document = Document({"a b", "ab c"});
  json::object& model = document["model"].get_object();
  model["merges"] = json::array{json::array{"a", "b"}, json::array{"ab", "c"}};
  EXPECT_THAT(*MustLoad(document).Encode("abc"), ElementsAre(257));
}

TEST(Tokenizer, BytesThatAreNotUtf8BecomeByteTokens) {
  const Tokenizer tokenizer = MustLoad(Document({"a b"}));
  EXPECT_THAT(*tokenizer.Encode("ab\xff\xe4\xbd"
                                "ab"),
              ElementsAre(256, 0xff, 0xe4, 0xbd, 256));
}

TEST(Tokenizer, UnsupportedFeaturesAreRefusedByName) {
  const auto with = [](const std::function<void(json::object&)>& edit) {
    json::object document = Document({"a b"});
    edit(document);
    return Refusal(document);
  };
  const auto model_with = [&](const char* key, const json::value& value) {
    return with([&](json::object& d) { d["model"].get_object()[key] = value; });
  };
  EXPECT_EQ(with([](json::object&) {}), "accepted");
  EXPECT_THAT(model_with("type", "Unigram"), HasSubstr("model type \"Unigram\""));
  EXPECT_THAT(model_with("byte_fallback", true), HasSubstr("\"byte_fallback\": true"));
  EXPECT_THAT(model_with("ignore_merges", 1), HasSubstr("ignore_merges"));
  EXPECT_THAT(model_with("dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(model_with("end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(model_with("merges", json::array{"a b", "a b"}), HasSubstr("listed twice"));
  EXPECT_THAT(model_with("merges", json::array{"a c"}), HasSubstr("no token \"ac\""));
  EXPECT_THAT(model_with("merges", json::array{"abc"}), HasSubstr("not a pair"));
  EXPECT_THAT(with([](json::object& d) {
                d["model"].get_object()["vocab"] = json::object{{"a", 0}};
                d["model"].get_object()["merges"] = json::array{};
              }),
              HasSubstr("no token for byte 0x00"));
  EXPECT_THAT(
      with([](json::object& d) { d["model"].get_object()["vocab"].get_object()["b"] = 97; }),
      HasSubstr("id 97 is given to"));
  EXPECT_THAT(with([](json::object& d) {
                d["normalizer"] = json::object{{"type", "NFKC"}};
              }),
              HasSubstr("normalizer"));
  EXPECT_THAT(with([](json::object& d) {
                json::array steps{json::object{{"type", "NFC"}}, json::object{{"type", "Strip"}}};
                d["normalizer"] = json::object{{"type", "Sequence"}, {"normalizers", steps}};
              }),
              HasSubstr("Strip"));
  EXPECT_THAT(with([](json::object& d) { d["decoder"] = nullptr; }), HasSubstr("decoder"));
  EXPECT_THAT(with([](json::object& d) {
                d["pre_tokenizer"] = json::object{{"type", "Digits"}};
              }),
              HasSubstr("\"Digits\" is not supported"));
  EXPECT_THAT(
      with([](json::object& d) { d["added_tokens"].get_array()[0].get_object()["id"] = 300; }),
      HasSubstr("ids must be 0, 1, 2"));
  EXPECT_THAT(
      with([](json::object& d) { d["added_tokens"].get_array()[0].get_object()["lstrip"] = 1; }),
      HasSubstr("\"lstrip\": 1 is neither"));
  EXPECT_THAT(with([](json::object& d) {
                d["added_tokens"].get_array()[1].get_object()["content"] = "<eos>";
                d["added_tokens"].get_array()[1].get_object()["id"] = 257;
              }),
              HasSubstr("\"<eos>\" is listed twice"));
  EXPECT_EQ(Refusal(json::array{}).find("accepted"), std::string::npos);
  EXPECT_EQ(Tokenizer::Load("/nonexistent").status().code(), Code::kNotFound);
}

TEST(Tokenizer, UnsupportedSplitsAreRefusedByName) {
  const auto step = [](json::object split) {
    json::array steps{std::move(split), json::object{{"type", "ByteLevel"}, {"use_regex", false}}};
    const auto made = PreTokenizer::FromJson(
        json::object{{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}, "p");
    return made.ok() ? "accepted" : made.status().message();
  };
  const json::object regex{{"Regex", "a+"}};
  EXPECT_EQ(step({{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", regex}}), "accepted");
  EXPECT_THAT(step({{"type", "Split"}, {"behavior", "Removed"}, {"pattern", regex}}),
              HasSubstr("\"Removed\""));
  EXPECT_THAT(
      step({{"type", "Split"}, {"behavior", "Isolated"}, {"invert", true}, {"pattern", regex}}),
      HasSubstr("invert"));
  EXPECT_THAT(step({{"type", "Split"},
                    {"behavior", "Isolated"},
                    {"pattern", json::object{{"Regex", "(a"}}}}),
              HasSubstr("at byte 2"));
  EXPECT_THAT(step({{"type", "ByteLevel"}, {"add_prefix_space", true}}),
              HasSubstr("add_prefix_space"));
}

TEST(PreTokenizer, SplitsAsDeepSeekDoes) {
  EXPECT_THAT(Words("Hello world"), ElementsAre("Hello", " world"));
  EXPECT_THAT(Words("12345 x1"), ElementsAre("123", "45", " x", "1"));
  EXPECT_THAT(Words("don't_stop (now)"), ElementsAre("don", "'t", "_stop", " (", "now", ")"));
  EXPECT_THAT(Words("a  b\n\n  c  "), ElementsAre("a", " ", " b", "\n\n", " ", " c", "  "));
  EXPECT_THAT(Words("日本語のテスト"), ElementsAre("日本語のテスト"));
  EXPECT_THAT(Words("x你好!\n"), ElementsAre("x", "你好", "!\n"));
  EXPECT_THAT(Words("é\u0301t\u00e9"), ElementsAre("é\u0301té"));
}

TEST(PreTokenizer, Gpt2RegexIsUsedWhenAsked) {
  const auto splitter = PreTokenizer::FromJson(
      json::object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}, "p");
  ASSERT_TRUE(splitter.ok());
  EXPECT_THAT(*splitter->Split("we're 12345, ok"), ElementsAre("we", "'re", " 12345", ",", " ok"));
}

TEST(Tokenizer, RoundTripsArbitraryBytes) {
  const Tokenizer tokenizer = MustLoad(Trained(340));
  Rng rng(11);
  const std::string& text = TrainingText();
  for (int round = 0; round < 300; ++round) {
    std::string sample = text.substr(rng.NextBelow(text.size() - 200), rng.NextBelow(200));
    for (uint64_t edits = rng.NextBelow(6); edits > 0 && !sample.empty(); --edits) {
      sample[rng.NextBelow(sample.size())] = static_cast<char>(rng.NextBelow(256));
    }
    const auto ids = tokenizer.Encode(sample);
    ASSERT_TRUE(ids.ok()) << ids.status().ToString();
    ASSERT_EQ(*tokenizer.Decode(*ids), sample);
  }
}

TEST(Tokenizer, TheLongestTokenBoundsHowFewTokensTextCanBe) {
  EXPECT_EQ(MustLoad(Document({"a b"})).token_bytes_max(), 6u) << "<eos>x";
  const Tokenizer spaces = MustLoad(Document({"Ġ Ġ", "ĠĠ ĠĠ", "ĠĠĠĠ ĠĠĠĠ"}));
  EXPECT_EQ(spaces.token_bytes_max(), 8u) << "in bytes, not as spelled";
  EXPECT_EQ(MustLoad(DocumentWith({}, {{"ÃµÃµ"}})).token_bytes_max(), 8u) << "but found as spelled";
}

TEST(Tokenizer, OneHugeWordIsEncoded) {
  const Tokenizer tokenizer = MustLoad(Document({"a a", "aa aa", "aaaa aaaa"}));
  const std::string word(1 << 20, 'a');
  const auto ids = tokenizer.Encode(word);
  ASSERT_TRUE(ids.ok()) << ids.status().ToString();
  EXPECT_EQ(ids->size(), word.size() / 8);
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(tokenizer.Encode(spaces)->size(), spaces.size());
}

TEST(Trainer, SameTextGivesTheSameTokenizer) {
  EXPECT_EQ(json::serialize(Trained(340)), json::serialize(Trained(340)));
}

TEST(Trainer, ReachesTheSizeAndCompressesItsText) {
  const Tokenizer tokenizer = MustLoad(Trained(340));
  EXPECT_EQ(tokenizer.vocab_size(), 340);
  EXPECT_EQ(*tokenizer.RawToken(0), "<bos>");
  const auto ids = tokenizer.Encode(TrainingText());
  ASSERT_TRUE(ids.ok());
  EXPECT_LT(ids->size() * 2, TrainingText().size());
}

TEST(Trainer, CountsDecideAndTiesGoToTheSmallerBytes) {
  // Words: " ab" x3, " cd" x2, " ce" x2 (and the first, without its space).
  const auto document = TrainTokenizer("ab ab ab cd cd ce ce", 256 + 4, {});
  ASSERT_TRUE(document.ok()) << document.status().ToString();
  std::vector<std::string> merges;
  for (const json::value& m : document->at("model").at("merges").get_array()) {
    merges.emplace_back(m.get_string());
  }
  // " c" is seen 4 times, "ab" 3 times, then " ab" 2, " cd" 2, " ce" 2.
  EXPECT_THAT(merges, ElementsAre("Ġ c", "a b", "Ġ ab", "Ġc d"));
}

TEST(Trainer, RefusesWhatItCannotDo) {
  EXPECT_THAT(TrainTokenizer("abab", 200, {}).status().message(), HasSubstr("256 bytes"));
  EXPECT_THAT(TrainTokenizer("abab", 300, {}).status().message(), HasSubstr("give more text"));
  EXPECT_THAT(TrainTokenizer("ab\xff", 300, {}).status().message(), HasSubstr("at byte 2"));
}

TEST(Utf8, InvalidPartsBecomeOneReplacementEach) {
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(ReplaceInvalidUtf8("aé你🙂"), "aé你🙂");
  EXPECT_EQ(ReplaceInvalidUtf8("\xff"), r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xe4\xbd"), r);  // cut off: one maximal subpart
  EXPECT_EQ(ReplaceInvalidUtf8("\xe4\xbd"
                               "a"),
            r + "a");
  EXPECT_EQ(ReplaceInvalidUtf8("\xf0\x9f\x99\xf0\x9f"), r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xc0\x80"), r + r);          // overlong
  EXPECT_EQ(ReplaceInvalidUtf8("\xed\xa0\x80"), r + r + r);  // surrogate
  EXPECT_EQ(ReplaceInvalidUtf8("\xf4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\x80x"), r + "x");
}

TEST(ByteLevel, EveryByteHasOneSpelling) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(FromByteLevel(ToByteLevel(all)), all);
  EXPECT_EQ(ToByteLevel(" \n\xad"), "ĠĊŃ");
  EXPECT_EQ(FromByteLevel("｜"), std::nullopt);
  EXPECT_EQ(FromByteLevel(" "), std::nullopt);
}

}  // namespace
}  // namespace engram::text
