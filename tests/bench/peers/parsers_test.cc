// Replies of Redis and memcached, whole, in every way split in two, byte by byte, and damaged.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tests/bench/peers/key.h"
#include "tests/bench/peers/protocol.h"

namespace engram::bench {
namespace {

constexpr size_t kValueBytes = 9;
constexpr std::array<uint64_t, 2> kRows0 = {7, 70000};
constexpr std::array<uint64_t, 2> kRows1 = {5, (1ull << kKeyRowBits) - 1};

Batch TestBatch() { return {0, {kRows0, kRows1}}; }

std::string Key(uint64_t layer, uint64_t row) {
  std::string key(kKeyBytes, ' ');
  kKeys.Write(layer, row, key.data());
  return key;
}

// Values that hold the protocols' own delimiters.
std::vector<std::string> Values() {
  return {std::string("\r\nEND\r\n\0x", 9), "VALUE a 0", "$9\r\n*1\r\n+", "EN\r\nVA 9\r"};
}

struct Case {
  std::string name;
  std::unique_ptr<Protocol> (*protocol)();
  std::string reply;
  std::string missing_second;  // the reply when the second key is not there
};

std::vector<Case> Cases() {
  const std::vector<std::string> values = Values();
  const std::vector<std::string> keys = {Key(0, 7), Key(0, 70000), Key(1, 5), Key(1, kRows1[1])};
  Case redis{"redis", RedisProtocol, "*4\r\n", "*4\r\n"};
  Case text{"memcached text", MemcachedTextProtocol, "", ""};
  Case meta{"memcached meta", MemcachedMetaProtocol, "", ""};
  for (size_t i = 0; i < 4; ++i) {
    const bool missing = i == 1;
    const std::string bulk = "$9\r\n" + values[i] + "\r\n";
    const std::string value = fmt::format("VALUE {} 0 9\r\n{}\r\n", keys[i], values[i]);
    const std::string va = "VA 9\r\n" + values[i] + "\r\n";
    redis.reply += bulk;
    redis.missing_second += missing ? "$-1\r\n" : bulk;
    text.reply += value;
    text.missing_second += missing ? "" : value;
    meta.reply += va;
    meta.missing_second += missing ? "EN\r\n" : va;
  }
  text.reply += "END\r\n";
  text.missing_second += "END\r\n";
  return {redis, text, meta};
}

struct Outcome {
  Status status;
  bool done = false;
  size_t taken = 0;
  std::string out = std::string(4 * kValueBytes, '?');
};

// Hands the reply over in pieces that end at `ends`, as a socket would.
Outcome Feed(const Protocol& protocol, std::string_view reply, const std::vector<size_t>& ends) {
  Outcome outcome;
  const auto parser = protocol.MakeParser(kValueBytes);
  parser->Begin(TestBatch(), std::as_writable_bytes(std::span(outcome.out)));
  for (const size_t end : ends) {
    // A copy of just this piece, so that a sanitizer sees a read past its end.
    const std::vector<char> piece(reply.begin() + static_cast<ptrdiff_t>(outcome.taken),
                                  reply.begin() + static_cast<ptrdiff_t>(end));
    if (piece.empty()) continue;
    const auto taken = parser->Take({piece.data(), piece.size()});
    outcome.status = taken.status();
    if (!taken.ok()) return outcome;
    outcome.taken += *taken;
  }
  outcome.done = parser->done();
  return outcome;
}

std::string AllValues() {
  std::string all;
  for (const std::string& value : Values()) all += value;
  return all;
}

TEST(Parsers, RepliesSplitAnywhereGiveTheSameValues) {
  for (const Case& c : Cases()) {
    const auto protocol = c.protocol();
    for (size_t cut = 0; cut <= c.reply.size(); ++cut) {
      const Outcome outcome = Feed(*protocol, c.reply, {cut, c.reply.size()});
      ASSERT_TRUE(outcome.status.ok()) << c.name << " cut at " << cut << outcome.status.ToString();
      EXPECT_TRUE(outcome.done) << c.name << " cut at " << cut;
      EXPECT_EQ(outcome.out, AllValues()) << c.name << " cut at " << cut;
      EXPECT_EQ(outcome.taken, c.reply.size());
    }
  }
}

TEST(Parsers, RepliesByteByByteGiveTheSameValues) {
  for (const Case& c : Cases()) {
    std::vector<size_t> ends(c.reply.size());
    for (size_t i = 0; i < ends.size(); ++i) ends[i] = i + 1;
    const Outcome outcome = Feed(*c.protocol(), c.reply, ends);
    ASSERT_TRUE(outcome.status.ok()) << c.name << outcome.status.ToString();
    EXPECT_TRUE(outcome.done) << c.name;
    EXPECT_EQ(outcome.out, AllValues()) << c.name;
  }
}

TEST(Parsers, AReplyCutShortIsNotDone) {
  for (const Case& c : Cases()) {
    const Outcome outcome = Feed(*c.protocol(), c.reply, {c.reply.size() - 1});
    EXPECT_TRUE(outcome.status.ok()) << c.name;
    EXPECT_FALSE(outcome.done) << c.name;
  }
}

TEST(Parsers, BytesOfTheNextReplyAreLeft) {
  for (const Case& c : Cases()) {
    const std::string two = c.reply + c.reply;
    const Outcome outcome = Feed(*c.protocol(), two, {two.size()});
    ASSERT_TRUE(outcome.status.ok()) << c.name;
    EXPECT_TRUE(outcome.done) << c.name;
    EXPECT_EQ(outcome.taken, c.reply.size()) << c.name;
  }
}

TEST(Parsers, AMissingRowIsAnErrorAndNotAValue) {
  for (const Case& c : Cases()) {
    const Outcome outcome = Feed(*c.protocol(), c.missing_second, {c.missing_second.size()});
    EXPECT_EQ(outcome.status.code(), Code::kDataLoss) << c.name;
    EXPECT_NE(outcome.status.message().find("value 1 of 4"), std::string::npos)
        << outcome.status.message();
  }
}

TEST(Parsers, AServersErrorIsQuoted) {
  for (const Case& c : Cases()) {
    const std::string error = "-ERR out of memory\r\n";
    const Outcome outcome = Feed(*c.protocol(), error, {error.size()});
    EXPECT_EQ(outcome.status.code(), Code::kDataLoss) << c.name;
    EXPECT_NE(outcome.status.message().find("out of memory"), std::string::npos)
        << outcome.status.message();
  }
}

TEST(Parsers, AnyByteOfTheFramingChangedIsAnError) {
  for (const Case& c : Cases()) {
    for (size_t at = 0; at < c.reply.size(); ++at) {
      std::string damaged = c.reply;
      damaged[at] = damaged[at] == '#' ? '%' : '#';
      const Outcome outcome = Feed(*c.protocol(), damaged, {damaged.size()});
      const bool values_differ = outcome.out != AllValues();
      EXPECT_TRUE(!outcome.status.ok() || values_differ) << c.name << " byte " << at;
    }
  }
}

TEST(Parsers, LinesAreCountedAndOthersRefused) {
  LinesParser parser("STORED", 3);
  EXPECT_EQ(*parser.Take("STORED\r\nSTO"), 8u);
  EXPECT_FALSE(parser.done());
  EXPECT_EQ(*parser.Take("STORED\r\nSTORED\r\nSTORED\r\n"), 16u);
  EXPECT_TRUE(parser.done());
  LinesParser refused("STORED", 1);
  EXPECT_FALSE(refused.Take("SERVER_ERROR out of memory storing object\r\n").ok());
}

TEST(Keys, ArePrintableDistinctAndInOrderOfLayerThenRow) {
  std::vector<std::string> keys;
  for (const uint64_t layer : {0, 1}) {
    for (const uint64_t row : {0ull, 1ull, 63ull, 64ull, 4095ull, 4096ull, (1ull << 40) - 1}) {
      keys.push_back(Key(layer, row));
      for (const char c : keys.back()) EXPECT_TRUE(c > ' ' && c <= '~');
    }
  }
  EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
  EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
}

TEST(Requests, NameEveryKeyOfTheBatchOnce) {
  const std::string all[] = {Key(0, 7), Key(0, 70000), Key(1, 5), Key(1, kRows1[1])};
  std::string redis, text, meta;
  RedisProtocol()->AppendRead(TestBatch(), &redis);
  MemcachedTextProtocol()->AppendRead(TestBatch(), &text);
  MemcachedMetaProtocol()->AppendRead(TestBatch(), &meta);
  EXPECT_EQ(redis,
            fmt::format("*5\r\n$4\r\nMGET\r\n$8\r\n{}\r\n$8\r\n{}\r\n$8\r\n{}\r\n$8\r\n{}\r\n",
                        all[0], all[1], all[2], all[3]));
  EXPECT_EQ(text, fmt::format("get {} {} {} {}\r\n", all[0], all[1], all[2], all[3]));
  EXPECT_EQ(meta, fmt::format("mg {} v\r\nmg {} v\r\nmg {} v\r\nmg {} v\r\n", all[0], all[1],
                              all[2], all[3]));
}

}  // namespace
}  // namespace engram::bench
