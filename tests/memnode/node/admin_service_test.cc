// What a tool may ask of a node, and what it may not.
#include "memnode/node/admin_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "common/base/rng.h"
#include "tests/memnode/fake_loader.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;
using testing::Not;

template <typename Condition>
bool Soon(const Condition& condition) {
  const TimePoint deadline = Clock::Real().Now() + std::chrono::seconds(20);
  while (!condition()) {
    if (Clock::Real().Now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

class AdminServiceTest : public testing::Test {
 protected:
  AdminServiceTest() {
    Upkeep::Options options;
    options.store.mib_per_s = 1000;
    options.store.refresh_period = std::chrono::hours(1);
    upkeep_ = std::make_unique<Upkeep>(&store_, loaded_, metrics_, options);
    CHECK(upkeep_->Start().ok());
    auto opened = VersionManager::Open(store_, loader_, upkeep_->repairer());
    CHECK(opened.ok());
    versions_ = *std::move(opened);
    admin_ = std::make_unique<AdminService>(*versions_, store_, loaded_, *upkeep_, map_, "m0");
  }
  // The job's last word.
  json::object Run(const json::object& request) {
    const auto started = admin_->Call(request);
    if (!started.ok()) return {{"state", "refused"}, {"why", started.status().message()}};
    while (true) {
      const auto job = admin_->Call({{"command", "job"}, {"job", started->at("job")}});
      CHECK(job.ok()) << job.status().ToString();
      if (job->at("state") != "running") return *job;
      std::this_thread::yield();
    }
  }
  std::string ErrorOf(const json::object& request) {
    const auto reply = admin_->Call(request);
    return reply.ok() ? "none" : reply.status().message();
  }
  static json::object Of(const std::string& command, const std::string& version) {
    return {{"command", command}, {"name", "tiny"}, {"version", version}};
  }

  const table::ClusterMap map_ = {.epoch = 3, .members = {"m0", "m1"}};
  MemoryStore store_;
  LoadedTables loaded_;
  obs::Metrics metrics_;
  std::unique_ptr<Upkeep> upkeep_;
  FakeLoader loader_;
  std::unique_ptr<VersionManager> versions_;
  std::unique_ptr<AdminService> admin_;
};

TEST_F(AdminServiceTest, AFolderBecomesAPublishedVersionAndADroppedOne) {
  const std::string folder = FreshFolder("admin_model");
  TinyCheckpoint().Write(folder);
  json::object import = Of("import", "1");
  import["model_path"] = folder;
  import["threads"] = "1";
  import["memory_mib"] = "64";
  const json::object imported = Run(import);
  ASSERT_EQ(imported.at("state"), "done") << imported;
  EXPECT_EQ(imported.at("result").at("digest").as_string().size(), 64u);
  EXPECT_TRUE(Soon([&] {
    return metrics_.GetCounter("engram_memnode_scrub_passes_total", "").Value() >= 1;
  })) << "the scrubber is told of it";

  const json::object before = *admin_->Call({{"command", "versions"}});
  EXPECT_EQ(before.at("member"), "m0");
  EXPECT_EQ(before.at("epoch"), 3);
  EXPECT_EQ(before.at("members"), json::value({"m0", "m1"}));
  ASSERT_EQ(before.at("versions").as_array().size(), 1u);
  EXPECT_EQ(before.at("versions").at(0).at("published"), false);
  EXPECT_EQ(before.at("versions").at(0).at("rows_held"), imported.at("result").at("rows"));

  json::object publish = Of("prepare", "1");
  publish["generation"] = "1";
  EXPECT_EQ(Run(publish).at("state"), "done");
  publish["command"] = "commit";
  EXPECT_EQ(ErrorOf(publish), "none");
  EXPECT_EQ(admin_->Call({{"command", "versions"}})->at("versions").at(0).at("generation"), "1");
  EXPECT_THAT(std::string(Run(Of("drop", "1")).at("error").at("message").as_string()),
              HasSubstr("it is published"));

  import["version"] = "2";
  ASSERT_EQ(Run(import).at("state"), "done");
  EXPECT_EQ(Run(Of("pin", "2")).at("state"), "done");
  EXPECT_EQ(Run(Of("drop", "2")).at("state"), "failed");
  EXPECT_EQ(ErrorOf(Of("unpin", "2")), "none");
  EXPECT_EQ(Run(Of("drop", "2")).at("result"), json::value({{"dropped", true}}));
  EXPECT_EQ(Run(Of("drop", "2")).at("result"), json::value({{"dropped", false}}));
}

TEST_F(AdminServiceTest, AnImportThatFailsSaysWhy) {
  json::object import = Of("import", "1");
  import["model_path"] = "/nowhere/model";
  const json::object job = Run(import);
  EXPECT_EQ(job.at("state"), "failed");
  EXPECT_THAT(std::string(job.at("error").at("message").as_string()), HasSubstr("/nowhere/model"));
}

TEST_F(AdminServiceTest, DamageIsListed) {
  const std::string folder = FreshFolder("admin_damage");
  TinyCheckpoint().Write(folder);
  json::object import = Of("import", "1");
  import["model_path"] = folder;
  ASSERT_EQ(Run(import).at("state"), "done");
  std::filesystem::remove_all(folder);  // what a repair would read
  const LayerPlan layer =
      MakePlan((*FindManifest(store_, "tiny", "1"))->identity, map_, "m0")->layers[0];
  const uint64_t page = layer.owned.front() * layer.PagesPerPartition();
  store_.CorruptPage(TableSetIdOf("tiny", "1"), 0, page);
  EXPECT_EQ(Run(Of("verify", "1")).at("state"), "done") << "and has what it finds looked at";
  const auto listed = [&] { return admin_->Call({{"command", "damage"}})->at("damage"); };
  EXPECT_TRUE(Soon([&] { return !listed().as_array().empty(); }));
  EXPECT_EQ(listed().at(0).at("page").as_string(), std::to_string(page));
  EXPECT_THAT(std::string(listed().at(0).at("why").as_string()),
              HasSubstr("page " + std::to_string(page)));
}

TEST_F(AdminServiceTest, WhatIsWrongWithARequestIsNamed) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("command"));
  EXPECT_THAT(ErrorOf({{"command", 7}}), HasSubstr("command"));
  EXPECT_THAT(ErrorOf(Of("explode", "1")), HasSubstr("\"explode\" is not known"));
  EXPECT_LT(ErrorOf(Of(std::string(100'000, 'x'), "1")).size(), 200u);
  EXPECT_THAT(ErrorOf({{"command", "pin"}, {"name", "tiny"}}), HasSubstr("version"));
  EXPECT_THAT(ErrorOf(Of("pin", "")), HasSubstr("version must be one line of 1..4096 bytes"));
  EXPECT_THAT(ErrorOf(Of("pin", "1\n2")), HasSubstr("version must be one line"));
  EXPECT_THAT(ErrorOf(Of("import", "1")), HasSubstr("model_path"));
  EXPECT_THAT(ErrorOf({{"command", "job"}, {"job", "99"}}), HasSubstr("no job 99"));
  EXPECT_THAT(ErrorOf({{"command", "job"}, {"job", 1}}), HasSubstr("job"));
  for (const char* generation : {"", "x", "1x", "99999999999999999999"}) {
    json::object commit = Of("commit", "1");
    commit["generation"] = generation;
    EXPECT_THAT(ErrorOf(commit), HasSubstr("generation is")) << generation;
  }
  json::object row = Of("row", "1");
  row["layer"] = "4294967297";  // 1, where 32 bits are taken
  row["row"] = "0";
  EXPECT_THAT(ErrorOf(row), HasSubstr("no layer 4294967297"));
}

// The names of one import run together to those of another.
TEST_F(AdminServiceTest, AnImportIsNotTakenForOneWhoseNamesRunTogetherToTheSame) {
  json::object first = Of("import", "1 on 0");
  first["model_path"] = "/nowhere/model";
  json::object second = Of("import", "1");
  second["base"] = "0";
  second["model_path"] = "/nowhere/model";
  const auto a = admin_->Call(first), b = admin_->Call(second);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->at("job"), b->at("job"));
}

TEST_F(AdminServiceTest, ASecondToolIsRefusedByTheFirstOnesName) {
  json::object first = Of("reserve", "1");
  first["token"] = "first";
  first["holder"] = "the publication of version 1 by engramctl on host a, process 7";
  EXPECT_EQ(ErrorOf(first), "none");
  json::object second = first;
  second["token"] = "second";
  EXPECT_THAT(ErrorOf(second), HasSubstr("by engramctl on host a, process 7 is under way"));
  for (const char* command :
       {"prepare", "renew", "promise", "commit", "abort", "drop", "may_drop"}) {
    json::object request = Of(command, "1");
    request["generation"] = "1";
    EXPECT_THAT(ErrorOf(request), HasSubstr("process 7 is under way")) << command;
    request["token"] = "first";
    EXPECT_THAT(ErrorOf(request), Not(HasSubstr("process 7"))) << command;
  }
  second["name"] = "another model";
  EXPECT_EQ(ErrorOf(second), "none");
  first["command"] = "release";
  EXPECT_EQ(ErrorOf(first), "none");
  second["name"] = "tiny";
  EXPECT_EQ(ErrorOf(second), "none");
}

// Any JSON value in any place is answered, and nothing of the store changes by it.
TEST_F(AdminServiceTest, RequestsOfAnyShapeAreAnswered) {
  const std::vector<std::string> commands = {
      "versions", "damage", "job",     "cancel", "commit",  "abort",   "unpin",   "verify",
      "row",      "pin",    "promise", "renew",  "reserve", "release", "may_drop"};
  const std::vector<std::string> keys = {"name", "version", "generation", "job",
                                         "row",  "layer",   "base",       "threads"};
  const std::vector<json::value> values = {
      nullptr, -1, 1e300, true, "", "1", "x\n", json::array{1}, json::object{{"name", "a"}}};
  Rng rng(11);
  for (int round = 0; round < 2000; ++round) {
    json::object request = {{"command", commands[rng.NextBelow(commands.size())]}};
    for (const std::string& key : keys) {
      if (rng.NextBelow(4) != 0) request[key] = values[rng.NextBelow(values.size())];
    }
    (void)admin_->Call(request);
  }
  admin_.reset();
  EXPECT_TRUE(store_.ReadRecords("")->empty());
}

}  // namespace
}  // namespace engram::memnode
