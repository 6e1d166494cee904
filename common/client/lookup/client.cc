#include "common/client/lookup/client.h"

#include <fmt/format.h>

#include <cstddef>

#include "common/client/lookup/connect.h"
#include "common/client/lookup/loop.h"
#include "common/client/lookup/path_calibration.h"
#include "common/client/lookup/plan.h"
#include "common/client/lookup/step_pool.h"

namespace engram::client {
namespace {

// Lives in its step, which it keeps alive, so that none is allocated.
class StepTicket : public Ticket {
 public:
  // Takes over one reference to `pooled`, until its own memory, the room there, is given back.
  StepTicket(PooledStep* pooled, LookupLoop* loop, const Clock& clock, Nanos spin)
      : step_(&pooled->step), loop_(loop), clock_(clock), spin_(spin) {}
  ~StepTicket() override { step_->Detach(); }

  static void* operator new(size_t, TicketRoom& room) { return room.bytes; }
  static void operator delete(void* ticket, TicketRoom&) { operator delete(ticket); }
  static void operator delete(void* ticket) {
    const auto* room = reinterpret_cast<const TicketRoom*>(static_cast<const std::byte*>(ticket) -
                                                           offsetof(TicketRoom, bytes));
    StepRef::Adopt(room->owner);
  }

  // The loop may be gone when the step is done, as all its steps are by then.
  Status Wait(uint32_t layer_index) override {
    if (!step_->Done(layer_index)) loop_->DriveUntil(*step_, layer_index);
    return step_->Wait(layer_index, clock_, spin_);
  }
  bool Ready(uint32_t layer_index) const override { return step_->Ready(layer_index, clock_); }
  Nanos took() const override { return step_->took(); }

 private:
  Step* const step_;
  LookupLoop* const loop_;
  const Clock& clock_;
  const Nanos spin_;
};
size_t RowsOf(std::span<const LayerLookup> layers) {
  size_t rows = 0;
  for (const LayerLookup& layer : layers) rows += layer.rows.size();
  return rows;
}

static_assert(sizeof(StepTicket) <= sizeof(TicketRoom::bytes));

}  // namespace

LookupClient::LookupClient(const LookupClientOptions& options,
                           std::shared_ptr<const PlanContext> context, const Clock& clock)
    : clock_(clock),
      spin_(std::chrono::microseconds(options.spin_us)),
      context_(std::move(context)),
      pool_(std::make_shared<StepPool>()) {}

LookupClient::~LookupClient() = default;

Result<std::unique_ptr<LookupClient>> LookupClient::Connect(const LookupClientOptions& options,
                                                            const table::TableLayout& layout,
                                                            const Clock& clock) {
  ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport, options.make_transport());
  ASSIGN_OR_RETURN(Cluster cluster, ConnectCluster(options, *transport));
  PlanContext context = MakePlanContext(layout, cluster.map, cluster.labels);
  context.check_rows = options.check_rows;
  std::unique_ptr<LookupClient> client(
      new LookupClient(options, std::make_shared<const PlanContext>(std::move(context)), clock));
  client->identity_ = cluster.controls[0]->welcome().identity;
  client->members_ = cluster.map.members;
  const uint32_t epoch = cluster.map.epoch;

  const Nanos timeout = std::chrono::milliseconds(options.connect_timeout_ms);
  const std::vector<KnownRow> known = KnownRowsOf(cluster);
  for (const KnownRow& row : known) client->known_answers_.push_back(row.answer);
  ASSIGN_OR_RETURN(std::vector<NodeLink> links,
                   LinkNodes(std::move(cluster), options, layout, *transport));
  LookupLoop::Options loop_options;
  loop_options.requests_max = options.inflight_requests_max;
  loop_options.spin = client->spin_;
  loop_options.epoch = epoch;
  loop_options.caller_driven = options.caller_driven;
  client->loop_ = std::make_unique<LookupLoop>(loop_options, std::move(transport), std::move(links),
                                               client->context_->damage, clock);
  RETURN_IF_ERROR(client->loop_->started());
  if (options.check_rows) {
    RETURN_IF_ERROR(CheckKnownPaths(*client, *client->loop_, known, layout, clock.Now() + timeout));
  }
  RETURN_IF_ERROR(
      CalibratePaths(*client, *client->loop_, *client->context_, clock.Now() + timeout, clock));
  if (options.check) RETURN_IF_ERROR(options.check(*client));
  client->rows_asked_ = 0;
  client->rows_distinct_ = 0;
  client->loop_->ResetCounters();
  if (options.probe_timeout_ms > 0) {
    client->loop_->WatchNodes(client->context_,
                              std::chrono::milliseconds(options.probe_timeout_ms));
  }
  return client;
}

Result<std::unique_ptr<Ticket>> LookupClient::Submit(std::span<const LayerLookup> layers,
                                                     const SubmitOptions& options) {
  StepRef step = pool_->Take(context_);
  if (context_->check_rows && loop_->AllLocal(RowsOf(layers))) {
    RETURN_IF_ERROR(step->FinishAtOnce(layers));  // checks them, too
    RETURN_IF_ERROR(loop_->GatherHere(*context_, layers));
  } else {
    RETURN_IF_ERROR(step->Plan(layers, options));
    RETURN_IF_ERROR(loop_->Post(step));
  }
  rows_asked_.fetch_add(step->rows_asked(), std::memory_order_relaxed);
  rows_distinct_.fetch_add(step->rows_distinct(), std::memory_order_relaxed);
  PooledStep* pooled = step.Release();
  return std::unique_ptr<Ticket>(new (pooled->ticket)
                                     StepTicket(pooled, loop_.get(), clock_, spin_));
}

void LookupClient::Poll() {
  if (loop_->caller_driven()) loop_->Drive();
}

SourceStats LookupClient::stats() const {
  SourceStats stats;
  stats.rows_asked = rows_asked_.load();
  stats.rows_distinct = rows_distinct_.load();
  for (size_t node = 0; node < members_.size(); ++node) {
    const NodeCounters& counters = loop_->counters(node);
    SourceStats::Node told;
    told.name = members_[node];
    const Status status = loop_->NodeStatus(node);
    if (!status.ok()) {
      told.status = status.WithContext("memory node " + context_->node_labels[node]);
    }
    told.rows_fetched = counters.rows_fetched.load();
    told.bytes_fetched = counters.bytes_fetched.load();
    told.requests = counters.requests.load();
    for (size_t i = 0; i < kPathCount; ++i) told.rows_by_path[i] = counters.rows_by_path[i].load();
    stats.nodes.push_back(std::move(told));
  }
  return stats;
}

const std::string& LookupClient::OwnerOf(uint32_t layer_index, uint64_t row) const {
  const uint32_t partition = context_->partitions[layer_index].PartitionOf(row);
  return context_->node_labels[context_->owners[layer_index][partition]];
}

std::vector<std::string> LookupClient::DescribePaths() const {
  std::vector<std::string> lines;
  for (size_t node = 0; node < members_.size(); ++node) {
    const NodePaths& paths = loop_->paths(node);
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

uint64_t LookupClient::messages_dropped() const { return loop_->messages_dropped(); }

}  // namespace engram::client
