#include "common/client/lookup/connect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <thread>
#include <tuple>

#include "common/base/sha256.h"
#include "common/net/tcp/transport.h"

namespace engram::client {
namespace {

struct Reached {
  std::string address;
  std::string host;
  std::unique_ptr<net::ControlClient> control;  // null: it refused
  Status refusal;
  const net::Welcome& welcome() const { return control->welcome(); }
};

bool MeansUnreachable(const Status& status) {
  return status.code() == Code::kUnavailable || status.code() == Code::kDeadlineExceeded;
}

// Tries every address, so that the error names all that are down. A refusal ends it at once, but
// for a client that wants the current version: a node may have none yet that another one has.
Result<std::vector<Reached>> ReachAll(const LookupClientOptions& options, const net::Hello& hello) {
  std::vector<Reached> reached;
  std::vector<std::string> failures;
  for (const std::string& address : options.memnodes) {
    ASSIGN_OR_RETURN(const net::HostPort where, net::ParseHostPort(address));
    auto control = net::ControlClient::Connect(
        where.host, where.port, hello, std::chrono::milliseconds(options.connect_timeout_ms),
        options.security.get());
    if (control.ok()) {
      reached.push_back({address, where.host, std::move(*control), OkStatus()});
    } else if (control.status().code() == Code::kFailedPrecondition &&
               hello.identity.version.empty()) {
      reached.push_back({address, where.host, nullptr, control.status()});
    } else if (MeansUnreachable(control.status())) {
      failures.push_back(fmt::format("{} ({})", address, control.status().message()));
    } else {
      return control.status();
    }
  }
  if (failures.empty()) return reached;
  const std::string what = reached.empty() ? "no memory node reachable"
                                           : fmt::format("{} of {} memory nodes not reachable",
                                                         failures.size(), options.memnodes.size());
  return Unavailable(fmt::format("{}: tried {}", what, fmt::join(failures, ", ")));
}

// Says hello anew. The session before has to end first: a node takes a transport's address once.
Result<std::unique_ptr<net::ControlClient>> ReachAgain(const LookupClientOptions& options,
                                                       const net::Hello& hello, Reached& node) {
  constexpr auto kWait = std::chrono::milliseconds(10);
  node.control.reset();
  ASSIGN_OR_RETURN(const net::HostPort where, net::ParseHostPort(node.address));
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

Status CheckNode(const Reached& node, const LookupClientOptions& options,
                 const net::Transport& transport) {
  const net::Welcome& welcome = node.welcome();
  if (welcome.settings != transport.settings()) {
    return FailedPrecondition(
        fmt::format("memory node {} has transport settings \"{}\", this client \"{}\"; they must "
                    "be equal",
                    node.address, welcome.settings, transport.settings()));
  }
  return table::CheckSameIdentity(options.identity, welcome.identity,
                                  fmt::format("memory node {}", node.address));
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
  if (ours == theirs) return OkStatus();
  return FailedPrecondition(fmt::format(
      "{} have different cluster maps: epoch {} of [{}] and epoch {} of [{}]", both, ours.epoch,
      fmt::join(ours.members, ", "), theirs.epoch, fmt::join(theirs.members, ", ")));
}

// Every member of the map answered exactly once; the nodes come back in the map's order.
Result<Cluster> InMapOrder(std::vector<Reached> reached) {
  Cluster cluster;
  cluster.map = reached[0].welcome().map;
  for (const std::string& member : cluster.map.members) {
    const auto is_member = [&](const Reached& node) {
      return node.control != nullptr && node.welcome().member == member;
    };
    const auto node = std::find_if(reached.begin(), reached.end(), is_member);
    if (node == reached.end()) {
      return FailedPrecondition(fmt::format(
          "member {} of the cluster [{}] is not among the {} memory nodes given; name them all",
          member, fmt::join(cluster.map.members, ", "), reached.size()));
    }
    const auto second = std::find_if(node + 1, reached.end(), is_member);
    if (second != reached.end()) {
      return FailedPrecondition(fmt::format("memory nodes {} and {} both call themselves {}",
                                            node->address, second->address, member));
    }
    cluster.labels.push_back(fmt::format("{} ({})", member, node->address));
    cluster.hosts.push_back(node->host);
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

}  // namespace

Result<Cluster> ConnectCluster(const LookupClientOptions& options,
                               const net::Transport& transport) {
  if (options.memnodes.empty() || options.memnodes.size() > table::kMembersMax) {
    return InvalidArgument(fmt::format("{} memory node addresses given, must be 1..{}",
                                       options.memnodes.size(), table::kMembersMax));
  }
  net::Hello hello;
  hello.identity = options.identity;
  hello.transport = transport.name();
  hello.settings = transport.settings();
  hello.address = transport.address();
  ASSIGN_OR_RETURN(std::vector<Reached> reached, ReachAll(options, hello));
  if (options.identity.version.empty()) {
    RETURN_IF_ERROR(AgreeOnVersion(options, hello, reached));
  }
  for (const Reached& node : reached) {
    RETURN_IF_ERROR(CheckNode(node, options, transport));
    RETURN_IF_ERROR(CheckPair(reached[0], node));
  }
  return InMapOrder(std::move(reached));
}

Result<std::vector<NodeLink>> LinkNodes(Cluster cluster, const LookupClientOptions& options,
                                        const table::TableLayout& layout,
                                        net::Transport& transport) {
  std::vector<NodeLink> links;
  for (size_t node = 0; node < cluster.controls.size(); ++node) {
    const net::Welcome& welcome = cluster.controls[node]->welcome();
    NodeLink link;
    link.label = cluster.labels[node];
    const Result<net::PeerId> peer =
        transport.Connect(net::WithHost(welcome.address, cluster.hosts[node]));
    if (!peer.ok()) return peer.status().WithContext(fmt::format("memory node {}", link.label));
    link.peer = *peer;
    ASSIGN_OR_RETURN(link.paths,
                     OpenPaths(options.path, welcome, layout, link.label, transport, link.peer,
                               std::chrono::milliseconds(options.connect_timeout_ms)));
    link.control = std::move(cluster.controls[node]);
    links.push_back(std::move(link));
  }
  return links;
}

std::vector<KnownRow> KnownRowsOf(const Cluster& cluster) {
  std::vector<KnownRow> known;
  for (size_t node = 0; node < cluster.controls.size(); ++node) {
    for (const net::KnownAnswer& answer : cluster.controls[node]->welcome().known_answers) {
      known.push_back({cluster.labels[node], answer});
    }
  }
  return known;
}

Status CheckKnownRows(RowSource& source, const std::vector<KnownRow>& known,
                      const table::TableLayout& layout, TimePoint deadline) {
  struct Asked {
    std::vector<uint64_t> rows;
    std::vector<const KnownRow*> known;
    std::vector<std::byte> bytes;
  };
  const size_t row_bytes = layout.row_format.row_bytes();
  std::vector<Asked> layers(layout.layers.size());
  for (const KnownRow& row : known) {
    const net::KnownAnswer& answer = row.answer;
    if (answer.layer_index >= layers.size() ||
        answer.row >= layout.layers[answer.layer_index].total_rows) {
      return OutOfRange(
          fmt::format("memory node {} vouches for row {} of layer {}, which does not exist",
                      row.node, answer.row, answer.layer_index));
    }
    layers[answer.layer_index].rows.push_back(answer.row);
    layers[answer.layer_index].known.push_back(&row);
  }
  std::vector<LayerLookup> lookups;
  for (uint32_t i = 0; i < layers.size(); ++i) {
    layers[i].bytes.resize(layers[i].rows.size() * row_bytes);
    lookups.push_back({i, layers[i].rows, layers[i].bytes});
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Ticket> ticket, source.Submit(lookups, deadline));
  for (uint32_t i = 0; i < layers.size(); ++i) {
    const Status arrived = ticket->Wait(i);
    if (!arrived.ok()) return arrived.WithContext("checking known rows");
    for (size_t k = 0; k < layers[i].known.size(); ++k) {
      const KnownRow& row = *layers[i].known[k];
      Sha256 sha;
      sha.Update(std::span<const std::byte>(layers[i].bytes).subspan(k * row_bytes, row_bytes));
      const std::string found = ToHex(sha.Finish());
      if (found == row.answer.sha256_hex) continue;
      return DataLoss(fmt::format(
          "row {} of layer {} came with SHA-256 {} over the data path, but memory node {} says {}",
          row.answer.row, i, found, row.node, row.answer.sha256_hex));
    }
  }
  return OkStatus();
}

}  // namespace engram::client
