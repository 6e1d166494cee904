// EpochClient: a lookup client of one epoch of the cluster, connected to its members by one map,
// which never changes. LookupClient (client.h) goes from one to the next.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "common/client/lookup/cluster_view.h"
#include "common/client/row_source.h"
#include "common/net/control/control.h"
#include "common/table/identity.h"
#include "common/table/layout.h"

namespace engram::client {

class LookupLoop;
class NodeJoiner;
class Redialer;
struct PlanContext;

class EpochClient {
 public:
  // Told on a thread of the client, also before Connect returns, that `epoch` is in force at a
  // node, which is after this one; 0: a node is no member any more, by an epoch it did not tell.
  using OnLaterEpoch = std::function<void(uint32_t epoch)>;
  // Errors as LookupClient::Connect.
  static Result<std::shared_ptr<EpochClient>> Connect(const LookupClientOptions& options,
                                                      const table::TableLayout& layout,
                                                      OnLaterEpoch on_later_epoch,
                                                      const Clock& clock);
  ~EpochClient();  // ends what is under way with CANCELLED

  const table::TableIdentity& identity() const { return identity_; }
  uint32_t epoch() const { return epoch_; }
  // Where the members were reached, or are to be reached; and what else was tried.
  std::vector<std::string> addresses() const;
  // Requests under way, which the destructor would cancel.
  bool busy() const;

  // These as LookupClient's.
  Result<Ticket> Submit(std::span<const LayerLookup> layers, const SubmitOptions& options);
  SourceStats stats() const;
  void ResetCounters();
  const std::vector<net::KnownAnswer>& known_answers() const;
  std::string OwnersOf(uint32_t layer_index, uint64_t row) const;
  std::vector<std::string> DescribePaths() const;
  uint64_t messages_dropped() const;

 private:
  explicit EpochClient(std::shared_ptr<const PlanContext> context);
  Result<Ticket> SubmitPlanned(std::span<const LayerLookup> layers, const SubmitOptions& options,
                               const ClusterView& view);
  Status Served(const std::vector<SourceStats::Node>& nodes) const;

  const std::shared_ptr<const PlanContext> context_;  // shared with the steps
  table::TableIdentity identity_;
  std::vector<std::string> members_;
  uint32_t epoch_ = 0;  // of the map
  std::vector<std::string> addresses_;
  std::atomic<uint64_t> rows_asked_ = 0;
  std::atomic<uint64_t> rows_distinct_ = 0;
  // The redialer drives the joiner, which drives the loop, which tells the redialer of losses: the
  // destructor stops the redialer, then the loop goes, and the redialer last.
  std::unique_ptr<Redialer> redialer_;
  std::unique_ptr<NodeJoiner> joiner_;
  std::unique_ptr<LookupLoop> loop_;
};

}  // namespace engram::client
