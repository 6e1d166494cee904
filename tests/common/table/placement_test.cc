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

TEST(Placement, MembersAreReadWithZonesAndWeights) {
  const auto map = ParseMembers({"a zone=x weight=2", "b zone=y", "c  weight=3 zone=x"}, 2, 7);
  ASSERT_TRUE(map.ok()) << map.status().message();
  EXPECT_EQ(map->members, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(map->weights, (std::vector<uint32_t>{2, 1, 3}));
  EXPECT_EQ(map->zones, (std::vector<std::string>{"x", "y", "x"}));
  EXPECT_EQ(map->replicas, 2u);
  EXPECT_EQ(map->epoch, 7u);
  const auto plain = ParseMembers({"a", "b"}, 1, 1);
  ASSERT_TRUE(plain.ok());
  EXPECT_TRUE(plain->weights.empty() && plain->zones.empty());
}

TEST(Placement, AMemberThatCannotBeMeantIsQuoted) {
  const auto message = [](const std::vector<std::string>& entries, uint32_t replicas = 1) {
    return std::string(ParseMembers(entries, replicas, 1).status().message());
  };
  EXPECT_THAT(message({"a zone="}), HasSubstr("\"a zone=\""));
  EXPECT_THAT(message({"a weight=2x"}), HasSubstr("\"a weight=2x\""));
  EXPECT_THAT(message({"a weight="}), HasSubstr("\"a weight=\""));
  EXPECT_THAT(message({"a rack=1"}), HasSubstr("NAME [zone=ZONE] [weight=N]"));
  EXPECT_THAT(message({"a weight=0"}), HasSubstr("weight 0"));
  EXPECT_THAT(message({"a", "a"}), HasSubstr("twice"));
  EXPECT_THAT(message({"a zone=x", "b"}), HasSubstr("1 zones for 2 members"));
  EXPECT_THAT(message({"a", "b"}, 3), HasSubstr("3 replicas"));
  EXPECT_THAT(message({""}), HasSubstr("no name"));
}

TEST(Placement, AMapComesBackFromItsJson) {
  ClusterMap map;
  map.epoch = 9;
  map.members = {"a", "b", "c"};
  EXPECT_FALSE(ToJson(map).contains("replicas")) << "as it was before there were replicas";
  EXPECT_EQ(*MapFromJson(json::parse(json::serialize(ToJson(map))).as_object()), map);
  map.replicas = 2;
  map.weights = {1, 2, 65535};
  map.zones = {"x", "y", "z"};
  EXPECT_EQ(*MapFromJson(json::parse(json::serialize(ToJson(map))).as_object()), map);
}

TEST(Placement, AMapOfWrongJsonIsRefused) {
  const auto refused = [](const char* text) {
    const auto map = MapFromJson(json::parse(text).as_object());
    return !map.ok() && map.status().message().find("map") == 0;
  };
  EXPECT_TRUE(refused(R"({"epoch": 1})"));
  EXPECT_TRUE(refused(R"({"epoch": 1, "members": ["a", 2]})"));
  EXPECT_TRUE(refused(R"({"epoch": -1, "members": ["a"]})"));
  EXPECT_TRUE(refused(R"({"epoch": 1, "members": ["a"], "replicas": 2})"));
  EXPECT_TRUE(refused(R"({"epoch": 1, "members": ["a"], "weights": [0]})"));
  EXPECT_TRUE(refused(R"({"epoch": 1, "members": ["a"], "weights": ["1"]})"));
  EXPECT_TRUE(refused(R"({"epoch": 1, "members": ["a"], "zones": [7]})"));
  EXPECT_TRUE(refused(R"({"epoch": 1, "members": ["a", "b"], "zones": ["x"]})"));
}

}  // namespace
}  // namespace engram::table
