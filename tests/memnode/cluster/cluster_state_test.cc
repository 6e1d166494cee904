// The state of a cluster as text, and which steps it may take.
#include "memnode/cluster/cluster_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/memnode/cluster/states.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

TEST(ClusterState, ComesBackFromItsText) {
  ClusterState settings;
  settings.current = MapOf({"m0"});
  ClusterState full = Adding(FirstState(), "m2");
  full.revision = UINT64_MAX;
  full.current.replicas = full.next->replicas = 2;
  full.current.weights = {3, 1};
  full.next->weights = {3, 1, 7};
  full.current.zones = {"a", "b"};
  full.next->zones = {"a", "b", "c"};
  full.next->addresses = {"h0:1", "h1:2", "[::1]:3"};
  for (const ClusterState& state : {settings, FirstState(), full}) {
    const auto text = json::serialize(ToJson(state));
    const auto parsed = io::ParseJson(text, "test");
    ASSERT_TRUE(parsed.ok());
    const auto back = StateFromJson(parsed->as_object());
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_TRUE(*back == state) << text;
  }
}

TEST(ClusterState, IsNotReadWithAnythingMissingOrWrong) {
  const json::object good = ToJson(Adding(FirstState(), "m2"));
  ASSERT_TRUE(StateFromJson(good).ok());
  const auto refused = [&](const std::function<void(json::object&)>& spoil) {
    json::object object = good;
    spoil(object);
    const Status status = StateFromJson(object).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << json::serialize(object);
    EXPECT_TRUE(status.message().starts_with("cluster state")) << status.message();
  };
  for (const char* key : {"cluster", "revision", "current"}) {
    refused([&](json::object& object) { object.erase(key); });
    refused([&](json::object& object) { object[key] = nullptr; });
    refused([&](json::object& object) { object[key] = 1; });
  }
  refused([](json::object& object) { object["revision"] = "-1"; });
  refused([](json::object& object) { object["next"] = "m2"; });
  refused([](json::object& object) { object["next"] = object["current"]; });
  refused([](json::object& object) { object["current"].as_object()["members"] = json::array(); });
  refused([](json::object& object) { object["change"] = std::string(257, 'x'); });
  refused([](json::object& object) { object["cluster"] = std::string(257, 'x'); });
}

TEST(ClusterState, GoesFromOneMapToTheNextInTwoSteps) {
  const ClusterState first = FirstState();
  const ClusterState adding = Adding(first, "m2");
  EXPECT_EQ(adding.revision, 2u);
  EXPECT_TRUE(adding.current == first.current);
  EXPECT_EQ(adding.next->epoch, 2u);
  EXPECT_EQ(adding.change, "add m2");

  const ClusterState committed = Committed(adding);
  EXPECT_EQ(committed.revision, 3u);
  EXPECT_TRUE(committed.current == *adding.next);
  EXPECT_FALSE(committed.next.has_value());
  EXPECT_EQ(committed.change, "");

  const auto cancelled = Cancel(adding);
  ASSERT_TRUE(cancelled.ok());
  EXPECT_EQ(cancelled->revision, 3u);
  EXPECT_TRUE(cancelled->current == first.current);
  EXPECT_FALSE(cancelled->next.has_value());

  for (const auto& [before, after] :
       {std::pair(first, adding), std::pair(adding, committed), std::pair(adding, *cancelled)}) {
    EXPECT_TRUE(CheckStep(before, after).ok());
  }
}

TEST(ClusterState, TakesNoOtherStep) {
  const ClusterState first = FirstState();
  const ClusterState adding = Adding(first, "m2");
  const auto refused = [](const ClusterState& before, ClusterState after,
                          const std::function<void(ClusterState&)>& spoil) {
    spoil(after);
    const Status status = CheckStep(before, after);
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << json::serialize(ToJson(after));
    return status.message();
  };
  const auto nothing = [](ClusterState&) {};
  EXPECT_THAT(refused(first, adding, [](ClusterState& after) { after.cluster = "beef"; }),
              HasSubstr("of cluster beef, this member is of cluster cafe"));
  EXPECT_THAT(refused(first, adding, [](ClusterState& after) { after.cluster = ""; }),
              HasSubstr("cluster"));
  ClusterState unnamed = first;
  unnamed.cluster = "";
  EXPECT_THAT(refused(unnamed, adding, [](ClusterState& after) { after.cluster = ""; }),
              HasSubstr("needs the cluster's id"));
  for (const uint64_t revision : {0, 1, 3, 4}) {
    EXPECT_THAT(
        refused(first, adding, [&](ClusterState& after) { after.revision = revision; }),
        HasSubstr("revision " + std::to_string(revision) + " of the cluster's state is proposed"));
  }
  EXPECT_THAT(refused(first, adding, [](ClusterState& after) { after.next->epoch = 3; }),
              HasSubstr("epoch 3 is proposed after epoch 1"));
  EXPECT_THAT(refused(first, adding, [](ClusterState& after) { after.next->epoch = 1; }),
              HasSubstr("epoch 1 is proposed after epoch 1"));
  EXPECT_THAT(
      refused(first, adding, [](ClusterState& after) { after.current.members.push_back("m9"); }),
      HasSubstr("not at epoch 1 of [m0, m1, m9]"));
  EXPECT_THAT(refused(first, first, [](ClusterState& after) { after.revision = 2; }),
              HasSubstr("no change of the cluster is under way"));

  // Beside a change only its end.
  EXPECT_THAT(refused(adding, Adding(first, "m3"), [](ClusterState& after) { after.revision = 3; }),
              HasSubstr("a change of the cluster is under way: add m2"));
  EXPECT_THAT(refused(adding, Committed(Adding(first, "m3")), nothing), HasSubstr("add m2"));
  EXPECT_THAT(refused(adding, Committed(adding), [](ClusterState& after) { after.revision = 2; }),
              HasSubstr("read it again"));

  EXPECT_THAT(Begin(adding, MapOf({"m0"}), "remove m1").status().message(), HasSubstr("add m2"));
  EXPECT_EQ(Commit(first).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(Cancel(first).status().code(), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace engram::memnode
