// LookupClient: rows from a cluster of memory nodes. Connect() proves that every node that answers
// holds the same, right tables; afterwards each step costs one request a node.
//
// When a node is lost, its outstanding rows are asked of their other owners; rows that have none
// fail at once with UNAVAILABLE, and so does every Submit that needs it, until the client has
// connected to it again by itself, with the whole handshake: at most a second after the node is
// ready.
//
// When the cluster's map has changed, nodes tell; the client then connects to the members of the
// new map, proves them as at first, and goes over to them between two lookups. A lookup ends by the
// map it began with.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/row_source.h"
#include "common/net/control/control.h"
#include "common/net/tcp/security.h"
#include "common/net/transport.h"
#include "common/table/identity.h"
#include "common/table/layout.h"

namespace engram::client {

class EpochClient;
class LookupClient;

struct LookupClientOptions {
  // "host:port" of every member of the cluster, any order. Members whose address the map tells need
  // not be named, and addresses of nodes that are no members any more are passed over.
  std::vector<std::string> memnodes;
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
  const std::vector<net::KnownAnswer>& known_answers() const { return known_answers_; }
  // The labels of the nodes that have the row, for messages: "m0 (127.0.0.1:7400)".
  std::string OwnersOf(uint32_t layer_index, uint64_t row) const;
  // What the calibration found, for logs: one line a node.
  std::vector<std::string> DescribePaths() const;
  // Messages that belonged to no request: late, repeated or unreadable.
  uint64_t messages_dropped() const;

 private:
  LookupClient(const LookupClientOptions& options, const table::TableLayout& layout,
               const Clock& clock);
  void OnLaterEpoch(uint32_t epoch);
  void Follow();
  Status GoOn();
  void EndRetired();

  LookupClientOptions options_;
  const table::TableLayout layout_;
  const Clock& clock_;
  table::TableIdentity identity_;
  std::vector<net::KnownAnswer> known_answers_;
  std::atomic<std::shared_ptr<EpochClient>> current_;

  // Epochs that are over and have requests under way yet.
  struct Retired {
    std::shared_ptr<EpochClient> client;
    TimePoint until;
  };
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Retired> retired_;
  SourceStats past_;          // counted by clients that are gone
  bool look_ = false;         // for a later epoch
  uint32_t later_epoch_ = 0;  // the latest that is known to be in force
  bool stopping_ = false;
  std::thread following_;  // connects to later epochs, and ends retired clients
};

}  // namespace engram::client
