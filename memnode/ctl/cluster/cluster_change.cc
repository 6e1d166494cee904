#include "memnode/ctl/cluster/cluster_change.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "common/io/object_reader.h"
#include "memnode/ctl/progress_line.h"
#include "memnode/node/random_name.h"

namespace engram::ctl {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(200);
constexpr Nanos kAskTimeout = std::chrono::seconds(3);
// 45 s for what is a matter of a second; members send clients away that stay (cluster.linger_s).
constexpr int kServedLooks = 225;

Status ReadReply(const json::object& reply, ClusterNode& node) {
  io::ObjectReader read(reply, "reply of memory node " + node.address);
  read.String("member", node.member);
  read.String("run", node.run);
  read.Int("epoch", 0, UINT32_MAX, node.epoch);
  read.Bool("shared", node.shared);
  read.String("ready", node.ready);
  read.String("problem", node.problem);
  read.Number("rows_done", node.rows_done);
  read.Number("rows_total", node.rows_total);
  read.Number("bytes", node.bytes);
  read.Number("sessions", node.sessions);
  read.Number("old_sessions", node.old_sessions);
  const json::object& state = read.Object("state");
  RETURN_IF_ERROR(read.status());
  ASSIGN_OR_RETURN(node.state, memnode::StateFromJson(state));
  ASSIGN_OR_RETURN(node.versions, memnode::VersionsFrom(reply));
  return OkStatus();
}

// Of all members of both maps.
std::vector<std::string> AllMembers(const memnode::ClusterState& state) {
  std::vector<std::string> members = state.current.members;
  if (state.next) {
    for (const std::string& member : state.next->members) {
      if (!table::HasMember(state.current, member)) members.push_back(member);
    }
  }
  std::ranges::sort(members);
  return members;
}

}  // namespace

Result<ClusterChange> ClusterChange::Open(const NodeFlags& flags) {
  ClusterChange change;
  change.flags_ = flags;
  RETURN_IF_ERROR(change.Ask(flags.addresses));
  RETURN_IF_ERROR(change.Look());
  // Members that were not named.
  std::vector<std::string> told;
  for (const auto* map :
       {&change.state_.current, change.state_.next ? &*change.state_.next : nullptr}) {
    if (map == nullptr) continue;
    for (size_t i = 0; i < map->addresses.size(); ++i) {
      if (change.Find(map->members[i]) == nullptr) told.push_back(map->addresses[i]);
    }
  }
  if (!told.empty()) RETURN_IF_ERROR(change.Ask(told));
  RETURN_IF_ERROR(change.Look());
  RETURN_IF_ERROR(change.CatchUp());
  return change;
}

Status ClusterChange::AddNode(const std::string& address) {
  RETURN_IF_ERROR(Ask({address}));
  const auto added = std::ranges::find(nodes_, address, &ClusterNode::address);
  RETURN_IF_ERROR(added->error);
  return Look();
}

// Adds nodes and asks these, or, where none are given, all; those that do not answer are kept with
// their error.
Status ClusterChange::Ask(const std::vector<std::string>& addresses) {
  std::vector<size_t> asked;
  for (const std::string& address : addresses) {
    if (std::ranges::count(nodes_, address, &ClusterNode::address) > 0) continue;
    asked.push_back(nodes_.size());
    nodes_.emplace_back().address = address;
  }
  if (nodes_.empty()) return InvalidArgument("no memory nodes are named: --nodes");
  if (addresses.empty()) {
    for (size_t i = 0; i < nodes_.size(); ++i) asked.push_back(i);
  }
  if (asked.empty()) return OkStatus();
  NodeFlags flags = flags_;
  flags.addresses.clear();
  for (const size_t i : asked) flags.addresses.push_back(nodes_[i].address);
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags));
  nodes.AtOnce([&](size_t i) {
    ClusterNode& node = nodes_[asked[i]];
    const auto reply = nodes.Call(i, {{"command", "cluster"}}, kAskTimeout);
    node.error = reply.ok() ? ReadReply(*reply, node) : reply.status();
  });
  return OkStatus();
}

// What the nodes say together.
Status ClusterChange::Look() {
  const ClusterNode* newest = nullptr;
  std::vector<Status> errors;
  for (const ClusterNode& node : nodes_) {
    if (!node.error.ok()) {
      errors.push_back(node.error);
      continue;
    }
    // One that is to be added knows of no cluster.
    const bool joins =
        !table::HasMember(node.state.current, node.member) && node.state.cluster.empty();
    if (joins) continue;
    if (newest != nullptr && !newest->state.cluster.empty() && !node.state.cluster.empty() &&
        newest->state.cluster != node.state.cluster) {
      return FailedPrecondition(
          fmt::format("memory nodes {} and {} are of two clusters ({} and {})", newest->address,
                      node.address, newest->state.cluster, node.state.cluster));
    }
    if (newest == nullptr || node.state.revision > newest->state.revision) newest = &node;
  }
  if (newest == nullptr) {
    const Status all = JoinErrors(errors);
    return all.ok() ? FailedPrecondition("none of these memory nodes is a member of a cluster")
                    : all;
  }
  for (const ClusterNode& node : nodes_) {
    const bool same = node.state.revision != newest->state.revision || node.state == newest->state;
    if (!node.error.ok() || same || node.state.cluster.empty() != newest->state.cluster.empty())
      continue;
    return FailedPrecondition(fmt::format(
        "memory nodes {} and {} have different states of one revision ({}): give all nodes the "
        "same "
        "cluster.members and a cluster.epoch above {}, and start them again",
        newest->address, node.address, node.state.revision, newest->state.current.epoch));
  }
  state_ = newest->state;
  return OkStatus();
}

// Members that missed proposals are told the latest state.
Status ClusterChange::CatchUp() {
  if (state_.cluster.empty()) return OkStatus();
  bool any = false;
  for (const ClusterNode& node : nodes_) {
    const std::vector<std::string> members = AllMembers(state_);
    if (!node.error.ok() || node.shared || node.state.revision >= state_.revision ||
        std::ranges::count(members, node.member) == 0) {
      continue;
    }
    RETURN_IF_ERROR(ProposeTo(node, state_));
    any = true;
  }
  return any ? Ask({}) : OkStatus();
}

const ClusterNode* ClusterChange::Find(const std::string& member) const {
  for (const ClusterNode& node : nodes_) {
    if (node.member == member && node.error.ok()) return &node;
  }
  return nullptr;
}

Result<table::ClusterMap> ClusterChange::Map() const {
  table::ClusterMap map = state_.current;
  if (!map.addresses.empty()) return map;
  for (const std::string& member : map.members) {
    const ClusterNode* const node = Find(member);
    if (node == nullptr) {
      std::vector<Status> errors;
      for (const ClusterNode& one : nodes_) errors.push_back(one.error);
      return FailedPrecondition(
          fmt::format("where member {} is, is not known: name all of [{}] in --nodes{}", member,
                      fmt::join(map.members, ", "),
                      JoinErrors(errors).ok() ? "" : " (" + JoinErrors(errors).message() + ")"));
    }
    map.addresses.push_back(node->address);
  }
  return map;
}

std::vector<table::TableIdentity> ClusterChange::Versions() const {
  std::vector<table::TableIdentity> versions;
  for (const ClusterNode& node : nodes_) {
    if (!node.error.ok()) continue;
    for (const memnode::KeptVersion& kept : node.versions) {
      const bool known = std::ranges::any_of(versions, [&](const table::TableIdentity& one) {
        return one.model == kept.identity.model && one.version == kept.identity.version;
      });
      if (!known) versions.push_back(kept.identity);
    }
  }
  return versions;
}

// The node may have to wait for its disk, or for etcd.
Status ClusterChange::ProposeTo(const ClusterNode& node, const memnode::ClusterState& state) const {
  NodeFlags flags = flags_;
  flags.addresses = {node.address};
  ASSIGN_OR_RETURN(const Nodes one, Nodes::Open(flags));
  return one.Call(0, {{"command", "propose"}, {"state", memnode::ToJson(state)}}).status();
}

// To each member that answers; `needed` must take it. A first one that refuses ends it with nothing
// changed.
Status ClusterChange::Propose(const memnode::ClusterState& after,
                              const std::vector<std::string>& needed) {
  std::vector<std::string> members = AllMembers(after);
  for (const std::string& member : AllMembers(state_)) {
    if (std::ranges::count(members, member) == 0) members.push_back(member);
  }
  std::ranges::sort(members);
  std::vector<Status> errors;
  bool any = false;
  for (const std::string& member : members) {
    const ClusterNode* const node = Find(member);
    const bool need = std::ranges::count(needed, member) > 0;
    if (node == nullptr) {
      if (need) errors.push_back(Unavailable(fmt::format("member {} does not answer", member)));
      continue;
    }
    const Status taken = ProposeTo(*node, after);
    if (!taken.ok()) {
      if (!any) return taken;
      errors.push_back(taken);
      continue;
    }
    any = true;
    if (node->shared) break;
  }
  state_ = after;
  return JoinErrors(errors);
}

Status ClusterChange::Run(const table::ClusterMap& next, const std::string& change) {
  if (state_.next && state_.change == change) return Resume();
  for (const std::string& member : next.members) {
    if (Find(member) != nullptr) continue;
    return FailedPrecondition(fmt::format(
        "member {} does not answer: start it, or take it out first (engramctl remove {})", member,
        member));
  }
  memnode::ClusterState before = state_;
  if (before.cluster.empty()) before.cluster = memnode::RandomName();
  ASSIGN_OR_RETURN(before.current, Map());
  ASSIGN_OR_RETURN(memnode::ClusterState begun, memnode::Begin(before, next, change));
  const Status proposed = Propose(begun, next.members);
  if (!proposed.ok()) {
    if (!(state_ == begun)) return proposed;  // refused by the first
    // Part of the members has begun: taken back there.
    RETURN_IF_ERROR(Ask({}));
    ASSIGN_OR_RETURN(const memnode::ClusterState cancelled, memnode::Cancel(state_));
    const Status undone = Propose(cancelled, {});
    if (!undone.ok()) {
      return proposed.WithContext(
          fmt::format("the change was begun on some members only, run engramctl cancel ({})",
                      undone.message()));
    }
    return proposed.WithContext("nothing has changed");
  }
  return Resume();
}

Status ClusterChange::Resume() {
  if (!state_.next) return FailedPrecondition("no change of the cluster is under way");
  const table::ClusterMap next = *state_.next;
  RETURN_IF_ERROR(AwaitReady());
  if (state_.next) {
    ASSIGN_OR_RETURN(const memnode::ClusterState after, memnode::Commit(state_));
    const Status told = Propose(after, next.members);
    if (!told.ok()) {
      return told.WithContext(fmt::format(
          "epoch {} is in force; members that have not heard of it hear of it when they "
          "start, or by engramctl resume",
          next.epoch));
    }
  }
  return AwaitServed(next);
}

Status ClusterChange::AwaitReady() {
  const memnode::ClusterState begun = state_;
  const std::string revision = std::to_string(begun.revision);
  ProgressLine line(begun.change);
  std::string told;
  while (true) {
    RETURN_IF_ERROR(Ask({}));
    uint64_t done = 0, total = 0, bytes = 0;
    bool ready = true;
    std::string problem;
    for (const std::string& member : begun.next->members) {
      const ClusterNode* const node = Find(member);
      if (node == nullptr) {
        ready = false;
        problem = fmt::format("member {} does not answer", member);
        continue;
      }
      if (node->state.current.epoch >= begun.next->epoch) {  // by its keeper, or another tool
        state_ = node->state;
        return OkStatus();
      }
      if (node->state.revision > begun.revision) {
        return FailedPrecondition("the change was cancelled meanwhile");
      }
      ready = ready && node->ready == revision;
      done += node->rows_done;
      total += node->rows_total;
      bytes += node->bytes;
      if (!node->problem.empty()) problem = fmt::format("{}: {}", member, node->problem);
    }
    if (ready && !nodes_.front().shared) return OkStatus();
    if (!problem.empty() && problem != told) {
      fmt::print(stderr, "{}: waiting, {} (engramctl cancel takes the change back)\n", begun.change,
                 problem);
    }
    told = problem;
    line.Draw(done, std::max<uint64_t>(total, 1), bytes);
    std::this_thread::sleep_for(kLookEvery);
  }
}

Status ClusterChange::AwaitServed(const table::ClusterMap& map) {
  std::string lagging;
  for (int look = 0; look < kServedLooks; ++look) {
    RETURN_IF_ERROR(Ask({}));
    lagging.clear();
    for (const std::string& member : map.members) {
      const ClusterNode* const node = Find(member);
      if (node != nullptr && node->epoch >= map.epoch && node->old_sessions == 0) continue;
      lagging += (lagging.empty() ? "" : ", ") + member;
    }
    if (lagging.empty()) return OkStatus();
    std::this_thread::sleep_for(kLookEvery);
  }
  return Unavailable(fmt::format(
      "epoch {} is in force, but {} does not serve it yet, or has clients of the one before",
      map.epoch, lagging));
}

Status ClusterChange::Cancel() {
  ASSIGN_OR_RETURN(const memnode::ClusterState after, memnode::Cancel(state_));
  return Propose(after, {});
}

Status ClusterChange::AwaitClientsGone(const std::string& member, Nanos at_most) {
  const TimePoint until = Clock::Real().Now() + at_most;
  while (true) {
    RETURN_IF_ERROR(Ask({}));
    const ClusterNode* const node = Find(member);
    if (node == nullptr || node->sessions == 0) return OkStatus();
    if (Clock::Real().Now() > until) {
      return DeadlineExceeded(fmt::format("{} clients still read from {}", node->sessions, member));
    }
    std::this_thread::sleep_for(kLookEvery);
  }
}

}  // namespace engram::ctl
