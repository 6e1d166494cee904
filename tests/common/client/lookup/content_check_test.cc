// Whether what the nodes serve is what the client's own folder holds.
#include "common/client/lookup/content_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/sha256.h"
#include "tests/common/client/lookup/fake_cluster.h"

namespace engram::client {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr Nanos kTimeout = std::chrono::seconds(20);

// One layer of the fake nodes' tables, with one byte of one row another.
class OwnLayer : public TableSource {
 public:
  OwnLayer(uint32_t layer_index, uint64_t other_row)
      : layer_index_(layer_index), other_row_(other_row) {}
  const table::RowFormat& row_format() const override { return layout_.row_format; }
  uint32_t layer_count() const override { return 1; }
  uint64_t rows(uint32_t) const override { return layout_.layers[layer_index_].total_rows; }
  Status ReadRows(uint32_t, uint64_t first, uint64_t count, std::byte* out) const override {
    for (uint64_t row = first; row < first + count; ++row, out += kRowBytes) {
      FillRow(layer_index_, row, {out, kRowBytes});
      if (row == other_row_) out[kRowBytes - 1] ^= std::byte{1};
    }
    return OkStatus();
  }
  std::string Fingerprint() const override { return ""; }
  Status CheckUnchanged() const override { return OkStatus(); }

 private:
  const table::TableLayout layout_ = MakeTestLayout();
  const uint32_t layer_index_;
  const uint64_t other_row_;
};

std::string ShaOfRow(const OwnLayer& own, uint64_t row) {
  std::vector<std::byte> bytes(kRowBytes);
  CHECK(own.ReadRows(0, row, 1, bytes.data()).ok());
  Sha256 sha;
  sha.Update(bytes);
  return ToHex(sha.Finish());
}

TEST(ContentCheck, EqualTablesAreComparedRowByRow) {
  FakeCluster cluster(2);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  for (const uint32_t layer : {0u, 1u}) {
    const auto rows = CompareLayer(*client, layer, OwnLayer(layer, UINT64_MAX), "/m", kTimeout);
    ASSERT_TRUE(rows.ok()) << rows.status().message();
    EXPECT_EQ(*rows, MakeTestLayout().layers[layer].total_rows);
  }
}

TEST(ContentCheck, OneRowThatIsNotTheFoldersIsNamedWithBothDigests) {
  FakeCluster cluster(2);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  for (const uint64_t row : {0ul, 17ul, 2345ul, 5999ul}) {
    const OwnLayer own(1, row);
    const Status status = CompareLayer(*client, 1, own, "/models/mine", kTimeout).status();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr(fmt::format("row {} of layer 9 ", row)), HasSubstr("/models/mine"),
                      HasSubstr(ShaOfRow(own, row)), HasSubstr(ShaOfRow(OwnLayer(1, 9999), row)),
                      HasSubstr("memory node m"), HasSubstr(std::string(64, 'd'))));
  }
}

TEST(ContentCheck, WhatIsComparedAtConnectIsInNoCountAndItsErrorIsConnects) {
  FakeCluster cluster(2);
  cluster.StartAll();
  uint64_t other_row = UINT64_MAX;
  cluster.options.check = [&](LookupClient& client) {
    return CompareLayer(client, 0, OwnLayer(0, other_row), "/m", kTimeout).status();
  };
  const auto client = cluster.MustConnect();
  EXPECT_EQ(client->stats().rows_asked, 0u);
  for (const SourceStats::Node& node : client->stats().nodes) EXPECT_EQ(node.rows_fetched, 0u);
  other_row = 5;
  EXPECT_THAT(cluster.Connect().status().message(), HasSubstr("row 5 of layer 1 "));
}

TEST(ContentCheck, LargeTablesAreSampledAllOver) {
  EXPECT_THAT(RowsToCompare(0, 3), ElementsAre(0, 1, 2));
  EXPECT_EQ(RowsToCompare(1, kWholeRows).size(), kWholeRows);
  for (const uint64_t total : {kWholeRows + 1, uint64_t{384'000'077}}) {
    const std::vector<uint64_t> rows = RowsToCompare(1, total);
    ASSERT_EQ(rows.size(), kSampledRows);
    const uint64_t slice = total / kSampledRows;
    for (uint64_t i = 0; i < kSampledRows; ++i) {
      EXPECT_GE(rows[i], i * slice);
      EXPECT_LT(rows[i], i + 1 == kSampledRows ? total : (i + 1) * slice);
    }
    EXPECT_EQ(RowsToCompare(1, total), rows) << "the same ones each time";
    EXPECT_NE(RowsToCompare(0, total), rows);
  }
}

class PinnedDigestTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(dir_); }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void Write(const std::string& text) const { std::ofstream(dir_ + "/" + kDigestFile) << text; }

  const std::string dir_ = testing::TempDir() + "/pinned" + std::to_string(::getpid());
  const std::string a_ = std::string(64, 'a'), b_ = std::string(64, 'b');
};

TEST_F(PinnedDigestTest, ComesFromTheSettingOrTheFile) {
  EXPECT_EQ(*PinnedDigest(dir_, ""), "");
  EXPECT_EQ(*PinnedDigest(dir_, a_), a_);
  ASSERT_TRUE(WriteDigestFile(dir_, b_).ok());
  EXPECT_EQ(*PinnedDigest(dir_, ""), b_);
  EXPECT_EQ(*PinnedDigest(dir_, b_), b_);
}

TEST_F(PinnedDigestTest, TwoThatDifferAreRefused) {
  ASSERT_TRUE(WriteDigestFile(dir_, b_).ok());
  EXPECT_THAT(PinnedDigest(dir_, a_).status().message(),
              AllOf(HasSubstr(a_), HasSubstr(b_), HasSubstr(kDigestFile)));
}

TEST_F(PinnedDigestTest, WhatIsNoDigestIsRefused) {
  EXPECT_THAT(PinnedDigest(dir_, "abc").status().message(), HasSubstr("\"abc\""));
  EXPECT_FALSE(PinnedDigest(dir_, std::string(64, 'A')).ok());
  for (const std::string& text : {std::string(), std::string("\n"), a_ + "b", a_ + "\n" + a_}) {
    Write(text);
    EXPECT_THAT(PinnedDigest(dir_, "").status().message(), HasSubstr(kDigestFile)) << text;
  }
}

}  // namespace
}  // namespace engram::client
