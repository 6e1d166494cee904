#include "common/client/lookup/connect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <thread>
#include <tuple>

#include "common/io/host_port.h"

namespace engram::client {
namespace {

struct Reached {
  std::string address;
  std::unique_ptr<net::ControlClient> control;  // null: it refused
  Status refusal;
  const net::Welcome& welcome() const { return control->welcome(); }
};

net::Hello HelloOf(const net::Transport& transport, const table::TableIdentity& identity) {
  net::Hello hello;
  hello.identity = identity;
  hello.transport = transport.name();
  hello.settings = transport.settings();
  hello.address = transport.address();
  hello.takes_news = true;
  return hello;
}

struct Reach {
  std::vector<Reached> reached;
  std::vector<std::string> unreached;
  std::vector<std::string> strangers;  // nodes that are no members, and what they say
  std::vector<std::string> failures;   // of all that were not reached

  // Names all that were not reached; ok: none.
  Status why() const {
    if (failures.empty()) return OkStatus();
    const std::string what = reached.empty()
                                 ? "no memory node reachable"
                                 : fmt::format("{} of {} memory nodes not reachable",
                                               failures.size(), failures.size() + reached.size());
    return Unavailable(fmt::format("{}: tried {}", what, fmt::join(failures, ", ")));
  }
  // The same where a member is missing; ok: all that was tried answered, as members.
  Status why_not_whole() const {
    if (!failures.empty() || strangers.empty()) return why();
    return Unavailable(
        fmt::format("a member of the cluster was not reached: {}", fmt::join(strangers, "; ")));
  }
};

// A refusal ends it at once, but for a client that wants the current version: a node may have none
// yet that another one has.
Status ReachOne(const LookupClientOptions& options, const net::Hello& hello,
                const std::string& address, Reach& reach) {
  ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(address));
  auto control = net::ControlClient::Connect(where.host, where.port, hello,
                                             std::chrono::milliseconds(options.connect_timeout_ms),
                                             options.security.get());
  if (control.ok()) {
    reach.reached.push_back({address, std::move(*control), OkStatus()});
  } else if (control.status().code() == Code::kNotFound) {
    reach.strangers.push_back(control.status().message());
  } else if (control.status().code() == Code::kFailedPrecondition &&
             hello.identity.version.empty()) {
    reach.reached.push_back({address, nullptr, control.status()});
  } else if (MeansUnreachable(control.status())) {
    reach.failures.push_back(fmt::format("{} ({})", address, control.status().message()));
    reach.unreached.push_back(address);
  } else {
    return control.status();
  }
  return OkStatus();
}

// Tries every address, so that the error names all that are down.
Result<Reach> ReachAll(const LookupClientOptions& options, const net::Hello& hello) {
  Reach reach;
  for (const std::string& address : options.memnodes) {
    RETURN_IF_ERROR(ReachOne(options, hello, address, reach));
  }
  if (!reach.reached.empty()) return reach;
  RETURN_IF_ERROR(reach.why());
  return FailedPrecondition(fmt::format("none of the memory nodes is a member of a cluster: {}",
                                        fmt::join(reach.strangers, "; ")));
}

// Says hello anew. The session before has to end first: a node takes a transport's address once.
Result<std::unique_ptr<net::ControlClient>> ReachAgain(const LookupClientOptions& options,
                                                       const net::Hello& hello, Reached& node) {
  constexpr auto kWait = std::chrono::milliseconds(10);
  node.control.reset();
  ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(node.address));
  const Nanos timeout = std::chrono::milliseconds(options.connect_timeout_ms);
  const TimePoint deadline = Clock::Real().Now() + timeout;
  while (true) {
    auto control =
        net::ControlClient::Connect(where.host, where.port, hello, timeout, options.security.get());
    if (control.ok() || control.status().code() != Code::kAlreadyExists ||
        Clock::Real().Now() > deadline) {
      return control;
    }
    std::this_thread::sleep_for(kWait);
  }
}

// Publications are in one order, by generation and then by the version's name, which every node
// keeps to as well.
auto Publication(const net::Welcome& welcome) {
  return std::tie(welcome.generation, welcome.identity.version);
}

// A client that wants the current version gets one version from all nodes, also while another is
// being published: that of the latest publication any node tells. A node that answered with another
// one is asked for it by name; it is promised there, for nothing is committed before.
Status AgreeOnVersion(const LookupClientOptions& options, net::Hello hello,
                      std::vector<Reached>& reached) {
  const Reached* newest = nullptr;
  for (const Reached& node : reached) {
    if (node.control == nullptr) continue;
    if (newest == nullptr || Publication(newest->welcome()) < Publication(node.welcome())) {
      newest = &node;
    }
  }
  if (newest == nullptr) return reached[0].refusal;
  const std::string first = newest->address;
  hello.identity.version = newest->welcome().identity.version;
  for (Reached& node : reached) {
    if (node.control != nullptr && node.welcome().identity.version == hello.identity.version) {
      continue;
    }
    auto control = ReachAgain(options, hello, node);
    if (!control.ok()) {
      return control.status().WithContext(fmt::format(
          "asked for version \"{}\", which memory node {} has", hello.identity.version, first));
    }
    node.control = std::move(*control);
  }
  return OkStatus();
}

// By the epoch, the latest map that a node told.
const table::ClusterMap& LatestMap(const std::vector<Reached>& reached) {
  const auto latest = std::ranges::max_element(
      reached, {}, [](const Reached& node) { return node.welcome().map.epoch; });
  return latest->welcome().map;
}

// While the cluster's map is changed, some nodes tell the new one first. The others have what it
// takes as well, and are asked for it: it was put in force only when all had it.
Status AgreeOnEpoch(const LookupClientOptions& options, net::Hello hello,
                    std::vector<Reached>& reached) {
  hello.epoch = LatestMap(reached).epoch;
  hello.identity.version = reached[0].welcome().identity.version;
  for (Reached& node : reached) {
    if (node.welcome().map.epoch == hello.epoch) continue;
    auto control = ReachAgain(options, hello, node);
    if (!control.ok()) {
      return control.status().WithContext(fmt::format(
          "asked for epoch {} of the cluster, which another memory node told", hello.epoch));
    }
    node.control = std::move(*control);
  }
  return OkStatus();
}

bool HasMember(const std::vector<Reached>& reached, const std::string& member) {
  return std::ranges::any_of(reached,
                             [&](const Reached& node) { return node.welcome().member == member; });
}

// Members that were not among the addresses given, where the map tells theirs; and nodes that are
// no members any more are left alone.
Status FollowMap(const LookupClientOptions& options, net::Hello hello, Reach& reach) {
  const table::ClusterMap map = LatestMap(reach.reached);
  if (map.addresses.empty()) return OkStatus();
  std::erase_if(reach.reached, [&](const Reached& node) {
    return std::ranges::count(map.members, node.welcome().member) == 0;
  });
  if (reach.reached.empty()) return FailedPrecondition("no member of the cluster was reached");
  hello.epoch = map.epoch;
  hello.identity.version = reach.reached[0].welcome().identity.version;
  for (size_t i = 0; i < map.members.size(); ++i) {
    const bool tried = std::ranges::count(reach.unreached, map.addresses[i]) > 0;
    if (tried || HasMember(reach.reached, map.members[i])) continue;
    RETURN_IF_ERROR(ReachOne(options, hello, map.addresses[i], reach));
  }
  return OkStatus();
}

Status CheckNode(const net::Welcome& welcome, const std::string& address,
                 const table::TableIdentity& identity, const net::Transport& transport) {
  if (welcome.settings != transport.settings()) {
    return FailedPrecondition(
        fmt::format("memory node {} has transport settings \"{}\", this client \"{}\"; they must "
                    "be equal",
                    address, welcome.settings, transport.settings()));
  }
  return table::CheckSameIdentity(identity, welcome.identity,
                                  fmt::format("memory node {}", address));
}

// The first node and each other one must tell the same story.
Status CheckPair(const Reached& first, const Reached& other) {
  const table::TableIdentity& a = first.welcome().identity;
  const table::TableIdentity& b = other.welcome().identity;
  const std::string both = fmt::format("memory nodes {} and {}", first.address, other.address);
  if (a.content_digest != b.content_digest) {
    return FailedPrecondition(fmt::format("{} hold different tables: content digest {} and {}",
                                          both, a.content_digest, b.content_digest));
  }
  if (a.version != b.version) {
    return FailedPrecondition(fmt::format("{} hold different tables: version \"{}\" and \"{}\"",
                                          both, a.version, b.version));
  }
  const table::ClusterMap& ours = first.welcome().map;
  const table::ClusterMap& theirs = other.welcome().map;
  if (table::SamePlacement(ours, theirs)) return OkStatus();
  return FailedPrecondition(fmt::format(
      "{} have different cluster maps: epoch {} of [{}] and epoch {} of [{}]", both, ours.epoch,
      fmt::join(ours.members, ", "), theirs.epoch, fmt::join(theirs.members, ", ")));
}

// The nodes in the map's order: every member once, but for those behind addresses that did not
// answer.
Result<Cluster> InMapOrder(std::vector<Reached> reached, std::vector<std::string> unreached) {
  Cluster cluster;
  cluster.map = reached[0].welcome().map;
  cluster.identity = reached[0].welcome().identity;
  cluster.unplaced = std::move(unreached);
  size_t away = 0;
  for (const std::string& member : cluster.map.members) {
    const auto is_member = [&](const Reached& node) {
      return node.control != nullptr && node.welcome().member == member;
    };
    const auto node = std::find_if(reached.begin(), reached.end(), is_member);
    const size_t index = cluster.labels.size();
    if (node == reached.end() && !cluster.map.addresses.empty()) {
      cluster.labels.push_back(fmt::format("{} ({})", member, cluster.map.addresses[index]));
      cluster.addresses.push_back(cluster.map.addresses[index]);
      cluster.controls.push_back(nullptr);
      continue;
    }
    if (node == reached.end() && ++away > cluster.unplaced.size()) {
      return FailedPrecondition(fmt::format(
          "member {} of the cluster [{}] is not among the {} memory nodes given; name "
          "them all",
          member, fmt::join(cluster.map.members, ", "), reached.size() + cluster.unplaced.size()));
    }
    if (node == reached.end()) {
      cluster.labels.push_back(fmt::format("{} ({})", member, fmt::join(cluster.unplaced, " or ")));
      cluster.addresses.emplace_back();
      cluster.controls.push_back(nullptr);
      continue;
    }
    const auto second = std::find_if(node + 1, reached.end(), is_member);
    if (second != reached.end()) {
      return FailedPrecondition(fmt::format("memory nodes {} and {} both call themselves {}",
                                            node->address, second->address, member));
    }
    cluster.labels.push_back(fmt::format("{} ({})", member, node->address));
    cluster.addresses.push_back(node->address);
    cluster.controls.push_back(std::move(node->control));
  }
  for (const Reached& node : reached) {
    if (node.control == nullptr) continue;
    return FailedPrecondition(
        fmt::format("memory node {} calls itself {}, which is not in the "
                    "cluster [{}]",
                    node.address, node.welcome().member, fmt::join(cluster.map.members, ", ")));
  }
  return cluster;
}

// One that is the member may answer at any address that no other one has.
Result<std::unique_ptr<net::ControlClient>> FindMember(const LookupClientOptions& options,
                                                       Cluster& cluster, size_t node,
                                                       const net::Hello& hello, Nanos timeout) {
  Status last = Unavailable("no address is left for it");
  for (const std::string& address : cluster.unplaced) {
    ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(address));
    auto control =
        net::ControlClient::Connect(where.host, where.port, hello, timeout, options.security.get());
    if (control.ok() && (*control)->welcome().member == cluster.map.members[node]) {
      cluster.addresses[node] = address;
      std::erase(cluster.unplaced, address);
      return control;
    }
    last = control.ok()
               ? Unavailable(fmt::format("{} is member {}", address, (*control)->welcome().member))
               : control.status();
  }
  return last;
}

}  // namespace

Result<Cluster> ConnectCluster(const LookupClientOptions& options,
                               const net::Transport& transport) {
  if (options.memnodes.empty() || options.memnodes.size() > table::kMembersMax) {
    return InvalidArgument(fmt::format("{} memory node addresses given, must be 1..{}",
                                       options.memnodes.size(), table::kMembersMax));
  }
  const net::Hello hello = HelloOf(transport, options.identity);
  ASSIGN_OR_RETURN(Reach reach, ReachAll(options, hello));
  std::vector<Reached>& reached = reach.reached;
  if (options.identity.version.empty()) {
    RETURN_IF_ERROR(AgreeOnVersion(options, hello, reached));
  }
  RETURN_IF_ERROR(AgreeOnEpoch(options, hello, reached));
  RETURN_IF_ERROR(FollowMap(options, hello, reach));
  for (const Reached& node : reached) {
    RETURN_IF_ERROR(CheckNode(node.welcome(), node.address, options.identity, transport));
    RETURN_IF_ERROR(CheckPair(reached[0], node));
  }
  const table::ClusterMap& map = reached[0].welcome().map;
  const bool whole = std::ranges::all_of(
      map.members, [&](const std::string& member) { return HasMember(reached, member); });
  const Status why = whole ? OkStatus() : reach.why_not_whole();
  if (!whole && why.ok() && !map.addresses.empty()) {
    return FailedPrecondition(fmt::format(
        "not every member of [{}] was found: a node at a member's address is another one",
        fmt::join(map.members, ", ")));
  }
  if (map.replicas == 1) RETURN_IF_ERROR(why);
  ASSIGN_OR_RETURN(Cluster cluster, InMapOrder(std::move(reached), std::move(reach.unreached)));
  cluster.unreached = why;
  return cluster;
}

Result<std::unique_ptr<net::ControlClient>> ReachMember(const LookupClientOptions& options,
                                                        Cluster& cluster, size_t node,
                                                        const net::Transport& transport,
                                                        Nanos timeout,
                                                        std::optional<uint32_t>& later) {
  const net::Hello hello = HelloOf(transport, cluster.identity);
  std::unique_ptr<net::ControlClient> control;
  if (cluster.addresses[node].empty()) {
    ASSIGN_OR_RETURN(control, FindMember(options, cluster, node, hello, timeout));
  } else {
    ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(cluster.addresses[node]));
    auto reached =
        net::ControlClient::Connect(where.host, where.port, hello, timeout, options.security.get());
    if (reached.status().code() == Code::kNotFound) later = 0;
    ASSIGN_OR_RETURN(control, std::move(reached));
  }
  const std::string& address = cluster.addresses[node];
  const net::Welcome& welcome = control->welcome();
  if (welcome.map.epoch > cluster.map.epoch) later = welcome.map.epoch;
  RETURN_IF_ERROR(CheckNode(welcome, address, cluster.identity, transport));
  if (welcome.identity.content_digest != cluster.identity.content_digest) {
    return FailedPrecondition(fmt::format("it holds other tables now: content digest {}, was {}",
                                          welcome.identity.content_digest,
                                          cluster.identity.content_digest));
  }
  if (welcome.member != cluster.map.members[node] ||
      !table::SamePlacement(welcome.map, cluster.map)) {
    return FailedPrecondition(fmt::format(
        "it is member {} of the cluster [{}] at epoch {} now, was {} of [{}] at epoch "
        "{}: connect anew",
        welcome.member, fmt::join(welcome.map.members, ", "), welcome.map.epoch,
        cluster.map.members[node], fmt::join(cluster.map.members, ", "), cluster.map.epoch));
  }
  return control;
}

}  // namespace engram::client
