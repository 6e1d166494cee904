// The wire's parsers: what they accept, what they refuse, and that no mutation makes them read out
// of bounds.
#include "common/net/wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/base/rng.h"
#include "common/net/wire_encode.h"

namespace engram::net {
namespace {

using Bytes = std::vector<std::byte>;

struct Message {
  Bytes header;
  Bytes body;
};

Message MakeLookup(std::vector<LookupLayer> layers, uint8_t id_bytes = 4) {
  Message message;
  uint64_t ids = 0;
  for (const LookupLayer& layer : layers) ids += layer.row_count;
  message.body.resize(ids * id_bytes);
  for (size_t i = 0; i < message.body.size(); ++i) message.body[i] = static_cast<std::byte>(i * 7);
  LookupHeader header;
  header.session = 11;
  header.request_id = 22;
  header.id_bytes = id_bytes;
  EncodeLookup(header, layers, message.body, message.header);
  return message;
}

Message MakeRows(uint32_t row_count, uint32_t row_bytes) {
  Message message;
  message.body.assign(size_t{row_count} * row_bytes, std::byte{0x5a});
  RowsHeader header;
  header.request_id = 22;
  header.row_count = row_count;
  header.stored_row_bytes = row_bytes;
  Seal(header);
  const auto bytes = HeaderBytes(header);
  message.header.assign(bytes.begin(), bytes.end());
  return message;
}

Code LookupCode(const Message& m) { return ParseLookup(m.header, m.body).status().code(); }
Code RowsCode(const Message& m) { return ParseRows(m.header, m.body).status().code(); }

template <typename T>
void Poke(Bytes& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

TEST(Wire, LookupComesBackAsWritten) {
  const Message m = MakeLookup({{0, 3}, {5, 2}}, 8);
  const auto view = ParseLookup(m.header, m.body);
  ASSERT_TRUE(view.ok()) << view.status().ToString();
  EXPECT_EQ(view->header.session, 11u);
  EXPECT_EQ(view->header.request_id, 22u);
  ASSERT_EQ(view->layers().size(), 2u);
  EXPECT_EQ(view->layers()[1].layer_index, 5u);
  EXPECT_EQ(view->layers()[1].row_count, 2u);
  EXPECT_EQ(view->ids.size(), 40u);
}

TEST(Wire, FullestLookupIsAccepted) {
  EXPECT_EQ(LookupCode(MakeLookup({{0, kLookupRowsMax}})), Code::kOk);
  EXPECT_EQ(LookupCode(MakeLookup({{0, kLookupRowsMax}, {1, 1}})), Code::kInvalidArgument);
}

TEST(Wire, LookupOverTheBodyLimitIsRefused) {
  EXPECT_EQ(LookupCode(MakeLookup({{0, kLookupRowsMax}}, 8)), Code::kInvalidArgument);
  EXPECT_EQ(LookupCode(MakeLookup({{0, kLookupRowsMax / 2}}, 8)), Code::kOk);
}

TEST(Wire, LookupFieldsAreCheckedOneByOne) {
  const Message good = MakeLookup({{0, 3}, {1, 4}});
  const auto with = [&](size_t offset, auto value) {
    Message m = good;
    Poke(m.header, offset, value);
    return LookupCode(m);
  };
  EXPECT_EQ(with(offsetof(LookupHeader, magic), uint32_t{1}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, version), uint16_t{1}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, type), uint16_t{2}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, type), uint16_t{0}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, priority), uint8_t{3}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, id_bytes), uint8_t{0}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, id_bytes), uint8_t{8}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, layer_count), uint16_t{0}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, layer_count), uint16_t{1}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, layer_count), uint16_t{65535}), Code::kInvalidArgument);
  EXPECT_EQ(with(offsetof(LookupHeader, crc32c), uint32_t{1}), Code::kDataLoss);
  const size_t second_layer = sizeof(LookupHeader) + sizeof(LookupLayer);
  EXPECT_EQ(with(second_layer, uint32_t{0}), Code::kInvalidArgument) << "layer twice";
  EXPECT_EQ(with(second_layer + 4, uint32_t{0}), Code::kInvalidArgument) << "no rows";
  EXPECT_EQ(with(second_layer + 4, uint32_t{5}), Code::kInvalidArgument) << "more than sent";
  EXPECT_EQ(with(second_layer + 4, ~uint32_t{0}), Code::kInvalidArgument) << "overflow";
}

TEST(Wire, DamagedIdsAreDataLoss) {
  Message lookup = MakeLookup({{0, 3}});
  lookup.body[5] ^= std::byte{1};
  EXPECT_EQ(LookupCode(lookup), Code::kDataLoss);
}

TEST(Wire, DamagedHeadersAreDataLoss) {
  Message lookup = MakeLookup({{0, 3}});
  lookup.header[offsetof(LookupHeader, session)] ^= std::byte{1};
  EXPECT_EQ(LookupCode(lookup), Code::kDataLoss);
  Message rows = MakeRows(2, 268);
  rows.header[offsetof(RowsHeader, first)] ^= std::byte{1};
  EXPECT_EQ(RowsCode(rows), Code::kDataLoss);
}

TEST(Wire, RowsAreCheckedAgainstTheirBody) {
  EXPECT_EQ(RowsCode(MakeRows(480, 268)), Code::kOk);
  EXPECT_EQ(RowsCode(MakeRows(481, 268)), Code::kInvalidArgument);
  EXPECT_EQ(RowsCode(MakeRows(480, 1024)), Code::kInvalidArgument) << "body over the limit";
  EXPECT_EQ(RowsCode(MakeRows(0, 264)), Code::kInvalidArgument);
  EXPECT_EQ(RowsCode(MakeRows(3, 0)), Code::kInvalidArgument);
  Message shorter = MakeRows(3, 8);
  shorter.body.pop_back();
  EXPECT_EQ(RowsCode(shorter), Code::kInvalidArgument);
}

TEST(Wire, ErrorsNeedAKnownCode) {
  LookupErrorHeader header;
  header.code = static_cast<int>(Code::kOutOfRange);
  header.request_id = 9;
  Seal(header, {});
  const auto parsed = ParseLookupError(HeaderBytes(header), {});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->request_id, 9u);
  for (const int code : {0, -1, 12, 1 << 30}) {
    header.code = code;
    Seal(header, {});
    EXPECT_EQ(ParseLookupError(HeaderBytes(header), {}).status().code(), Code::kInvalidArgument)
        << code;
  }
}

TEST(Wire, DamagedErrorTextIsDataLoss) {
  const Bytes text(12, std::byte{'x'});
  LookupErrorHeader header;
  header.code = static_cast<int>(Code::kOutOfRange);
  Seal(header, text);
  EXPECT_TRUE(ParseLookupError(HeaderBytes(header), text).ok());
  Bytes damaged = text;
  damaged[3] ^= std::byte{4};
  EXPECT_EQ(ParseLookupError(HeaderBytes(header), damaged).status().code(), Code::kDataLoss);
}

TEST(Wire, EveryTruncationIsRefused) {
  const Message m = MakeLookup({{0, 3}, {1, 4}});
  for (size_t size = 0; size < m.header.size(); ++size) {
    const Bytes shorter(m.header.begin(), m.header.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(ParseLookup(shorter, m.body).ok()) << size;
    EXPECT_FALSE(ParseRows(shorter, m.body).ok()) << size;
    EXPECT_FALSE(ParseLookupError(shorter, m.body).ok()) << size;
  }
}

// Under the sanitizers a read outside the spans ends the test; here every accepted lookup must add
// up.
TEST(Wire, RandomMutationsNeverBreakTheInvariants) {
  Rng rng(20240917);
  int accepted = 0;
  for (int round = 0; round < 30'000; ++round) {
    Message m = round % 3 == 0 ? MakeRows(3, 16) : MakeLookup({{0, 3}, {2, 4}, {9, 1}});
    const uint64_t flips = rng.NextBelow(4);
    for (uint64_t i = 0; i < flips; ++i) {
      m.header[rng.NextBelow(m.header.size())] = static_cast<std::byte>(rng.NextU64());
    }
    if (rng.NextBelow(8) == 0) m.header.resize(rng.NextBelow(m.header.size() + 16));
    if (rng.NextBelow(8) == 0) m.body.resize(rng.NextBelow(m.body.size() + 16));
    m.header.shrink_to_fit();
    m.body.shrink_to_fit();
    (void)PeekType(m.header).ok();
    (void)ParseLookupError(m.header, m.body).ok();
    const auto rows = ParseRows(m.header, m.body);
    if (rows.ok()) {
      ASSERT_EQ(uint64_t{rows->row_count} * rows->stored_row_bytes, m.body.size());
    }
    const auto lookup = ParseLookup(m.header, m.body);
    if (!lookup.ok()) continue;
    ++accepted;
    uint64_t ids = 0;
    for (const LookupLayer& layer : lookup->layers()) ids += layer.row_count;
    ASSERT_EQ(ids * lookup->header.id_bytes, lookup->ids.size());
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace engram::net
