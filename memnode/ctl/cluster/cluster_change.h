// Changes of a cluster's map, carried out over its members (memnode/cluster/cluster_state.h says by
// which steps). Where each member keeps its own copy of the state, the tool proposes each step to
// all of them, in the order of their names, so that of two tools that begin at once one is refused
// before anything has changed; where one keeper reaches all, to one.
//
// A tool that dies leaves the change under way: Resume ends it, Cancel takes it back.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "memnode/cluster/cluster_state.h"
#include "memnode/cluster/peers.h"
#include "memnode/ctl/nodes.h"

namespace engram::ctl {

// One node, as it answered last.
struct ClusterNode {
  std::string address;
  std::string member;  // empty: it never answered
  Status error;        // of the last call
  memnode::ClusterState state;
  bool shared = false;
  uint32_t epoch = 0;  // served
  std::string ready;   // revision of the change it is ready for
  std::string run, problem;
  uint64_t rows_done = 0, rows_total = 0, bytes = 0;
  uint64_t sessions = 0, old_sessions = 0;  // old: that read by an earlier map
  std::vector<memnode::KeptVersion> versions;
};

class ClusterChange {
 public:
  // Asks all nodes named, and those that the map tells the addresses of. Members that lag behind
  // are told the latest state. UNAVAILABLE: none answers; FAILED_PRECONDITION: they are not of one
  // cluster.
  static Result<ClusterChange> Open(const NodeFlags& flags);

  const memnode::ClusterState& state() const { return state_; }
  // The map in force, with an address for each member that is known.
  Result<table::ClusterMap> Map() const;
  // Null: no node of this name has answered.
  const ClusterNode* Find(const std::string& member) const;
  std::vector<table::TableIdentity> Versions() const;
  // A node that is to be added; asked as the others are.
  Status AddNode(const std::string& address);

  // Begins, waits until all members of `next` are ready, and puts it in force. A change of the same
  // name that is under way is gone on with. FAILED_PRECONDITION: another one is, or members are
  // away that `next` has.
  Status Run(const table::ClusterMap& next, const std::string& change);
  // Goes on with the change that is under way. FAILED_PRECONDITION: none is.
  Status Resume();
  Status Cancel();
  // Returns when the node's clients have left, or after `at_most`.
  Status AwaitClientsGone(const std::string& member, Nanos at_most);

 private:
  Status Ask(const std::vector<std::string>& addresses);
  Status Look();
  Status CatchUp();
  Status ProposeTo(const ClusterNode& node, const memnode::ClusterState& state) const;
  Status Propose(const memnode::ClusterState& after, const std::vector<std::string>& needed);
  Status AwaitReady();
  Status AwaitServed(const table::ClusterMap& map);

  NodeFlags flags_;
  std::vector<ClusterNode> nodes_;  // ascending by member once they have answered
  memnode::ClusterState state_;     // the latest
};

}  // namespace engram::ctl
