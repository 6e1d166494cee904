// kill -9 at random points: a node always starts again, a version that was published is still there
// bit for bit, and what is not complete is never served.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>
#include <tuple>

#include "common/base/rng.h"
#include "memnode/store/rocks_store.h"
#include "tests/e2e/durable_node.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::steady_clock;
using testing_support::CompareServedRows;
using testing_support::CompleteVersions;
using testing_support::DurableNode;
using testing_support::Process;
using testing_support::SpreadPoints;

class Durability : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("durability");
    model_ = testing_support::MakeTables(work_dir_, 1);
    store_ = work_dir_ + "/store";
  }
  void TearDown() override { std::filesystem::remove_all(work_dir_); }

  // The content digest of a folder, from an undisturbed import; and how long it took to be ready.
  std::string DigestOf(const std::string& model_dir, microseconds* took = nullptr) {
    const std::string store = work_dir_ + "/undisturbed";
    DurableNode node(work_dir_, store);
    const auto begin = steady_clock::now();
    EXPECT_TRUE(node.StartReady(model_dir)) << node.process().Stderr();
    if (took != nullptr) *took = duration_cast<microseconds>(steady_clock::now() - begin);
    node.Stop();
    const auto versions = CompleteVersions(store);
    EXPECT_TRUE(versions.ok()) << versions.status().message();
    std::filesystem::remove_all(store);
    return versions.ok() && versions->contains("1") ? versions->at("1") : "none";
  }

  std::string work_dir_;
  std::string model_;
  std::string store_;
};

TEST_F(Durability, ImportKilledAnywhereEndsCompleteAndRight) {
  microseconds span{};
  const std::string digest = DigestOf(model_, &span);
  DurableNode node(work_dir_, store_);
  int complete = 0;
  for (const microseconds point : SpreadPoints(span, 14, /*seed=*/11)) {
    Process& process = node.Start(model_);
    std::this_thread::sleep_for(point);
    ASSERT_TRUE(process.Running()) << process.Stderr();
    node.Kill();
    if (!std::filesystem::exists(store_ + "/CURRENT")) continue;  // killed before it opened
    const auto versions = CompleteVersions(store_);
    ASSERT_TRUE(versions.ok()) << "killed after " << point.count()
                               << " us: " << versions.status().message();
    if (versions->empty()) continue;  // not complete, and does not say that it is
    ASSERT_EQ(versions->at("1"), digest);
    ++complete;
    std::filesystem::remove_all(store_);
  }
  RecordProperty("killed_after_it_was_complete", complete);
  ASSERT_TRUE(node.StartReady(model_)) << node.process().Stderr();
  const Status served = CompareServedRows(node.control(), model_, "1", 500, 1);
  EXPECT_TRUE(served.ok()) << served.message();
  node.Stop();
  EXPECT_EQ(CompleteVersions(store_)->at("1"), digest);
}

// Two versions take turns: import the other one, publish it, drop the first. Each round is killed
// somewhere, and the next one starts from what was left.
class PublishKilled : public Durability {
 protected:
  void SetUp() override {
    Durability::SetUp();
    node_ = std::make_unique<DurableNode>(work_dir_, store_);
    folders_ = {{"1", model_}, {"2", testing_support::MakeTables(work_dir_, 2)}};
    for (const auto& [version, folder] : folders_) digests_[version] = DigestOf(folder);
    ASSERT_NE(digests_["1"], digests_["2"]);
    ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
    node_->Stop();
  }

  struct Versions {
    std::string published;
    uint64_t generation = 0;
    std::map<std::string, bool> complete;
  };
  // Fails the test unless exactly one version is published, and that one is served.
  Versions Look() {
    Versions versions;
    const auto reply = node_->Call({{"command", "versions"}});
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    if (!reply.ok()) return versions;
    for (const json::value& value : reply->at("versions").as_array()) {
      const json::object& info = value.as_object();
      const std::string version(info.at("version").as_string());
      if (info.at("incomplete").as_bool()) continue;  // what a killed import left
      versions.complete[version] = true;
      EXPECT_EQ(info.at("digest").as_string(), digests_[version]);
      if (!info.at("published").as_bool()) continue;
      EXPECT_EQ(versions.published, "") << "two versions are published";
      versions.published = version;
      versions.generation = std::stoull(std::string(info.at("generation").as_string()));
      EXPECT_EQ(info.at("problem").as_string(), "");
    }
    EXPECT_NE(versions.published, "");
    return versions;
  }

  enum class Step { kImport, kPublish, kDrop };
  // Ends early when the node dies.
  struct Round {
    bool imported = false;
    bool committed = false;
    Status status;
  };
  Round TakeTurns(const Versions& now, const std::function<void(Step)>& before) {
    const std::string next = now.published == "1" ? "2" : "1";
    const std::string generation = std::to_string(now.generation + 1);
    Round round;
    const auto job = [&](json::object request) {
      request["name"] = testing_support::kTables;
      round.status = node_->Job(request).status();
      return round.status.ok();
    };
    before(Step::kImport);
    round.imported =
        job({{"command", "import"}, {"version", next}, {"model_path", folders_[next]}});
    before(Step::kPublish);
    round.committed =
        round.imported &&
        job({{"command", "prepare"}, {"version", next}, {"generation", generation}}) &&
        job({{"command", "commit"}, {"version", next}, {"generation", generation}});
    before(Step::kDrop);
    if (round.committed) job({{"command", "drop"}, {"version", now.published}});
    return round;
  }

  // One round, killed `point` after a step has begun. Says what was under way.
  std::string KilledRound(Step step, microseconds point) {
    EXPECT_TRUE(node_->StartReady("")) << node_->process().Stderr();
    const Versions before = Look();
    const Status served =
        CompareServedRows(node_->control(), folders_[before.published], before.published, 20, 3);
    EXPECT_TRUE(served.ok()) << served.message();
    std::promise<void> begin;
    std::thread killer([&] {
      begin.get_future().wait();
      std::this_thread::sleep_for(point);
      node_->process().Signal(SIGKILL);
    });
    const Round round = TakeTurns(before, [&](Step now) {
      if (now == step) begin.set_value();
    });
    killer.join();
    node_->Kill();
    ExpectRightInStore(round.committed ? "" : before.published);
    EXPECT_TRUE(node_->StartReady("")) << node_->process().Stderr();
    const Versions after = Look();
    EXPECT_TRUE(after.published == before.published ? !round.committed
                                                    : after.generation > before.generation)
        << "published before " << before.published << ", after " << after.published;
    node_->Kill();
    if (round.status.ok()) return "whole round";
    return round.committed ? "dropping" : round.imported ? "publishing" : "importing";
  }

  // The store between two runs: whatever is complete is right.
  void ExpectRightInStore(const std::string& published) {
    const auto versions = CompleteVersions(store_);
    ASSERT_TRUE(versions.ok()) << versions.status().message();
    for (const auto& [version, digest] : *versions) EXPECT_EQ(digest, digests_[version]);
    if (!published.empty()) {
      EXPECT_TRUE(versions->contains(published)) << published;
    }
  }

  std::map<std::string, std::string> folders_, digests_;
  std::unique_ptr<DurableNode> node_;
};

TEST_F(PublishKilled, APublishedVersionIsNeverLostAndAPartialOneNeverServed) {
  ASSERT_TRUE(node_->StartReady("")) << node_->process().Stderr();
  std::map<Step, steady_clock::time_point> begin;
  const Round undisturbed =
      TakeTurns(Look(), [&](Step step) { begin[step] = steady_clock::now(); });
  const auto end = steady_clock::now();
  ASSERT_TRUE(undisturbed.status.ok()) << undisturbed.status.message();
  EXPECT_EQ(Look().complete.size(), 1u) << "the other one was dropped";
  node_->Stop();
  const std::tuple<Step, steady_clock::duration, int> plan[] = {
      {Step::kImport, begin[Step::kPublish] - begin[Step::kImport], 6},
      {Step::kPublish, begin[Step::kDrop] - begin[Step::kPublish], 10},
      {Step::kDrop, end - begin[Step::kDrop], 6}};
  std::map<std::string, int> ends;
  for (const auto& [step, span, count] : plan) {
    for (const microseconds point :
         SpreadPoints(duration_cast<microseconds>(span), count, /*seed=*/12)) {
      ++ends[KilledRound(step, point)];
      if (HasFailure()) return;
    }
  }
  for (const auto& [where, count] : ends) RecordProperty(where, count);
}

// Bits rot while the node is down; it is killed while it loads, scrubs and repairs.
TEST_F(Durability, RepairKilledAnywhereEndsWhole) {
  const std::string digest = DigestOf(model_);
  DurableNode node(work_dir_, store_);
  node.Set("store.scrub_mib_s=1000");
  ASSERT_TRUE(node.StartReady(model_)) << node.process().Stderr();
  node.Stop();
  const auto damage = [&](uint64_t seed) {
    const auto files = testing_support::PageFiles(store_);
    ASSERT_GE(files.size(), 2u);
    const std::string& file = files[seed % files.size()];
    const uint64_t size = std::filesystem::file_size(file);
    testing_support::FlipBit(file, Mix64(seed) % (size / 10 * 9));
  };
  damage(0);
  const auto begin = steady_clock::now();
  ASSERT_TRUE(node.StartReady("")) << node.process().Stderr();
  const auto span = duration_cast<microseconds>(steady_clock::now() - begin);
  node.Stop();
  for (const microseconds point : SpreadPoints(span + span / 4, 14, /*seed=*/13)) {
    damage(static_cast<uint64_t>(point.count()));
    Process& process = node.Start("");
    std::this_thread::sleep_for(point);
    ASSERT_TRUE(process.Running()) << process.Stderr();
    node.Kill();
    // Opens, whatever was under way; an exchange of files that was cut short is ended by it.
    const Status opened = memnode::OpenRocksStore(store_).status();
    ASSERT_TRUE(opened.ok()) << opened.message();
  }
  ASSERT_TRUE(node.StartReady("")) << node.process().Stderr();
  const Status served = CompareServedRows(node.control(), model_, "1", 500, 1);
  EXPECT_TRUE(served.ok()) << served.message();
  node.Stop();
  const auto versions = CompleteVersions(store_);
  ASSERT_TRUE(versions.ok()) << versions.status().message();
  EXPECT_EQ(versions->at("1"), digest);
}

}  // namespace
}  // namespace engram
