// One memory node: sockets, the cluster's state, tables, row services, in that order; stopped in
// reverse.
//
// The sockets open first, so that a port in use is reported before a long import; until the tables
// are open /ready answers 503 and clients are refused.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/status.h"
#include "common/base/worker.h"
#include "common/net/control/control.h"
#include "common/net/http/server.h"
#include "common/net/tcp/security.h"
#include "common/net/transport.h"
#include "common/obs/metrics.h"
#include "memnode/cluster/cluster_member.h"
#include "memnode/cluster/membership.h"
#include "memnode/cluster/peers.h"
#include "memnode/node/config.h"
#include "memnode/node/node_tables.h"
#include "memnode/node/random_name.h"
#include "memnode/serve/row_service.h"
#include "memnode/serve/service_metrics.h"

namespace engram::memnode {

class Node : private MapFollower {
 public:
  using TransportFactory = std::function<Result<std::unique_ptr<net::Transport>>()>;

  // Blocks until the node serves. A null factory or store: as the config says. `config` is valid.
  static Result<std::unique_ptr<Node>> Start(const NodeConfig& config,
                                             const TransportFactory& make_transport = nullptr,
                                             std::unique_ptr<RowStore> store = nullptr);
  ~Node() override;  // at once

  // /ready turns 503, new sessions and lookups are refused, queued ones answered; returns when all
  // clients have left or limits.drain_timeout_ms has passed.
  void Drain();

  // What a tool's "restart" does; until then it is refused. To be called once.
  void OnRestart(std::function<void()> restart);

  // host:port, with the ports chosen.
  std::string control_address() const;
  std::string http_address() const;
  // Of what the config names.
  const table::TableIdentity& identity() const { return identity_; }
  const TablePlan& plan() const { return plan_; }
  size_t session_count() const;

 private:
  static constexpr size_t kStatusWaitingMax = 32;

  struct Service {
    std::unique_ptr<RowService> service;
    std::string one_sided_key;  // empty: its transport has no such reads
  };
  // What a hello asks for, but for its session.
  struct Offer {
    net::Welcome welcome;
    TablesPtr tables;
    RowService* service = nullptr;
  };

  explicit Node(const NodeConfig& config) : config_(config) {}
  Result<ClusterState> OpenMembership(RowStore* store);
  Result<ClusterState> OpenEtcd(RowStore* store);
  Peers PeersOf(const table::ClusterMap& map) const;
  Status StartFollowing(ClusterState state);
  Status Prepare(const table::ClusterMap& now, const table::ClusterMap& next,
                 const std::atomic<bool>& cancel) override;
  Status GoOver(const table::ClusterMap& map) override;
  void Forget() override { tables_->ForgetPrepared(); }
  void EndOldSessions() override;
  std::vector<uint64_t> OldSessions() const;
  Result<json::object> Propose(const json::object& request);
  json::object ClusterReply() const;
  Status OpenSockets();
  Status OpenServices(const TransportFactory& make_transport, const TablesPtr& main);
  Result<std::unique_ptr<net::Transport>> MakeTransport(int64_t worker) const;
  const Service& LeastBusy() const;
  void CloseSession(uint64_t session);
  void DamagedRow(uint64_t session, const net::DamagedRow& row);
  void Hello(const net::Hello& hello, const net::ControlServer::AnswerHello& answer);
  Result<Offer> MakeOffer(const net::Hello& hello) const;
  Result<json::object> Admin(const json::object& request);
  void TellStatus(const net::ControlServer::AnswerTool& answer);
  json::object StatusReply() const;
  std::string Trouble() const;
  net::HttpResponse Health() const;
  net::HttpResponse Ready() const;

  const NodeConfig config_;
  const std::string run_ = RandomName();
  obs::Metrics metrics_;
  TransportFactory make_transport_;
  std::unique_ptr<NodeTables> tables_;
  std::unique_ptr<Membership> membership_;  // uses the tables' store
  std::unique_ptr<ClusterMember> cluster_;
  table::TableIdentity identity_;
  TablePlan plan_;
  // Registered with the wires, which read it for as long as they live; null: none does.
  TablesPtr one_sided_tables_;
  ServiceMetrics service_metrics_{metrics_};
  std::shared_ptr<const net::Security> security_;
  std::vector<Service> services_;
  mutable std::mutex sessions_mutex_;
  // What each session reads; guarded by sessions_mutex_.
  std::unordered_map<uint64_t, std::weak_ptr<const ServedTables>> tables_of_session_;
  // Everything above is complete once this is true; the sockets' threads look at it first.
  std::atomic<bool> ready_ = false;
  std::atomic<bool> draining_ = false;
  std::mutex restart_mutex_;
  std::function<void()> restart_;  // guarded by restart_mutex_
  Worker status_thread_{kStatusWaitingMax};
  std::string control_host_, http_host_;
  std::unique_ptr<net::ControlServer> control_;
  std::unique_ptr<net::HttpServer> http_;
};

}  // namespace engram::memnode
