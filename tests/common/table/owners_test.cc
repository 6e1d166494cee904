// Owners of partitions, frozen by vectors from an independent restatement; balance and movement by
// simulation (rule P2).
#include "common/table/owners.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "common/base/rng.h"
#include "tests/common/table/golden.h"

namespace engram::table {
namespace {

using testing::HasSubstr;

ClusterMap MapOf(const json::object& value) {
  ClusterMap map;
  for (const json::value& name : value.at("members").get_array()) {
    map.members.emplace_back(name.get_string());
  }
  map.replicas = static_cast<uint32_t>(value.at("replicas").get_int64());
  for (const int64_t weight : Flatten(value.at("weights"))) {
    map.weights.push_back(static_cast<uint32_t>(weight));
  }
  for (const json::value& zone : value.at("zones").get_array()) {
    map.zones.emplace_back(zone.get_string());
  }
  return map;
}

TEST(Owners, LogarithmsMatchTheFrozenVectors) {
  const json::object golden = ReadGolden("owners");
  for (const json::value& pair : golden.at("log2").get_array()) {
    const uint64_t x = std::stoull(std::string(pair.at(0).get_string()));
    EXPECT_EQ(std::to_string(FixedLog2(x)), pair.at(1).get_string()) << x;
  }
}

TEST(Owners, MatchTheFrozenVectors) {
  const json::object golden = ReadGolden("owners");
  ASSERT_EQ(golden.at("cases").get_array().size(), 7u);
  for (const json::value& value : golden.at("cases").get_array()) {
    const ClusterMap map = MapOf(value.get_object());
    ASSERT_TRUE(Validate(map).ok());
    std::vector<LayerPartitions> cuts;
    uint64_t total_rows = 0;
    for (const int64_t rows : Flatten(value.at("total_rows"))) {
      cuts.push_back(CutLayer(static_cast<uint64_t>(rows), 264));
      total_rows += static_cast<uint64_t>(rows);
    }
    const std::vector<int64_t> shares = Flatten(value.at("fair_shares"));
    EXPECT_THAT(FairShares(map, total_rows), testing::ElementsAreArray(shares));
    const OwnerTable table(map, cuts);
    for (uint32_t layer = 0; layer < cuts.size(); ++layer) {
      const json::array& expected = value.at("owners").at(layer).get_array();
      ASSERT_EQ(expected.size(), cuts[layer].partition_count);
      for (uint32_t p = 0; p < expected.size(); ++p) {
        const std::vector<int64_t> owners = Flatten(expected[p]);
        EXPECT_THAT(table.Of(layer, p), testing::ElementsAreArray(owners)) << layer << " " << p;
      }
    }
  }
}

// 12,100 partitions as of V4.1, 8 zones, weights 1 to 4.
ClusterMap Simulated(size_t members, uint32_t replicas) {
  ClusterMap map;
  map.replicas = replicas;
  Rng rng(7);
  for (size_t i = 0; i < members; ++i) {
    map.members.push_back(fmt::format("node-{}", i));
    map.weights.push_back(static_cast<uint32_t>(1 + rng.NextBelow(4)));
    map.zones.push_back(fmt::format("zone-{}", i % 8));
  }
  return map;
}

std::vector<LayerPartitions> V41Cuts() {
  const LayerPartitions cut = CutLayer(uint64_t{12'100} / 2 * 61'440, 264);
  return {cut, cut};
}

std::vector<uint64_t> RowsOf(const OwnerTable& table, const std::vector<LayerPartitions>& cuts,
                             size_t members) {
  std::vector<uint64_t> rows(members, 0);
  for (uint32_t layer = 0; layer < cuts.size(); ++layer) {
    for (uint32_t p = 0; p < cuts[layer].partition_count; ++p) {
      for (const uint16_t owner : table.Of(layer, p)) rows[owner] += cuts[layer].RowCount(p);
    }
  }
  return rows;
}

TEST(Owners, AreDistinctAndOfDifferentZones) {
  const std::vector<LayerPartitions> cuts = V41Cuts();
  for (const size_t members : {3u, 16u, 64u}) {
    const ClusterMap map = Simulated(members, 3);
    const OwnerTable table(map, cuts);
    for (uint32_t layer = 0; layer < cuts.size(); ++layer) {
      for (uint32_t p = 0; p < cuts[layer].partition_count; ++p) {
        std::set<uint16_t> owners;
        std::set<std::string> zones;
        for (const uint16_t owner : table.Of(layer, p)) {
          owners.insert(owner);
          zones.insert(map.zones[owner]);
        }
        ASSERT_EQ(owners.size(), 3u);
        ASSERT_EQ(zones.size(), 3u) << members << " members, partition " << p;
      }
    }
  }
}

TEST(Owners, HoldTheirFairSharesWithinFivePercent) {
  const std::vector<LayerPartitions> cuts = V41Cuts();
  const uint64_t total_rows = cuts[0].total_rows * 2;
  for (const size_t members : {3u, 16u, 64u, 1000u}) {
    const ClusterMap map = Simulated(members, 2);
    const std::vector<uint64_t> rows = RowsOf(OwnerTable(map, cuts), cuts, members);
    const std::vector<uint64_t> shares = FairShares(map, total_rows);
    double worst = 0;
    for (size_t i = 0; i < members; ++i) {
      // One partition is the least that can be moved: at 1,000 members it is a tenth of a share.
      const double over = static_cast<double>(rows[i]) - static_cast<double>(61'440);
      worst = std::max(worst, over / static_cast<double>(shares[i]));
    }
    EXPECT_LE(worst, 1.05) << members;
  }
}

// Of all copies, what has another owner; and the fair share of the member that came.
std::pair<double, double> MovedByOneMore(size_t members) {
  const std::vector<LayerPartitions> cuts = V41Cuts();
  const ClusterMap after = Simulated(members, 2);
  ClusterMap before = after;
  before.members.pop_back();
  before.weights.pop_back();
  before.zones.pop_back();
  const OwnerTable old_table(before, cuts), new_table(after, cuts);
  uint64_t moved = 0, all = 0;
  for (uint32_t layer = 0; layer < cuts.size(); ++layer) {
    for (uint32_t p = 0; p < cuts[layer].partition_count; ++p) {
      for (const uint16_t owner : new_table.Of(layer, p)) {
        all += cuts[layer].RowCount(p);
        const bool held = owner + 1u < members && old_table.Owns(owner, layer, p);
        moved += held ? 0 : cuts[layer].RowCount(p);
      }
    }
  }
  const uint64_t share = FairShares(after, cuts[0].total_rows * 2).back();
  return {static_cast<double>(moved) / static_cast<double>(all),
          static_cast<double>(share) / static_cast<double>(all)};
}

TEST(Owners, OneMemberMoreMovesLittleMoreThanItsShare) {
  for (const size_t members : {4u, 17u, 64u}) {
    const auto [moved, share] = MovedByOneMore(members);
    EXPECT_LE(moved, 1.1 * share) << members;
  }
  const auto [moved, share] = MovedByOneMore(1000);
  EXPECT_LE(moved, 3 * share);
}

TEST(Owners, DoNotDependOnTheOrderOfMembers) {
  const std::vector<LayerPartitions> cuts = {CutLayer(9000, 264)};
  ClusterMap one;
  one.members = {"a", "b", "c", "d"};
  one.weights = {1, 2, 3, 4};
  one.zones = {"x", "y", "x", "y"};
  one.replicas = 2;
  ClusterMap other = one;
  std::reverse(other.members.begin(), other.members.end());
  std::reverse(other.weights.begin(), other.weights.end());
  std::reverse(other.zones.begin(), other.zones.end());
  const OwnerTable first(one, cuts), second(other, cuts);
  for (uint32_t p = 0; p < cuts[0].partition_count; ++p) {
    for (uint32_t r = 0; r < 2; ++r) {
      EXPECT_EQ(one.members[first.Of(0, p)[r]], other.members[second.Of(0, p)[r]]) << p;
    }
  }
}

TEST(Owners, TheDigestTellsTablesApart) {
  const std::vector<LayerPartitions> cuts = {CutLayer(9000, 264)};
  ClusterMap map;
  map.members = {"a", "b", "c"};
  const uint64_t first = OwnerTable(map, cuts).digest();
  EXPECT_EQ(first, OwnerTable(map, cuts).digest());
  map.weights = {1, 1, 2};
  EXPECT_NE(first, OwnerTable(map, cuts).digest());
  map.weights.clear();
  map.replicas = 2;
  EXPECT_NE(first, OwnerTable(map, cuts).digest());
}

TEST(Owners, AMapThatCannotBeMeantIsRefused) {
  ClusterMap map;
  map.members = {"a", "b"};
  map.replicas = 3;
  EXPECT_THAT(Validate(map).message(), HasSubstr("3 replicas of each row on 2 members"));
  map.replicas = 0;
  EXPECT_FALSE(Validate(map).ok());
  map.replicas = 2;
  map.weights = {1};
  EXPECT_THAT(Validate(map).message(), HasSubstr("1 weights for 2 members"));
  map.weights = {1, 0};
  EXPECT_THAT(Validate(map).message(), HasSubstr("member \"b\" has weight 0"));
  map.weights = {1, 2};
  map.zones = {"x"};
  EXPECT_THAT(Validate(map).message(), HasSubstr("1 zones for 2 members"));
  map.zones = {"x", ""};
  EXPECT_THAT(Validate(map).message(), HasSubstr("member \"b\" has an empty zone"));
  map.zones = {"x", "x"};
  EXPECT_THAT(Validate(map).message(), HasSubstr("2 replicas of each row in 1 zones"));
  map.zones = {"x", "y"};
  EXPECT_TRUE(Validate(map).ok());
}

}  // namespace
}  // namespace engram::table
