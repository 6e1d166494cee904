#include "common/client/lookup/epoch_client.h"

#include <fmt/format.h>

#include <cstddef>

#include "common/client/lookup/cluster_view.h"
#include "common/client/lookup/connect.h"
#include "common/client/lookup/loop.h"
#include "common/client/lookup/node_joiner.h"
#include "common/client/lookup/plan.h"
#include "common/client/lookup/redialer.h"
#include "common/client/lookup/step.h"

namespace engram::client {

EpochClient::EpochClient(std::shared_ptr<const PlanContext> context)
    : context_(std::move(context)) {}

EpochClient::~EpochClient() {
  if (redialer_ != nullptr) redialer_->Stop();
}

Result<std::shared_ptr<EpochClient>> EpochClient::Connect(const LookupClientOptions& options,
                                                          const table::TableLayout& layout,
                                                          OnLaterEpoch on_later_epoch,
                                                          const Clock& clock) {
  ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport, options.make_transport());
  ASSIGN_OR_RETURN(Cluster cluster, ConnectCluster(options, *transport));
  PlanContext context = MakePlanContext(layout, cluster.map, cluster.labels);
  context.check_rows = options.check_rows;
  std::shared_ptr<EpochClient> client(
      new EpochClient(std::make_shared<const PlanContext>(std::move(context))));
  client->identity_ = cluster.identity;
  client->members_ = cluster.map.members;
  client->epoch_ = cluster.map.epoch;
  client->addresses_ = cluster.addresses;
  client->addresses_.insert(client->addresses_.end(), cluster.unplaced.begin(),
                            cluster.unplaced.end());

  EpochClient* const self = client.get();
  LookupLoop::Options loop_options;
  loop_options.requests_max = options.inflight_requests_max;
  loop_options.spin = std::chrono::microseconds(options.spin_us);
  loop_options.probe_timeout = std::chrono::milliseconds(options.probe_timeout_ms);
  loop_options.hedge = std::chrono::microseconds(options.hedge_us);
  loop_options.on_lost = [self](uint32_t node) { self->redialer_->Lost(node); };
  loop_options.on_later_epoch = on_later_epoch;
  client->loop_ = std::make_unique<LookupLoop>(std::move(loop_options), client->context_,
                                               client->epoch_, std::move(transport), clock);
  RETURN_IF_ERROR(client->loop_->started());
  client->joiner_ = std::make_unique<NodeJoiner>(options, std::move(cluster), *client->context_,
                                                 *client->loop_, std::move(on_later_epoch), clock);
  client->redialer_ = std::make_unique<Redialer>(
      client->members_.size(), [self](uint32_t node) { return self->joiner_->Rejoin(node); },
      clock);
  RETURN_IF_ERROR(client->redialer_->started());
  ASSIGN_OR_RETURN(const std::vector<uint32_t> away, client->joiner_->JoinAll());
  for (const uint32_t node : away) client->redialer_->Lost(node);
  return client;
}

std::vector<std::string> EpochClient::addresses() const {
  std::vector<std::string> known;
  for (const std::string& address : addresses_) {
    if (!address.empty()) known.push_back(address);
  }
  return known;
}

bool EpochClient::busy() const { return loop_->requests_under_way() > 0; }

void EpochClient::ResetCounters() {
  rows_asked_ = 0;
  rows_distinct_ = 0;
  for (NodeCounters& counters : loop_->counters()) counters.Reset();
}

Result<Ticket> EpochClient::Submit(std::span<const LayerLookup> layers,
                                   const SubmitOptions& options) {
  const std::shared_ptr<const ClusterView> view = loop_->view();
  size_t rows = 0;
  for (const LayerLookup& layer : layers) rows += layer.rows.size();
  if (AllLocal(*view, rows)) {
    RETURN_IF_ERROR(CheckLookups(context_->layout, layers));
    Status gathered;
    for (const LayerLookup& layer : layers) {
      if (gathered.ok()) gathered = GatherLocally(*context_, *view, loop_->counters(), layer);
    }
    // A damaged row may be sound at another owner: the long way finds out.
    if (gathered.code() == Code::kDataLoss && context_->owners.replicas() > 1) {
      return SubmitPlanned(layers, options, *view);
    }
    RETURN_IF_ERROR(gathered);
    rows_asked_.fetch_add(rows, std::memory_order_relaxed);
    rows_distinct_.fetch_add(rows, std::memory_order_relaxed);
    return Ticket::Done(layers);
  }
  return SubmitPlanned(layers, options, *view);
}

Result<Ticket> EpochClient::SubmitPlanned(std::span<const LayerLookup> layers,
                                          const SubmitOptions& options, const ClusterView& view) {
  StepRef step = loop_->steps()->Take();
  const bool choose = context_->owners.replicas() > 1;
  RETURN_IF_ERROR(
      step->Plan(layers, options, Purpose::kCaller, choose ? loop_->Costs(view) : NodeCosts()));
  RETURN_IF_ERROR(loop_->Post(step, view));
  rows_asked_.fetch_add(step->plan().rows_asked(), std::memory_order_relaxed);
  rows_distinct_.fetch_add(step->plan().rows_distinct(), std::memory_order_relaxed);
  return Step::MakeTicket(std::move(step));
}

const std::vector<net::KnownAnswer>& EpochClient::known_answers() const {
  return joiner_->known_answers();
}

// Names every node that does not answer, where some rows have no other owner.
Status EpochClient::Served(const std::vector<SourceStats::Node>& nodes) const {
  std::vector<bool> away(nodes.size());
  for (size_t node = 0; node < nodes.size(); ++node) away[node] = !nodes[node].status.ok();
  Status all;
  if (!context_->owners.FirstWithoutOwner(away)) return all;
  for (const SourceStats::Node& node : nodes) {
    if (node.status.ok()) continue;
    all = all.ok() ? node.status : Status(all.code(), all.message() + "; " + node.status.message());
  }
  return all;
}

SourceStats EpochClient::stats() const {
  SourceStats stats;
  stats.rows_asked = rows_asked_.load();
  stats.rows_distinct = rows_distinct_.load();
  const LookupLoop::Detours detours = loop_->detours();
  stats.failovers = detours.failovers;
  stats.hedges_sent = detours.hedges_sent;
  stats.hedges_won = detours.hedges_won;
  stats.reconnects = loop_->reconnects();
  stats.epoch = epoch_;
  const std::shared_ptr<const ClusterView> view = loop_->view();
  for (size_t node = 0; node < members_.size(); ++node) {
    const NodeCounters& counters = loop_->counters()[node];
    SourceStats::Node told;
    told.name = members_[node];
    const NodeView& seen = (*view)[node];
    const Status& status = seen.gone.ok() ? seen.health : seen.gone;
    if (!status.ok()) {
      told.status = status.WithContext("memory node " + context_->node_labels[node]);
    }
    told.suspect = loop_->IsSuspect(seen);
    told.rows_fetched = counters.rows_fetched.load();
    told.bytes_fetched = counters.bytes_fetched.load();
    told.requests = counters.requests.load();
    for (size_t i = 0; i < kPathCount; ++i) told.rows_by_path[i] = counters.rows_by_path[i].load();
    stats.nodes.push_back(std::move(told));
  }
  stats.served = Served(stats.nodes);
  return stats;
}

std::string EpochClient::OwnersOf(uint32_t layer_index, uint64_t row) const {
  std::string labels;
  for (const uint16_t owner : context_->OwnersOf(layer_index, row)) {
    labels += (labels.empty() ? "" : " or ") + context_->node_labels[owner];
  }
  return labels;
}

std::vector<std::string> EpochClient::DescribePaths() const {
  std::vector<std::string> lines;
  const std::shared_ptr<const ClusterView> view = loop_->view();
  for (size_t node = 0; node < members_.size(); ++node) {
    if ((*view)[node].paths == nullptr) continue;
    const NodePaths& paths = *(*view)[node].paths;
    std::string line = members_[node] + ":";
    for (size_t i = 0; i < kPathCount; ++i) {
      if (!paths.open[i]) continue;
      line += fmt::format(" {}", PathName(static_cast<Path>(i)));
      if (paths.costs[i].fixed_ns == 0) continue;  // not measured: it is the only one
      line += fmt::format(" {:.1f} us + {:.0f} ns/row", paths.costs[i].fixed_ns / 1e3,
                          paths.costs[i].per_row_ns);
    }
    if (paths.forced) line += " (forced)";
    lines.push_back(std::move(line));
  }
  return lines;
}

uint64_t EpochClient::messages_dropped() const { return loop_->messages_dropped(); }

}  // namespace engram::client
