// engramctl hotset: counts against a plain map, hot rows against those that hashing reads, curves
// against a count by hand, and what is refused.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "common/base/rng.h"
#include "common/checkpoint/model_tables.h"
#include "common/table/ngram.h"
#include "common/text/tokenizer.h"
#include "memnode/ctl/hotset/hit_rate.h"
#include "memnode/ctl/hotset/hotset_maker.h"
#include "memnode/ctl/hotset/hotset_report.h"
#include "memnode/ctl/hotset/text_corpus.h"
#include "memnode/ctl/make_model/layout_maker.h"
#include "memnode/ctl/make_model/model_maker.h"
#include "tests/support/process.h"

namespace engram::ctl {
namespace {

using testing::HasSubstr;
using testing_support::MakeTempDir;
using testing_support::ReadFile;
using testing_support::RunToEnd;
using testing_support::WriteFile;
using Ngram = std::vector<uint32_t>;

const char* const kWords[] = {"row",    "table", "node",  "of",     "the", "memory", "reads",
                              "a",      "and",   "is",    "page",   "in",  "store",  "hash",
                              "client", "to",    "token", "window", "it",  "layer"};

// Sentences of words, the earlier ones more often.
std::string SeededText(uint64_t seed, size_t words) {
  Rng rng(seed);
  std::string text;
  for (size_t i = 0; i < words; ++i) {
    const size_t range = 1 + rng.NextBelow(std::size(kWords));
    text += kWords[rng.NextBelow(range)];
    text += i % 11 == 10 ? ".\n" : " ";
  }
  return text;
}

// One model for all: v41, orders 2 to 4.
const std::string& ModelDir() {
  static const std::string dir = [] {
    MakeModelOptions options;
    options.variant = table::Variant::kV41;
    options.out = MakeTempDir("hotset_model");  // tests may run side by side
    options.force = true;
    const Status made = MakeModel(options);
    CHECK(made.ok()) << made.ToString();
    return options.out;
  }();
  return dir;
}

class HotsetTest : public testing::Test {
 protected:
  HotsetTest()
      : dir_(MakeTempDir(std::string("hotset_") +
                         testing::UnitTest::GetInstance()->current_test_info()->name())) {
    options_.model_dir = ModelDir();
    options_.holdout = 0;
    options_.memory_bytes = 64 << 20;
  }

  std::string AddText(const std::string& name, const std::string& text) {
    WriteFile(dir_ + "/" + name, text);
    return dir_ + "/" + name;
  }
  Hotset Make() {
    Result<Hotset> made = MakeHotset(options_);
    CHECK(made.ok()) << made.status().ToString();
    return *std::move(made);
  }
  void ExpectRefused(Code code, const std::string& what) {
    const Result<Hotset> made = MakeHotset(options_);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.status().code(), code) << made.status().ToString();
    EXPECT_THAT(made.status().message(), HasSubstr(what));
  }
  // Compressed ids as the model sees them.
  std::vector<int64_t> Ids(const std::string& text) {
    const auto tokenizer = text::Tokenizer::Load(ModelDir() + "/tokenizer.json");
    std::vector<int64_t> ids;
    const auto tokens = tokenizer->Encode(text);
    for (const int32_t token : *tokens) ids.push_back(*model_->map.Compress(token));
    return ids;
  }
  // Its n-grams of n tokens and how often each occurs.
  std::map<Ngram, uint64_t> CountByHand(const std::string& text, size_t n) {
    std::map<Ngram, uint64_t> counts;
    Ngram window(n, static_cast<uint32_t>(model_->layout.pad_compressed));
    for (const int64_t id : Ids(text)) {
      window.erase(window.begin());
      window.push_back(static_cast<uint32_t>(id));
      ++counts[window];
    }
    return counts;
  }

  const std::string dir_;
  const Result<client::ModelTables> model_ = client::LoadModelTables(ModelDir(), "m", "1");
  HotsetOptions options_;
};

TEST_F(HotsetTest, HotRowsAreTheRowsThatHashingReads) {
  const std::string texts[] = {SeededText(1, 500), SeededText(2, 300)};
  std::set<table::RowOf> read;
  for (const std::string& text : texts) {
    options_.texts.push_back(AddText(fmt::format("{}.txt", read.size()), text));
    const std::vector<int64_t> ids = Ids(text);
    std::vector<uint64_t> rows(ids.size() *
                               static_cast<size_t>(model_->layout.rows_per_position()));
    for (uint32_t i = 0; i < model_->layout.layers.size(); ++i) {
      table::HashRows(model_->layout, model_->layout.layers[i], table::NgramState(), ids, {}, rows);
      for (const uint64_t row : rows) read.insert({i, row});
    }
  }
  const Hotset made = Make();
  const auto hot = table::HotRows(made.hot_set, model_->identity, UINT64_MAX);
  ASSERT_TRUE(hot.ok()) << hot.status().ToString();
  EXPECT_EQ(std::set<table::RowOf>(hot->begin(), hot->end()), read);
  EXPECT_EQ(made.hot_set.token_map_digest, table::TokenMapDigest(model_->map));
}

TEST_F(HotsetTest, CountsAndCurvesAgreeWithACountByHand) {
  const std::string seen = SeededText(3, 3000), held_out = SeededText(4, 800);
  options_.texts = {AddText("seen.txt", seen)};
  options_.texts_held_out = {AddText("held_out.txt", held_out)};
  const Hotset made = Make();
  ASSERT_EQ(made.curves.size(), 4u);
  for (size_t n = 2; n <= 4; ++n) {
    const auto seen_counts = CountByHand(seen, n), held_out_counts = CountByHand(held_out, n);
    const table::HotSet::Order& order = made.hot_set.orders[n - 2];
    const HitRateCurve& curve = made.curves[n - 2];
    ASSERT_EQ(order.counts.size(), seen_counts.size());
    EXPECT_EQ(curve.distinct, seen_counts.size());
    EXPECT_EQ(curve.count_error, 0u);
    const auto seen_tokens = static_cast<double>(Ids(seen).size());
    const auto held_out_tokens = static_cast<double>(Ids(held_out).size());
    double seen_covered = 0, held_out_covered = 0;
    size_t next_point = 0;
    for (size_t i = 0; i < order.counts.size(); ++i) {
      const Ngram ngram(order.ids.begin() + static_cast<ptrdiff_t>(i * n),
                        order.ids.begin() + static_cast<ptrdiff_t>((i + 1) * n));
      EXPECT_EQ(order.counts[i], seen_counts.at(ngram));
      seen_covered += static_cast<double>(order.counts[i]);
      const auto found = held_out_counts.find(ngram);
      if (found != held_out_counts.end()) held_out_covered += static_cast<double>(found->second);
      if (curve.points[next_point].top != i + 1) continue;
      EXPECT_DOUBLE_EQ(curve.points[next_point].seen, seen_covered / seen_tokens);
      EXPECT_DOUBLE_EQ(curve.points[next_point].held_out, held_out_covered / held_out_tokens);
      ++next_point;
    }
    EXPECT_EQ(next_point, curve.points.size());
    EXPECT_DOUBLE_EQ(curve.points.back().seen, 1);
    EXPECT_LT(curve.points.back().held_out, 1);
  }
  EXPECT_EQ(made.curves[3].distinct, made.ngrams_kept);
}

TEST_F(HotsetTest, HoldsOutAboutTheShareAskedFor) {
  for (uint64_t i = 0; i < 40; ++i) {
    options_.texts.push_back(AddText(fmt::format("{}.txt", i), SeededText(100 + i, 200)));
  }
  options_.holdout = 0.2;
  const Hotset made = Make();
  EXPECT_EQ(made.corpus.documents, 40u);
  const auto held_out = static_cast<double>(made.corpus.tokens_held_out);
  EXPECT_NEAR(held_out / (held_out + static_cast<double>(made.corpus.tokens_seen)), 0.2, 0.03);
  EXPECT_EQ(made.hot_set.tokens_counted, made.corpus.tokens_seen);
}

TEST_F(HotsetTest, TheSameTextGivesTheSameHotSet) {
  options_.texts = {AddText("a.txt", SeededText(5, 2000)), AddText("b.txt", SeededText(6, 2000))};
  options_.ngrams_max = 100;
  EXPECT_EQ(Make().hot_set, Make().hot_set);
}

TEST_F(HotsetTest, KeepsTheMostFrequentOfTheOrdersWanted) {
  options_.texts = {AddText("a.txt", SeededText(7, 2000))};
  const Hotset all = Make();
  options_.ngrams_max = 50;
  options_.orders = {3, 4};
  const Hotset some = Make();
  EXPECT_EQ(some.ngrams_kept, 50u);
  EXPECT_TRUE(some.hot_set.orders[0].counts.empty());
  const auto& kept = some.hot_set.orders;
  ASSERT_EQ(kept[1].counts.size() + kept[2].counts.size(), 50u);
  ASSERT_FALSE(kept[1].counts.empty() || kept[2].counts.empty());
  // What was left out is no more frequent than what was kept.
  const uint64_t least = std::min(kept[1].counts.back(), kept[2].counts.back());
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_LE(all.hot_set.orders[i].counts[kept[i].counts.size()], least);
  }
}

TEST_F(HotsetTest, KeepsNoMoreThanTheMemoryForRowsHolds) {
  options_.texts = {AddText("a.txt", SeededText(8, 2000))};
  options_.pinned_bytes_max = 100000;
  const Hotset made = Make();
  EXPECT_GT(made.ngrams_kept, 100u);
  EXPECT_LE(made.ngrams_kept * made.rows_per_ngram * made.stored_row_bytes, 100000u);
}

TEST_F(HotsetTest, SaysWhenMemoryWasShort) {
  options_.texts = {AddText("a.txt", SeededText(13, 100000))};
  EXPECT_THAT(HotsetText(Make()), testing::Not(HasSubstr("did not fit into memory")));
  options_.memory_bytes = 1 << 20;
  const Hotset made = Make();
  EXPECT_GT(made.curves[2].count_error, 0u);
  EXPECT_THAT(HotsetText(made), HasSubstr("n-grams of 4 tokens did not fit into memory"));
  EXPECT_LT(made.curves[2].points.back().seen, 1);
}

TEST_F(HotsetTest, TextSeenBeforeAndFilesWithoutTextAreLeftOut) {
  const std::string folder = dir_ + "/texts";
  std::filesystem::create_directories(folder + "/below");
  WriteFile(folder + "/a.txt", SeededText(9, 100));
  WriteFile(folder + "/below/copy.txt", SeededText(9, 100));
  WriteFile(folder + "/below/b.txt", SeededText(10, 100));
  WriteFile(folder + "/image", std::string("\x89PNG\0\0", 6));
  WriteFile(folder + "/empty", "");
  options_.texts = {folder};
  const Hotset made = Make();
  EXPECT_EQ(made.corpus.documents, 2u);
  EXPECT_EQ(made.corpus.duplicates, 1u);
  EXPECT_EQ(made.corpus.not_text, 2u);
}

TEST_F(HotsetTest, RefusesWhatItCannotCount) {
  options_.texts = {dir_ + "/none.txt"};
  ExpectRefused(Code::kNotFound, "none.txt");
  options_.texts = {AddText("zero", std::string("a\0b", 3))};
  ExpectRefused(Code::kInvalidArgument, "zero byte");
  options_.texts = {AddText("empty.txt", "")};
  ExpectRefused(Code::kInvalidArgument, "no text");
  options_.texts = {AddText("text.txt", "some text")};
  options_.orders = {5};
  ExpectRefused(Code::kInvalidArgument, "not of 5");
  options_.orders = {};
  options_.memory_bytes = 1000;
  ExpectRefused(Code::kInvalidArgument, "too little memory");
  options_.model_dir = dir_ + "/no_model";
  ExpectRefused(Code::kNotFound, "no_model");
}

TEST_F(HotsetTest, RefusesTablesThatNgramsDoNotFind) {
  MakeLayoutOptions layout;
  layout.layout = "qwen-ple";
  layout.rows_scale = 1e-5;
  layout.out = dir_ + "/ple";
  const Status ple = MakeLayoutFolder(layout, nullptr);
  ASSERT_TRUE(ple.ok()) << ple.ToString();
  options_.model_dir = layout.out;
  options_.texts = {AddText("text.txt", "some text")};
  ExpectRefused(Code::kFailedPrecondition, "not found by n-grams");
}

TEST_F(HotsetTest, TheProgramWritesHotSetCurveAndPlot) {
  AddText("seen.txt", SeededText(11, 3000));
  AddText("other.txt", SeededText(12, 500));
  const std::vector<std::string> argv = {std::string(ENGRAM_BIN_DIR) + "/engramctl",
                                         "hotset",
                                         "--model",
                                         ModelDir(),
                                         "--text",
                                         dir_ + "/seen.txt",
                                         "--held-out-text",
                                         dir_ + "/other.txt",
                                         "--top",
                                         "200",
                                         "--out",
                                         dir_ + "/out.hot",
                                         "--plot",
                                         dir_ + "/curve.svg"};
  const auto run = RunToEnd(argv, dir_);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("top 100 "));
  EXPECT_THAT(run.out, HasSubstr("kept: 200 n-grams"));
  const auto read = table::ReadHotSet(dir_ + "/out.hot");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_THAT(read->corpus, HasSubstr("seen.txt"));
  EXPECT_THAT(ReadFile(dir_ + "/curve.svg"), HasSubstr("Text held out"));

  auto with_json = argv;
  with_json.push_back("--json");
  const auto json_run = RunToEnd(with_json, dir_);
  const auto parsed = io::ParseJson(json_run.out, "output");
  ASSERT_TRUE(parsed.ok()) << json_run.out << json_run.err;
  EXPECT_EQ(parsed->at("curves").as_array().size(), 4u);
  EXPECT_EQ(parsed->at("ngrams_kept").to_number<int>(), 200);
}

TEST(NgramCounter, CountsWhatAMapCounts) {
  Rng rng(1);
  Ngram run;
  for (int i = 0; i < 5000; ++i) {
    run.push_back(static_cast<uint32_t>(rng.NextBelow(1 + rng.NextBelow(30))));
  }
  std::map<Ngram, uint64_t> expected;
  for (size_t i = 0; i + 3 <= run.size(); ++i) {
    ++expected[Ngram(run.begin() + static_cast<ptrdiff_t>(i),
                     run.begin() + static_cast<ptrdiff_t>(i + 3))];
  }
  Result<NgramCounter> counter = NgramCounter::Create(3, 20000);
  counter->AddRun(run);
  counter->AddRun(std::span(run).first(2));  // too short for one
  EXPECT_EQ(counter->distinct(), expected.size());
  EXPECT_EQ(counter->positions(), run.size() - 2);
  EXPECT_EQ(counter->count_error(), 0u);
  for (const auto& [ngram, count] : expected) EXPECT_EQ(counter->CountOf(ngram), count);
  EXPECT_EQ(counter->CountOf(Ngram{99, 99, 99}), 0u);
  const auto ranked = counter->Rank();
  ASSERT_EQ(ranked.size(), expected.size());
  for (size_t i = 0; i < ranked.size(); ++i) {
    const auto ngram = counter->NgramAt(ranked[i].slot);
    EXPECT_EQ(expected.at(Ngram(ngram.begin(), ngram.end())), ranked[i].count);
    EXPECT_TRUE(i == 0 || ranked[i].count <= ranked[i - 1].count);
  }
}

TEST(NgramCounter, WithoutRoomCountsStayWithinTheErrorTold) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    Ngram run;
    for (int i = 0; i < 20000; ++i) {
      const double u = rng.NextDouble();
      run.push_back(static_cast<uint32_t>(200 * u * u * u));
    }
    std::map<Ngram, uint64_t> expected;
    for (size_t i = 0; i + 2 <= run.size(); ++i) ++expected[{run[i], run[i + 1]}];
    Result<NgramCounter> counter = NgramCounter::Create(2, 1000 + seed);
    counter->AddRun(run);
    ASSERT_GT(expected.size(), 2000u);
    EXPECT_GT(counter->count_error(), 0u);
    EXPECT_LE(counter->distinct(), 701u + seed);
    uint64_t held = 0;
    for (const auto& [ngram, count] : expected) {
      const uint64_t counted = counter->CountOf(ngram);
      EXPECT_LE(counted, count);
      EXPECT_LE(count, counted + counter->count_error());
      held += counted != 0;
    }
    EXPECT_EQ(held, counter->distinct());  // each is found where it was moved to
  }
}

TEST(PieceEnd, CutsBehindLinesAndNeverWithinACharacter) {
  EXPECT_EQ(PieceEnd("short", 10), 5u);
  EXPECT_EQ(PieceEnd("aaaaaaa\nb\n  cc", 12), 8u);      // not before the indented line
  EXPECT_EQ(PieceEnd("aaaaaaaa\n  cc\n  dd", 12), 9u);  // nothing else there
  EXPECT_EQ(PieceEnd("aaaaaaaaaaaa", 10), 10u);
  EXPECT_EQ(PieceEnd("aaaaaaaa\xe2\x82\xac\x61", 10), 8u);
}

TEST(TextCorpus, PiecesOfALargeFileMakeUpTheFile) {
  const std::string path = testing::TempDir() + "hotset_large.txt";
  std::string text;
  for (uint64_t seed = 1; text.size() < 2 * kTextPieceBytesMax; ++seed) {
    text += SeededText(seed, 5000);
  }
  WriteFile(path, text);
  std::string together;
  int pieces = 0, first = 0;
  TextCorpus corpus;
  const Status visited =
      corpus.Visit({path, text.size(), true}, [&](const TextCorpus::Piece& piece) {
        EXPECT_LE(piece.text.size(), kTextPieceBytesMax);
        together += piece.text;
        ++pieces;
        first += piece.first;
        return OkStatus();
      });
  std::filesystem::remove(path);
  ASSERT_TRUE(visited.ok()) << visited.ToString();
  EXPECT_TRUE(together == text);
  EXPECT_EQ(pieces, 3);
  EXPECT_EQ(first, 1);
  EXPECT_EQ(corpus.bytes(), text.size());
}

}  // namespace
}  // namespace engram::ctl
