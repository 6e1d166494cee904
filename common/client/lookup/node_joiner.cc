#include "common/client/lookup/node_joiner.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/base/sha256.h"
#include "common/client/lookup/path_calibration.h"
#include "common/io/host_port.h"
#include "common/net/tcp/transport.h"

namespace engram::client {
namespace {

// Of each step of coming back: a node that does not answer must not keep the others waiting.
constexpr Nanos kRejoinTimeout = std::chrono::seconds(1);

}  // namespace

NodeJoiner::NodeJoiner(const LookupClientOptions& options, Cluster cluster,
                       const PlanContext& context, LookupLoop& loop,
                       std::function<void(uint32_t)> on_later_epoch, const Clock& clock)
    : options_(options),
      cluster_(std::move(cluster)),
      context_(context),
      loop_(loop),
      on_later_epoch_(std::move(on_later_epoch)),
      clock_(clock) {}

Result<std::vector<uint32_t>> NodeJoiner::JoinAll() {
  std::vector<uint32_t> away;
  std::vector<bool> is_away(cluster_.controls.size());
  Status why = cluster_.unreached;
  for (uint32_t node = 0; node < cluster_.controls.size(); ++node) {
    std::unique_ptr<net::ControlClient> control = std::move(cluster_.controls[node]);
    if (control == nullptr) {
      loop_.GiveUp(node, cluster_.unreached);
      away.push_back(node);
      is_away[node] = true;
      continue;
    }
    const std::vector<net::KnownAnswer>& known = control->welcome().known_answers;
    known_answers_.insert(known_answers_.end(), known.begin(), known.end());
    const Status joined =
        Join(node, std::move(control), std::chrono::milliseconds(options_.connect_timeout_ms));
    if (joined.ok()) continue;
    if (context_.owners.replicas() == 1 || !MeansUnreachable(joined)) return joined;
    loop_.GiveUp(node, joined);
    away.push_back(node);
    is_away[node] = true;
    why = joined;
  }
  const auto lost = context_.owners.FirstWithoutOwner(is_away);
  if (!lost) return away;
  return why.WithContext(fmt::format("no owner of partition {} of layer {} was reached",
                                     lost->partition, context_.LayerId(lost->layer_index)));
}

Status NodeJoiner::Rejoin(uint32_t node) {
  const Nanos timeout =
      std::min<Nanos>(std::chrono::milliseconds(options_.connect_timeout_ms), kRejoinTimeout);
  std::optional<uint32_t> later;
  auto control = ReachMember(options_, cluster_, node, loop_.transport(), timeout, later);
  if (later && on_later_epoch_) on_later_epoch_(*later);
  const Status joined = control.ok() ? Join(node, std::move(*control), timeout) : control.status();
  if (!joined.ok()) loop_.GiveUp(node, joined);
  return joined;
}

Status NodeJoiner::Join(uint32_t node, std::unique_ptr<net::ControlClient> control, Nanos timeout) {
  const net::Welcome welcome = control->welcome();
  const std::string& label = cluster_.labels[node];
  ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(cluster_.addresses[node]));
  NodeConnection connection;
  connection.control = std::move(control);
  auto data = loop_.transport().Dial(net::WithHost(welcome.address, where.host), timeout);
  if (!data.ok()) return data.status().WithContext("memory node " + label);
  connection.data = std::move(*data);
  ASSIGN_OR_RETURN(connection.paths,
                   OpenPaths(options_.path, welcome, context_.layout, label, timeout));
  const Status attached = loop_.Attach(node, std::move(connection));
  if (!attached.ok()) return attached.WithContext("memory node " + label);
  const std::shared_ptr<const NodePaths> paths = (*loop_.view())[node].paths;
  if (paths == nullptr) return Unavailable("memory node " + label + " was lost at once");
  if (options_.check_rows) {
    RETURN_IF_ERROR(Prove(node, *paths, welcome.known_answers, clock_.Now() + timeout));
  }
  ASSIGN_OR_RETURN(const PathCosts costs,
                   MeasurePaths(loop_, node, *paths, context_, clock_.Now() + timeout, clock_));
  return loop_.Open(node, costs);
}

// Over each path that lookups may take.
Status NodeJoiner::Prove(uint32_t node, const NodePaths& paths,
                         const std::vector<net::KnownAnswer>& known, TimePoint deadline) {
  for (const Path path : {Path::kLocal, Path::kGather, Path::kOneSided}) {
    if (!paths.is_open(path) || (paths.forced && *paths.forced != path)) continue;
    RETURN_IF_ERROR(CheckKnown(node, path, known, deadline));
  }
  return OkStatus();
}

// Fetches the rows that the node vouches for over the data path and compares. DATA_LOSS names
// node, layer and row.
Status NodeJoiner::CheckKnown(uint32_t node, Path path, const std::vector<net::KnownAnswer>& known,
                              TimePoint deadline) {
  std::vector<std::byte> bytes(context_.layout.row_format.row_bytes());
  for (const net::KnownAnswer& answer : known) {
    const auto& layers = context_.layout.layers;
    const bool exists =
        answer.layer_index < layers.size() && answer.row < layers[answer.layer_index].total_rows;
    const auto owners =
        exists ? context_.OwnersOf(answer.layer_index, answer.row) : std::span<const uint16_t>();
    if (std::find(owners.begin(), owners.end(), node) == owners.end()) {
      return OutOfRange(fmt::format("memory node {} vouches for row {} of layer {}, which {}",
                                    cluster_.labels[node], answer.row, answer.layer_index,
                                    exists ? "is another member's" : "does not exist"));
    }
    const LayerLookup lookup = {answer.layer_index, {&answer.row, 1}, bytes};
    RETURN_IF_ERROR(loop_.Ask(node, path, lookup, deadline).WithContext("checking known rows"));
    Sha256 sha;
    sha.Update(std::span<const std::byte>(bytes));
    const std::string found = ToHex(sha.Finish());
    if (found == answer.sha256_hex) continue;
    return DataLoss(fmt::format(
        "row {} of layer {} came with SHA-256 {} over the data path, but memory node {} says {}",
        answer.row, answer.layer_index, found, cluster_.labels[node], answer.sha256_hex));
  }
  return OkStatus();
}

}  // namespace engram::client
