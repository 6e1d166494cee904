#include "common/client/lookup_client.h"

#include <fmt/format.h>

#include "common/client/lookup_connect.h"
#include "common/client/lookup_loop.h"
#include "common/client/lookup_plan.h"

namespace engram::client {
namespace {

constexpr size_t kStepsPooledMax = 64;

class StepTicket : public Ticket {
 public:
  StepTicket(std::shared_ptr<Step> step, const Clock& clock, Nanos spin)
      : step_(std::move(step)), clock_(clock), spin_(spin) {}
  ~StepTicket() override { step_->Detach(); }

  Status Wait(uint32_t layer_index) override { return step_->Wait(layer_index, clock_, spin_); }
  bool Ready(uint32_t layer_index) const override { return step_->Ready(layer_index, clock_); }

 private:
  const std::shared_ptr<Step> step_;  // shared with the IO thread until its last reply
  const Clock& clock_;
  const Nanos spin_;
};

}  // namespace

// Steps whose ticket and requests are gone, kept for their buffers.
struct LookupClient::StepPool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Step>> free;

  static std::shared_ptr<Step> Take(const std::shared_ptr<StepPool>& pool,
                                    const std::shared_ptr<const PlanContext>& context) {
    std::unique_ptr<Step> step;
    {
      const std::lock_guard lock(pool->mutex);
      if (!pool->free.empty()) {
        step = std::move(pool->free.back());
        pool->free.pop_back();
      }
    }
    if (step == nullptr) step = std::make_unique<Step>(context);
    return {step.release(), [pool](Step* done) {
              std::unique_ptr<Step> owned(done);
              const std::lock_guard lock(pool->mutex);
              if (pool->free.size() < kStepsPooledMax) pool->free.push_back(std::move(owned));
            }};
  }
};

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
  auto context =
      std::make_shared<const PlanContext>(MakePlanContext(layout, cluster.map, cluster.labels));
  std::unique_ptr<LookupClient> client(new LookupClient(options, std::move(context), clock));
  client->identity_ = cluster.controls[0]->welcome().identity;
  client->members_ = cluster.map.members;

  const std::vector<KnownRow> known = KnownRowsOf(cluster);
  std::vector<NodeLink> links;
  for (size_t node = 0; node < cluster.controls.size(); ++node) {
    const net::Welcome& welcome = cluster.controls[node]->welcome();
    const Result<net::PeerId> peer = transport->Connect(welcome.address);
    if (!peer.ok()) {
      return peer.status().WithContext(fmt::format("memory node {}", cluster.labels[node]));
    }
    links.push_back({cluster.labels[node], *peer, std::move(cluster.controls[node])});
  }
  LookupLoop::Options loop_options;
  loop_options.requests_max = options.inflight_requests_max;
  loop_options.spin = client->spin_;
  loop_options.epoch = cluster.map.epoch;
  client->loop_ =
      std::make_unique<LookupLoop>(loop_options, std::move(transport), std::move(links), clock);
  RETURN_IF_ERROR(CheckKnownRows(
      *client, known, layout, clock.Now() + std::chrono::milliseconds(options.connect_timeout_ms)));
  client->rows_asked_ = 0;
  client->rows_distinct_ = 0;
  client->loop_->ResetCounters();
  return client;
}

Result<std::unique_ptr<Ticket>> LookupClient::Submit(std::span<const LayerLookup> layers,
                                                     const SubmitOptions& options) {
  std::shared_ptr<Step> step = StepPool::Take(pool_, context_);
  RETURN_IF_ERROR(step->Plan(layers, options.deadline));
  RETURN_IF_ERROR(loop_->Post(step));
  rows_asked_.fetch_add(step->rows_asked(), std::memory_order_relaxed);
  rows_distinct_.fetch_add(step->rows_distinct(), std::memory_order_relaxed);
  return std::unique_ptr<Ticket>(std::make_unique<StepTicket>(std::move(step), clock_, spin_));
}

SourceStats LookupClient::stats() const {
  SourceStats stats;
  stats.rows_asked = rows_asked_.load();
  stats.rows_distinct = rows_distinct_.load();
  for (size_t node = 0; node < members_.size(); ++node) {
    const NodeCounters& counters = loop_->counters(node);
    stats.nodes.push_back({members_[node],
                           counters.rows_fetched.load(),
                           counters.bytes_fetched.load(),
                           counters.requests.load(),
                           {}});
  }
  return stats;
}

uint64_t LookupClient::messages_dropped() const { return loop_->messages_dropped(); }

}  // namespace engram::client
