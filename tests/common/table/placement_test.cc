// The partition map, frozen by vectors from an independent restatement.
#include "common/table/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/table/golden.h"

namespace engram::table {
namespace {

using ::testing::HasSubstr;

ClusterMap Members(std::vector<std::string> names) { return {1, std::move(names)}; }

TEST(Placement, CutsMatchTheFrozenVectors) {
  const json::object golden = ReadGolden("placement");
  for (const json::value& value : golden.at("cuts").get_array()) {
    const auto at = [&](const char* key) {
      return static_cast<uint64_t>(value.at(key).get_int64());
    };
    const LayerPartitions cut = CutLayer(at("total_rows"), static_cast<uint32_t>(at("row_bytes")));
    EXPECT_EQ(cut.total_rows, at("total_rows"));
    EXPECT_EQ(cut.rows_per_page, at("rows_per_page"));
    EXPECT_EQ(cut.rows_per_partition, at("rows_per_partition"));
    ASSERT_EQ(cut.partition_count, at("partition_count"));
    EXPECT_EQ(cut.RowCount(cut.partition_count - 1), at("last_partition_rows"));
    EXPECT_EQ(cut.PartitionOf(cut.total_rows - 1), cut.partition_count - 1);
  }
}

TEST(Placement, PartitionsCoverEveryRowOnce) {
  const LayerPartitions cut = CutLayer(10007, 264);
  uint64_t next = 0;
  for (uint32_t p = 0; p < cut.partition_count; ++p) {
    EXPECT_EQ(cut.FirstRow(p), next);
    EXPECT_EQ(cut.PartitionOf(next), p);
    next += cut.RowCount(p);
    EXPECT_EQ(cut.PartitionOf(next - 1), p);
  }
  EXPECT_EQ(next, 10007u);
}

TEST(Placement, AnEmptyLayerHasNoPartitions) { EXPECT_EQ(CutLayer(0, 264).partition_count, 0u); }

TEST(Placement, OwnersMatchTheFrozenVectors) {
  const json::object golden = ReadGolden("placement");
  ASSERT_EQ(golden.at("owners").get_array().size(), 12u);
  for (const json::value& value : golden.at("owners").get_array()) {
    ClusterMap map;
    for (const json::value& name : value.at("members").get_array())
      map.members.emplace_back(name.get_string());
    const auto layer_index = static_cast<uint32_t>(value.at("layer_index").get_int64());
    const std::vector<int64_t> expected = Flatten(value.at("owners"));
    const std::vector<uint16_t> owners =
        OwnersOfLayer(map, layer_index, static_cast<uint32_t>(expected.size()));
    for (uint32_t p = 0; p < expected.size(); ++p) {
      EXPECT_EQ(owners[p], expected[p]) << p;
      EXPECT_EQ(OwnerOf(map, layer_index, p), expected[p]) << p;
    }
  }
}

TEST(Placement, ALeavingMemberMovesOnlyItsOwnPartitions) {
  const ClusterMap before = Members({"a", "b", "c"});
  const ClusterMap after = Members({"a", "c"});
  for (uint32_t p = 0; p < 1000; ++p) {
    const std::string& owner = before.members[OwnerOf(before, 0, p)];
    if (owner != "b") {
      EXPECT_EQ(after.members[OwnerOf(after, 0, p)], owner) << p;
    }
  }
}

TEST(Placement, OwnershipDoesNotDependOnTheOrderOfMembers) {
  const ClusterMap one = Members({"a", "b", "c"});
  const ClusterMap other = Members({"c", "a", "b"});
  for (uint32_t p = 0; p < 1000; ++p)
    EXPECT_EQ(one.members[OwnerOf(one, 1, p)], other.members[OwnerOf(other, 1, p)]);
}

TEST(Placement, AMapThatCannotBeMeantIsRefused) {
  EXPECT_TRUE(Validate(Members({"a", "b"})).ok());
  EXPECT_THAT(Validate(Members({})).message(), HasSubstr("0 members"));
  EXPECT_THAT(Validate(Members({"a", ""})).message(), HasSubstr("member 1"));
  EXPECT_THAT(Validate(Members({"a", "b", "a"})).message(), HasSubstr("\"a\" twice"));
  ClusterMap full;
  for (size_t i = 0; i <= kMembersMax; ++i) full.members.push_back(std::to_string(i));
  EXPECT_FALSE(Validate(full).ok());
  full.members.pop_back();
  EXPECT_TRUE(Validate(full).ok());
}

}  // namespace
}  // namespace engram::table
