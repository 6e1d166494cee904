// LookupClient: rows from a cluster of memory nodes. Connect() proves that every node that answers
// holds the same, right tables; afterwards each step costs one request a node.
//
// When a node is lost, its outstanding rows are asked of their other owners; rows that have none
// fail at once with UNAVAILABLE, and so does every Submit that needs it, until the client has
// connected to it again by itself, with the whole handshake: at most a second after the node is
// ready.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/cluster_view.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/row_source.h"
#include "common/net/control/control.h"
#include "common/net/tcp/security.h"
#include "common/net/transport.h"
#include "common/table/identity.h"
#include "common/table/layout.h"

namespace engram::client {

class LookupClient;
class LookupLoop;
class NodeJoiner;
class Redialer;
struct PlanContext;

struct LookupClientOptions {
  std::vector<std::string> memnodes;  // "host:port" of every member of the cluster, any order
  table::TableIdentity identity;  // from the client's own config; the content digest may be empty
  uint32_t connect_timeout_ms =
      5000;               // of each control connection, and of fetching the known answers
  uint32_t spin_us = 50;  // Wait and the IO thread spin this long before they sleep
  uint32_t inflight_requests_max = 1024;
  PathChoice path;  // none: the cheapest for each request, calibrated at connect
  // Not 0: every node is probed once a second and counts as down when it says nothing for so long;
  // one that missed a lookup's deadline, or two probes, is skipped until it answers one. Not of a
  // node whose rows are read out of mapped memory.
  uint32_t probe_timeout_ms = 0;
  // Rows of several owners that have not come after so long are asked of another one as well; 0:
  // twice the 99th percentile of the node's answers, 500 us at least.
  uint32_t hedge_us = 0;
  // False in benchmarks only: rows are taken as they come, damaged or not.
  bool check_rows = true;
  std::shared_ptr<const net::Security> security;  // of the control connections; null: none
  // Sees the client before Connect returns it; what it asks for is not counted, its error is
  // Connect's. May be null.
  std::function<Status(LookupClient&)> check;
  // Makes the transport the client owns; tests pass one of a loopback hub.
  std::function<Result<std::unique_ptr<net::Transport>>()> make_transport;
};

class LookupClient : public RowSource {
 public:
  // UNAVAILABLE names every address that was not reached, but where all rows have another owner
  // that was; FAILED_PRECONDITION the first difference
  // in identity, settings, map or content; DATA_LOSS a known answer that came out differently over
  // the data path.
  static Result<std::unique_ptr<LookupClient>> Connect(const LookupClientOptions& options,
                                                       const table::TableLayout& layout,
                                                       const Clock& clock = Clock::Real());
  ~LookupClient() override;  // ends what is under way with CANCELLED

  // With the version and content digest the nodes told.
  const table::TableIdentity& identity() const override { return identity_; }
  // Also UNAVAILABLE when a node it needs is gone or skipped, RESOURCE_EXHAUSTED over
  // inflight_requests_max, OUT_OF_RANGE for a row past the end: then nothing was sent. Rows in
  // mapped memory are copied before it returns. Tickets may outlive the client.
  Result<Ticket> Submit(std::span<const LayerLookup> layers, const SubmitOptions& options) override;
  SourceStats stats() const override;
  // The rows that the nodes vouched for at connect, of all nodes.
  const std::vector<net::KnownAnswer>& known_answers() const;
  // The labels of the nodes that have the row, for messages: "m0 (127.0.0.1:7400)".
  std::string OwnersOf(uint32_t layer_index, uint64_t row) const;
  // What the calibration found, for logs: one line a node.
  std::vector<std::string> DescribePaths() const;
  // Messages that belonged to no request: late, repeated or unreadable.
  uint64_t messages_dropped() const;

 private:
  explicit LookupClient(std::shared_ptr<const PlanContext> context);
  Result<Ticket> SubmitPlanned(std::span<const LayerLookup> layers, const SubmitOptions& options,
                               const ClusterView& view);
  Status Served(const std::vector<SourceStats::Node>& nodes) const;

  const std::shared_ptr<const PlanContext> context_;  // shared with the steps
  table::TableIdentity identity_;
  std::vector<std::string> members_;
  uint32_t epoch_ = 0;  // of the map
  std::atomic<uint64_t> rows_asked_ = 0;
  std::atomic<uint64_t> rows_distinct_ = 0;
  // The redialer drives the joiner, which drives the loop, which tells the redialer of losses: the
  // destructor stops the redialer, then the loop goes, and the redialer last.
  std::unique_ptr<Redialer> redialer_;
  std::unique_ptr<NodeJoiner> joiner_;
  std::unique_ptr<LookupLoop> loop_;
};

}  // namespace engram::client
