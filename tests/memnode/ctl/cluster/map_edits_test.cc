// What tools make of a cluster's map, and what that would move.
#include "memnode/ctl/cluster/map_edits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memnode/ctl/cluster/move_plan.h"

namespace engram::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

table::ClusterMap TwoMembers() {
  table::ClusterMap map;
  map.members = {"m0", "m1"};
  map.addresses = {"h0:1", "h1:1"};
  return map;
}

TEST(MapEdits, AMemberComesLastAndTheOthersStayAsTheyAre) {
  const auto map = WithMember(TwoMembers(), {.name = "m2", .address = "h2:1", .zone = ""});
  ASSERT_TRUE(map.ok()) << map.status().message();
  EXPECT_THAT(map->members, ElementsAre("m0", "m1", "m2"));
  EXPECT_THAT(map->addresses, ElementsAre("h0:1", "h1:1", "h2:1"));
  EXPECT_THAT(map->weights, IsEmpty()) << "all alike";
  const auto heavy =
      WithMember(TwoMembers(), {.name = "m2", .address = "h2:1", .zone = "", .weight = 4});
  EXPECT_THAT(heavy->weights, ElementsAre(1, 1, 4));
}

TEST(MapEdits, WhatGoesTakesItsPartsWithIt) {
  table::ClusterMap map = TwoMembers();
  map.members.push_back("m2");
  map.addresses.push_back("h2:1");
  map.weights = {1, 2, 3};
  map.zones = {"a", "b", "c"};
  const auto left = WithoutMember(map, "m1");
  ASSERT_TRUE(left.ok());
  EXPECT_THAT(left->members, ElementsAre("m0", "m2"));
  EXPECT_THAT(left->weights, ElementsAre(1, 3));
  EXPECT_THAT(left->zones, ElementsAre("a", "c"));
  EXPECT_THAT(left->addresses, ElementsAre("h0:1", "h2:1"));
}

TEST(MapEdits, WhatCannotBeSaysWhy) {
  const table::ClusterMap map = TwoMembers();
  const auto says = [](const Result<table::ClusterMap>& edited) {
    EXPECT_FALSE(edited.ok());
    return edited.status().message();
  };
  EXPECT_THAT(says(WithMember(map, {.name = "m1", .address = "x:1", .zone = ""})),
              HasSubstr("a member already"));
  EXPECT_THAT(says(WithMember(map, {.name = "m2", .address = "x:1", .zone = "a"})),
              HasSubstr("no zones"));
  EXPECT_THAT(says(WithoutMember(map, "m7")), HasSubstr("no member"));
  EXPECT_THAT(says(WithReplicas(map, 3)), HasSubstr("3 replicas"));
  EXPECT_THAT(says(WithoutMember(*WithReplicas(map, 2), "m0")), HasSubstr("set-replicas 1 first"));
  EXPECT_THAT(says(WithWeights(map, {{"m0", 0}})), HasSubstr("weight 0"));
  EXPECT_THAT(says(WithWeights(map, {{"m9", 2}})), HasSubstr("no member"));
}

TEST(MovePlan, CountsWhatEachMemberHasAndGains) {
  table::TableIdentity identity;
  identity.model = "m";
  identity.version = "1";
  identity.row_encoding = "fp8_scaled";
  identity.head_dim = 256;
  for (const auto format : table::kRowEncodings) {
    if (format == table::RowEncoding::kFp8Scaled) {
      identity.row_encoding = table::RowEncodingName(format);
    }
  }
  identity.layers.resize(1);
  identity.layers[0].total_rows = 100'000;
  const table::ClusterMap before = TwoMembers();
  const table::ClusterMap after =
      *WithMember(before, {.name = "m2", .address = "h2:1", .zone = ""});
  const auto plan = PlanMove(before, after, {identity});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  ASSERT_EQ(plan->members.size(), 3u);
  uint64_t rows_before = 0, rows_after = 0;
  for (const MemberMove& move : plan->members) {
    rows_before += move.bytes_before;
    rows_after += move.bytes_after;
  }
  EXPECT_EQ(rows_before, 100'000u * 264);
  EXPECT_EQ(rows_after, 100'000u * 264);
  const MemberMove& added = plan->members[2];
  EXPECT_EQ(added.partitions_before, 0u);
  EXPECT_EQ(added.bytes_gained, added.bytes_after) << "all it has is copied to it";
  EXPECT_GT(added.bytes_after, 100'000u * 264 / 4);
  // P2: not much more than the share of the one that is added.
  EXPECT_LE(plan->bytes_moved(), added.bytes_after * 11 / 10 + (4 << 20));
  EXPECT_THAT(MoveTable(*plan, 1), HasSubstr("are copied, in about"));
  const auto nothing = PlanMove(before, before, {identity});
  EXPECT_EQ(nothing->bytes_moved(), 0u);
}

}  // namespace
}  // namespace engram::ctl
