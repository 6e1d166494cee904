// Tests of a membership over a real etcd, and what its watch told.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "memnode/cluster/etcd_membership.h"
#include "tests/memnode/cluster/etcd_server.h"
#include "tests/support/eventually.h"
#include "tests/support/process.h"

namespace engram::memnode {

// What a watch told, in order.
class Told {
 public:
  Membership::Told Take() {
    return [this](const ClusterState& state) {
      const std::lock_guard lock(mutex_);
      EXPECT_TRUE(states_.empty() || states_.back().revision < state.revision);
      states_.push_back(state);
    };
  }
  // Whether the newest is `state`, soon.
  bool Awaits(const ClusterState& state) {
    return testing_support::Eventually([&] {
      const std::lock_guard lock(mutex_);
      return !states_.empty() && states_.back() == state;
    });
  }
  size_t count() {
    const std::lock_guard lock(mutex_);
    return states_.size();
  }

 private:
  std::mutex mutex_;
  std::vector<ClusterState> states_;
};

class EtcdMembershipTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasEtcd()) GTEST_SKIP() << "no /usr/bin/etcd: apt-get install etcd-server";
    folder_ = testing_support::MakeTempDir("etcd");
  }
  void TearDown() override {
    etcd_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  void StartEtcd(size_t servers = 1) {
    etcd_ = std::make_unique<EtcdServers>(folder_, servers);
    etcd_->AwaitAnswers(etcd_->Config());
  }
  std::unique_ptr<EtcdMembership> Member() { return Member(etcd_->Config()); }
  static std::unique_ptr<EtcdMembership> Member(const EtcdConfig& config) {
    auto made = EtcdMembership::Make(config);
    CHECK(made.ok()) << made.status().message();
    return *std::move(made);
  }
  static bool BecomesHealthy(const Membership& member) {
    return testing_support::Eventually([&] { return member.health().ok(); });
  }
  static bool BecomesUnhealthy(const Membership& member) {
    return testing_support::Eventually([&] { return !member.health().ok(); });
  }

  std::string folder_;
  std::unique_ptr<EtcdServers> etcd_;
};

}  // namespace engram::memnode
