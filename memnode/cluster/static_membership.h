// A membership without a keeper: each member keeps its own copy of the cluster's state, in its
// store, and tools propose to all members. Before the first proposal the state is the list of the
// settings.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/worker.h"
#include "memnode/cluster/membership.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

// Written by the first proposal.
inline constexpr std::string_view kClusterStateRecord = "cluster/state";

// The state kept in a store; none: nullopt. DATA_LOSS: it cannot be read.
Result<std::optional<ClusterState>> ReadKeptState(RowStore& store);
Status KeepState(RowStore& store, const ClusterState& state);

class StaticMembership final : public Membership {
 public:
  // Which state is in force, of the record and of `settings`: the one with the higher epoch. Where
  // `settings` wins over a record, an operator overrides what tools did, and the record is
  // replaced. FAILED_PRECONDITION: both have one epoch and are different clusters. DATA_LOSS: the
  // record cannot be read, and stays. `store`: null keeps the state in memory only; else it
  // outlives the membership.
  static Result<std::unique_ptr<StaticMembership>> Open(RowStore* store,
                                                        const table::ClusterMap& settings);
  ~StaticMembership() override { telling_.Stop(); }

  Result<ClusterState> Read() override;
  Status Watch(Told told) override;
  // OK is durable. The state in force, proposed again, is OK too: a tool repeats what it proposed
  // to a part of the members.
  Status Propose(const ClusterState& after) override;
  Status Adopt(const ClusterState& later) override;
  // In this process' memory only.
  Status TellReady(uint64_t revision, const std::string& member) override;
  Result<std::vector<std::string>> Ready(uint64_t revision) override;
  bool shared() const override { return false; }
  Status health() const override { return OkStatus(); }

 private:
  StaticMembership(RowStore* store, ClusterState state) : store_(store), state_(std::move(state)) {}
  Status Replace(const ClusterState& after);
  void TellNewest_on_worker();

  RowStore* const store_;
  std::mutex proposing_;  // held while a proposal is written; taken before mutex_
  std::mutex mutex_;      // guards the next three
  ClusterState state_;
  uint64_t ready_revision_ = 0;  // of the newest change that a member was ready for
  std::set<std::string> ready_;
  Told told_;  // does not change once watched_ is set
  std::atomic<bool> watched_ = false;
  uint64_t told_revision_ = 0;  // the worker's
  bool told_any_ = false;       // the worker's
  Worker telling_{1};           // the one that waits tells the newest
};

}  // namespace engram::memnode
