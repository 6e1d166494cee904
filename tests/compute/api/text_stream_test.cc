// Nothing is shown that might still change: no part of a character, no part of a stop string.
#include "compute/api/text_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/rng.h"
#include "common/text/utf8.h"
#include "tests/compute/api/tiny_tokenizer.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;

class TextStreamTest : public testing::Test {
 protected:
  // Feeds the text byte by byte; what comes out of each, then of the end.
  std::vector<std::string> Pieces(const std::string& text, std::vector<std::string> stop = {}) {
    TextStream stream(tokenizer_, std::move(stop));
    std::vector<std::string> pieces;
    for (const char byte : text) {
      const std::string piece = stream.Append(IdOf(byte));
      if (!piece.empty()) pieces.push_back(piece);
    }
    const std::string rest = stream.Finish();
    if (!rest.empty()) pieces.push_back("end:" + rest);
    if (stream.stopped()) pieces.push_back("stopped");
    return pieces;
  }
  // Where each part of the text begins in the whole, as characters of it.
  static std::vector<int64_t> OffsetsOf(const std::vector<std::string>& parts) {
    TextOffsets offsets;
    std::vector<int64_t> found;
    for (const std::string& part : parts) found.push_back(offsets.Next(part));
    return found;
  }
  int32_t IdOf(char byte) {
    for (int32_t id = 1; id < 257; ++id) {
      if (*tokenizer_.Decode({&id, 1}) == std::string(1, byte)) return id;
    }
    ADD_FAILURE();
    return 0;
  }
  const text::Tokenizer tokenizer_ = TinyTokenizer();
};

TEST_F(TextStreamTest, ACharacterComesWhenItsLastByteDoes) {
  EXPECT_THAT(Pieces("aé€😀b"), ElementsAre("a", "é", "€", "😀", "b"));
}

TEST_F(TextStreamTest, WhatNeverBecomesACharacterIsReplaced) {
  EXPECT_THAT(Pieces("a\xffz"), ElementsAre("a", "\ufffd", "z"));
  EXPECT_THAT(Pieces("a\xe2\x82"), ElementsAre("a", "end:\ufffd"));
  EXPECT_THAT(Pieces("\xe2(x"), ElementsAre("\ufffd(", "x"));
}

TEST_F(TextStreamTest, AStopStringIsNotShownAndEndsTheText) {
  EXPECT_THAT(Pieces("one. STOP two", {"STOP"}), ElementsAre("o", "n", "e", ".", " ", "stopped"));
  EXPECT_THAT(Pieces("abcd", {"bcx", "cd"}), ElementsAre("a", "b", "stopped"));
}

TEST_F(TextStreamTest, WhatMightBecomeAStopStringIsHeldBackUntilItDoesNot) {
  EXPECT_THAT(Pieces("xSTxSTO", {"STOP"}), ElementsAre("x", "STx", "end:STO"));
  EXPECT_THAT(Pieces("aab", {"ab"}), ElementsAre("a", "stopped"));
  EXPECT_THAT(Pieces("é é", {"é!"}), ElementsAre("é ", "end:é"));
}

TEST_F(TextStreamTest, TheEarliestOfSeveralStopStringsCounts) {
  EXPECT_THAT(Pieces("hello", {"lo", "ll"}), ElementsAre("h", "e", "stopped"));
}

TEST_F(TextStreamTest, OffsetsAreOfTheCharacterThatATokenIsPartOf) {
  EXPECT_THAT(OffsetsOf({"ab", "c", "", "d"}), ElementsAre(0, 2, 3, 3));
  EXPECT_THAT(OffsetsOf({"a\xe2", "\x82", "\xac", "b"}), ElementsAre(0, 1, 1, 2));
  EXPECT_THAT(OffsetsOf({"\xf0\x9f", "\x98\x80x\xc3", "\xa9y", "z"}), ElementsAre(0, 0, 2, 4));
  EXPECT_THAT(OffsetsOf({"\xe2\x82", "x", "y"}), ElementsAre(0, 1, 2)) << "one U+FFFD, then x";
  EXPECT_THAT(OffsetsOf({"\xff", "\xff", "x"}), ElementsAre(0, 1, 2));
}

TEST_F(TextStreamTest, OffsetsLeadToTheTokensInTheWholeText) {
  Rng rng(6);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    std::vector<std::string> parts;
    for (uint64_t i = rng.NextBelow(20); i > 0; --i) {
      parts.emplace_back();
      for (uint64_t n = rng.NextBelow(4); n > 0; --n) {
        parts.back() += "ab\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff"[rng.NextBelow(12)];
      }
      bytes += parts.back();
    }
    // Of every byte the character it belongs to.
    std::vector<int64_t> character_of;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = text::StepUtf8(bytes, at).length;
      const int64_t next = character_of.empty() ? 0 : character_of.back() + 1;
      character_of.insert(character_of.end(), length, next);
      at += length;
    }
    const std::vector<int64_t> offsets = OffsetsOf(parts);
    size_t at = 0;
    for (size_t i = 0; i < parts.size(); at += parts[i].size(), ++i) {
      if (parts[i].empty()) continue;
      ASSERT_EQ(offsets[i], character_of[at]) << round << " " << i;
    }
  }
}

TEST_F(TextStreamTest, PiecesAddUpToTheWholeText) {
  Rng rng(5);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (uint64_t i = rng.NextBelow(30); i > 0; --i) {
      bytes += "ab\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff"[rng.NextBelow(12)];
    }
    TextStream stream(tokenizer_, {"abab"});
    std::string out;
    for (const char byte : bytes) {
      out += stream.Append(IdOf(byte));
      ASSERT_EQ(text::ValidUtf8Prefix(out), out.size());
    }
    out += stream.Finish();
    const std::string whole = text::ReplaceInvalidUtf8(bytes);
    ASSERT_EQ(out, whole.substr(0, whole.find("abab")));
  }
}

TEST_F(TextStreamTest, AStopStringIsShownWhenAskedFor) {
  TextStream stream(tokenizer_, {"STOP", "OP"}, true);
  std::string out;
  for (const char byte : std::string_view("one STOP two")) out += stream.Append(IdOf(byte));
  EXPECT_EQ(out + stream.Finish(), "one STOP");
  EXPECT_TRUE(stream.stopped());
}

}  // namespace
}  // namespace engram::compute
