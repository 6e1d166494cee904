#include "memnode/node/node.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <thread>

#include "common/io/host_port.h"
#include "common/io/object_reader.h"
#include "common/net/wire_config.h"
#include "common/obs/log.h"
#include "common/obs/log_samples.h"
#include "memnode/cluster/etcd_membership.h"
#include "memnode/cluster/static_membership.h"
#include "memnode/node/status_reply.h"

namespace engram::memnode {
namespace {

constexpr Nanos kDrainPoll = std::chrono::milliseconds(2);
constexpr uint64_t kLookupsToJudge = 5;  // fewer say nothing about readiness

obs::Sample CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  obs::Sample sample;
  sample.name = "process_cpu_seconds_total";
  sample.help = "CPU time of this process, user and system";
  sample.kind = obs::Sample::Kind::kCounter;
  sample.value = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  return sample;
}

}  // namespace

Result<std::unique_ptr<Node>> Node::Start(const NodeConfig& config,
                                          const TransportFactory& make_transport,
                                          std::unique_ptr<RowStore> store) {
  auto node = std::unique_ptr<Node>(new Node(config));
  node->make_transport_ = make_transport;
  RETURN_IF_ERROR(node->OpenSockets());
  if (store == nullptr) {
    ASSIGN_OR_RETURN(store, NodeTables::OpenStore(node->config_));
  }
  // The store outlives the membership: the tables take it over.
  ASSIGN_OR_RETURN(ClusterState state, node->OpenMembership(store.get()));
  const Peers peers = node->PeersOf(state.current);
  ASSIGN_OR_RETURN(node->tables_,
                   NodeTables::Open(node->config_, state.current,
                                    state.current.addresses.empty() ? nullptr : &peers,
                                    node->metrics_, std::move(store)));
  const TablesPtr main = node->tables_->TakeMain();
  if (main != nullptr) {
    node->identity_ = main->identity();
    node->plan_ = main->plan();
  }
  RETURN_IF_ERROR(node->OpenServices(make_transport, main));
  RETURN_IF_ERROR(node->StartFollowing(std::move(state)));
  node->ready_ = true;
  return node;
}

// The state in force. What the other members know is newer where this one was away.
Result<ClusterState> Node::OpenMembership(RowStore* store) {
  if (config_.uses_etcd()) return OpenEtcd(store);
  ASSIGN_OR_RETURN(membership_, StaticMembership::Open(store, config_.Map()));
  ASSIGN_OR_RETURN(const ClusterState state, membership_->Read());
  if (state.current.addresses.empty()) return state;
  const auto newest = PeersOf(state.current).NewestState();
  if (!newest.ok() || newest->revision <= state.revision) return state;
  const Status adopted = membership_->Adopt(*newest);
  if (!adopted.ok()) return adopted.WithContext("taking over the other members' cluster state");
  return membership_->Read();
}

// The first member brings its list there. While etcd is away, what was read last counts.
Result<ClusterState> Node::OpenEtcd(RowStore* store) {
  ASSIGN_OR_RETURN(membership_, EtcdMembership::Make(config_.etcd));
  auto state = membership_->Read();
  if (state.status().code() == Code::kNotFound && !config_.cluster_join) {
    ClusterState first;
    first.cluster = RandomName();
    first.revision = 1;
    first.current = config_.Map();
    const Status proposed = membership_->Propose(first);
    if (!proposed.ok() && proposed.code() != Code::kFailedPrecondition) return proposed;
    state = membership_->Read();
  }
  std::optional<ClusterState> kept;
  if (store != nullptr) {
    ASSIGN_OR_RETURN(kept, ReadKeptState(*store));
  }
  if (kept && state.ok() && kept->cluster != state->cluster) {
    return FailedPrecondition(fmt::format(
        "etcd has the state of cluster {} under {}, this member's store is of cluster {}: correct "
        "etcd.endpoints and etcd.prefix",
        state->cluster, config_.etcd.prefix, kept->cluster));
  }
  if (kept && state.ok() && kept->revision > state->revision) {
    return FailedPrecondition(fmt::format(
        "etcd has revision {} of the cluster's state, this member has seen revision {}: an etcd "
        "that was restored from an older copy needs the newest state put back (memnode/cluster)",
        state->revision, kept->revision));
  }
  if (state.ok() || !kept) return state;
  if (state.status().code() != Code::kUnavailable &&
      state.status().code() != Code::kDeadlineExceeded) {
    return state;
  }
  obs::LogWarn(fmt::format("the cluster's state is the one read last revision={} why={}",
                           kept->revision, state.status().message()));
  return *kept;
}

Peers Node::PeersOf(const table::ClusterMap& map) const {
  Peers::Options options;
  options.member = config_.node_name;
  options.security = security_;
  options.mib_per_s = static_cast<uint64_t>(config_.cluster_move_mib_s);
  options.make_transport = [this]() -> Result<std::unique_ptr<net::Transport>> {
    if (make_transport_) return make_transport_();
    return net::MakeTransport(config_.wire, security_, "", 0);
  };
  return Peers(std::move(options), map);
}

Status Node::StartFollowing(ClusterState state) {
  ClusterMember::Options options;
  options.member = config_.node_name;
  options.linger = std::chrono::seconds(config_.cluster_linger_s);
  options.may_begin = [this] {
    return tables_->admin() == nullptr ? OkStatus() : tables_->admin()->CheckQuiet();
  };
  options.on_state = [this](const ClusterState& now) {
    if (tables_->admin() != nullptr) tables_->admin()->Follow(now.current, now.change);
    if (!membership_->shared() || tables_->store() == nullptr) return;
    const Status kept = KeepState(*tables_->store(), now);
    if (!kept.ok()) obs::LogWarn(kept.message());
  };
  ASSIGN_OR_RETURN(cluster_,
                   ClusterMember::Start(*membership_, *this, std::move(options), std::move(state)));
  return OkStatus();
}

Status Node::Prepare(const table::ClusterMap& now, const table::ClusterMap& next,
                     const std::atomic<bool>& cancel) {
  // A member that is added reads from those that are there; one that was away, from those now.
  return tables_->PrepareMap(next, PeersOf(now.addresses.empty() ? next : now), cancel);
}

Status Node::GoOver(const table::ClusterMap& map) {
  RETURN_IF_ERROR(tables_->GoOver(map));
  control_->TellEpoch(map.epoch);
  obs::LogInfo(fmt::format("the cluster goes by another map epoch={} members={} replicas={}",
                           map.epoch, map.members.size(), map.replicas));
  return OkStatus();
}

// Those that read by an earlier map than the one in force.
std::vector<uint64_t> Node::OldSessions() const {
  const uint32_t epoch = tables_->map().epoch;
  std::vector<uint64_t> old;
  const std::lock_guard lock(sessions_mutex_);
  for (const auto& [session, weak] : tables_of_session_) {
    const TablesPtr tables = weak.lock();
    if (tables != nullptr && tables->map().epoch < epoch) old.push_back(session);
  }
  return old;
}

void Node::EndOldSessions() {
  std::vector<uint64_t> old = OldSessions();
  if (!old.empty()) {
    obs::LogWarn(
        fmt::format("clients that read by an earlier map are sent away sessions={}", old.size()));
  }
  control_->End(std::move(old));
}

// {"state": {...}} -> {"shared": whether all members hear of it}
Result<json::object> Node::Propose(const json::object& request) {
  io::ObjectReader read(request, "request");
  const json::object& object = read.Object("state");
  RETURN_IF_ERROR(read.status());
  ASSIGN_OR_RETURN(const ClusterState after, StateFromJson(object));
  ASSIGN_OR_RETURN(const bool shared, cluster_->Propose(after));
  return json::object{{"shared", shared}};
}

json::object Node::ClusterReply() const {
  const ClusterMember::View view = cluster_->view();
  const NodeTables::MoveProgress moving = tables_->move_progress();
  json::object reply = ClusterFacts(view.state, tables_->Kept());
  reply["member"] = config_.node_name;
  reply["run"] = run_;
  reply["epoch"] = view.epoch;
  reply["shared"] = membership_->shared();
  reply["ready"] = view.ready ? std::to_string(*view.ready) : "";
  reply["rows_done"] = std::to_string(moving.rows_done);
  reply["rows_total"] = std::to_string(moving.rows_total);
  reply["bytes"] = std::to_string(moving.bytes);
  reply["sessions"] = std::to_string(session_count());
  reply["old_sessions"] = std::to_string(OldSessions().size());
  reply["problem"] = view.problem;
  reply["keeper"] = membership_->health().message();
  return reply;
}

Node::~Node() {
  // The sockets' threads call into the service, so they end first; the cluster's thread uses them,
  // and the membership's tells it.
  if (cluster_ != nullptr) cluster_->Stop();
  control_.reset();
  status_thread_.Stop();
  membership_.reset();
  http_.reset();
  services_.clear();
}

Status Node::OpenSockets() {
  ASSIGN_OR_RETURN(security_, net::LoadSecurity(config_.wire.security));
  ASSIGN_OR_RETURN(const io::HostPort control, io::ParseHostPort(config_.control_listen));
  ASSIGN_OR_RETURN(const io::HostPort http, io::ParseHostPort(config_.http_listen));
  control_host_ = control.host;
  http_host_ = http.host;
  ASSIGN_OR_RETURN(http_, net::HttpServer::Start(
                              http.host, http.port,
                              {{"/health", [this] { return Health(); }},
                               {"/ready", [this] { return Ready(); }},
                               {"/metrics", [this] {
                                  std::vector<obs::Sample> samples =
                                      obs::LogSamples("engram_memnode");
                                  samples.push_back(CpuSeconds());
                                  if (ready_) tables_->AddFigures(samples);
                                  return net::HttpResponse{
                                      .content_type = "text/plain; version=0.0.4; charset=utf-8",
                                      .body = metrics_.Text(samples)};
                                }}}));
  ASSIGN_OR_RETURN(
      control_,
      net::ControlServer::Start(
          control.host, control.port,
          {.on_hello = [this](const net::Hello& hello,
                              const auto& answer) { Hello(hello, answer); },
           .on_gone = [this](uint64_t session) { CloseSession(session); },
           .on_admin = [this](const json::object& request) { return Admin(request); },
           .on_status = [this](const auto& answer) { TellStatus(answer); },
           .on_damaged = [this](uint64_t session,
                                const net::DamagedRow& row) { DamagedRow(session, row); }},
          security_));
  return OkStatus();
}

Status Node::OpenServices(const TransportFactory& make_transport, const TablesPtr& main) {
  const auto memory = main == nullptr ? std::span<const std::byte>() : main->memory();
  RowServiceOptions options;
  options.sessions_max = static_cast<size_t>(config_.limits_sessions_max);
  options.window = static_cast<size_t>(config_.limits_window);
  options.send_buffers = static_cast<size_t>(config_.limits_send_buffers);
  options.spin = std::chrono::microseconds(config_.transport_spin_us);
  for (int64_t worker = 0; worker < config_.transport_workers; ++worker) {
    ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport,
                     make_transport ? make_transport() : MakeTransport(worker));
    std::string key;
    if (transport->one_sided() && !memory.empty()) {
      ASSIGN_OR_RETURN(key, transport->ShareMemory(memory));
      one_sided_tables_ = main;
    }
    if (config_.transport_cpu >= 0) {
      options.cpu = static_cast<int>(config_.transport_cpu + worker);
    }
    ASSIGN_OR_RETURN(auto service,
                     RowService::Start(std::move(transport), options, service_metrics_));
    services_.push_back({std::move(service), std::move(key)});
  }
  return OkStatus();
}

// Workers listen on the port asked for and the ones after it.
Result<std::unique_ptr<net::Transport>> Node::MakeTransport(int64_t worker) const {
  io::HostPort listen = {control_host_, 0};
  if (!config_.transport_listen.empty()) {
    ASSIGN_OR_RETURN(listen, io::ParseHostPort(config_.transport_listen));
    if (listen.port != 0) listen.port = static_cast<uint16_t>(listen.port + worker);
  }
  return net::MakeTransport(config_.wire, security_, listen.host, listen.port);
}

const Node::Service& Node::LeastBusy() const {
  return *std::min_element(services_.begin(), services_.end(), [](const auto& a, const auto& b) {
    return a.service->session_count() < b.service->session_count();
  });
}

// Session ids are random: only the worker it belongs to knows this one.
void Node::CloseSession(uint64_t session) {
  {
    const std::lock_guard lock(sessions_mutex_);
    tables_of_session_.erase(session);
  }
  for (const Service& worker : services_) worker.service->CloseSession(session);
}

void Node::DamagedRow(uint64_t session, const net::DamagedRow& row) {
  const std::lock_guard lock(sessions_mutex_);
  const auto tables = tables_of_session_.find(session);
  if (tables == tables_of_session_.end()) return;
  tables_->ReportDamagedRow(tables->second, row.layer_index, row.row);
}

size_t Node::session_count() const {
  size_t count = 0;
  for (const Service& worker : services_) count += worker.service->session_count();
  return count;
}

// The data thread opens the session; the welcome leaves when it is there.
void Node::Hello(const net::Hello& hello, const net::ControlServer::AnswerHello& answer) {
  Result<Offer> offer = MakeOffer(hello);
  if (!offer.ok()) return answer(offer.status());
  const TablesPtr tables = offer->tables;
  offer->service->OpenSession(
      hello.address, tables,
      [this, answer, tables, welcome = std::move(offer->welcome)](Result<uint64_t> session) {
        if (!session.ok()) return answer(session.status());
        {
          const std::lock_guard lock(sessions_mutex_);
          tables_of_session_[*session] = tables;
        }
        net::Welcome complete = welcome;
        complete.session = *session;
        answer(std::move(complete));
      });
}

Result<Node::Offer> Node::MakeOffer(const net::Hello& hello) const {
  if (!ready_) return Unavailable("this memory node is still loading its tables");
  if (draining_) return Unavailable("this memory node is shutting down");
  const std::string us = fmt::format("memory node {}", config_.node_name);
  ASSIGN_OR_RETURN(const VersionManager::Found found,
                   tables_->Find(hello.identity.model, hello.identity.version, hello.epoch));
  const ServedTables& tables = *found.tables;
  RETURN_IF_ERROR(table::CheckSameIdentity(hello.identity, tables.identity(), us));
  const Service& worker = LeastBusy();
  const RowService& service = *worker.service;
  if (hello.transport != service.transport_name()) {
    return FailedPrecondition(fmt::format("transport is \"{}\" here, \"{}\" at {}: use the same",
                                          hello.transport, service.transport_name(), us));
  }
  if (hello.settings != service.settings()) {
    return FailedPrecondition(
        fmt::format("transport settings are \"{}\" here, \"{}\" at {}: they must be equal",
                    hello.settings, service.settings(), us));
  }
  Offer offer;
  offer.tables = found.tables;
  offer.service = worker.service.get();
  net::Welcome& welcome = offer.welcome;
  welcome.member = config_.node_name;
  welcome.map = tables.map();
  welcome.identity = tables.identity();
  welcome.settings = service.settings();
  welcome.transport = service.transport_name();
  welcome.address = service.address();
  welcome.known_answers = tables.known_answers();
  welcome.window = static_cast<uint32_t>(config_.limits_window);
  if (found.tables == one_sided_tables_) welcome.one_sided_key = worker.one_sided_key;
  welcome.generation = found.generation;
  if (net::FdServer* local = tables.local(); local != nullptr) {
    ASSIGN_OR_RETURN(welcome.local_token, local->NewToken());
    welcome.local_socket = local->socket_name();
  }
  welcome.takes_damage = true;
  return offer;
}

void Node::OnRestart(std::function<void()> restart) {
  const std::lock_guard lock(restart_mutex_);
  restart_ = std::move(restart);
}

Result<json::object> Node::Admin(const json::object& request) {
  if (!ready_) return Unavailable("this memory node is still loading its tables");
  const json::value* const command = request.if_contains("command");
  if (command != nullptr && *command == "cluster") return ClusterReply();
  if (command != nullptr && *command == "propose") return Propose(request);
  if (command != nullptr && *command == "restart") {
    const std::lock_guard lock(restart_mutex_);
    if (!restart_) return FailedPrecondition("this memory node cannot start itself again");
    restart_();
    return json::object();
  }
  return tables_->Admin(request);
}

void Node::TellStatus(const net::ControlServer::AnswerTool& answer) {
  if (status_thread_.TryPost([this, answer] { answer(StatusReply()); })) return;
  answer(ResourceExhausted(
      fmt::format("{} tools wait for this memory node's status: try again", kStatusWaitingMax)));
}

json::object Node::StatusReply() const {
  const bool open = ready_;
  const json::object tables = open ? tables_->StatusFigures() : TablesStatus({});
  const TimePoint now = Clock::Real().Now();
  const LookupOutcomes::Counts recent = service_metrics_.outcomes.Recent(now);
  const obs::Buckets service = service_metrics_.service_seconds.Value();
  json::array bounds, counts;
  for (const double bound : service.bounds) bounds.push_back(bound * 1e6);
  for (const uint64_t count : service.counts) counts.push_back(json::string(std::to_string(count)));
  const table::ClusterMap map = open ? tables_->map() : config_.Map();
  json::object reply = {{"member", config_.node_name},
                        {"zone", table::ZoneOf(map, config_.node_name)},
                        {"epoch", map.epoch},
                        {"members", json::value_from(map.members)},
                        {"change", ""},
                        {"change_problem", ""},
                        {"keeper", ""},
                        {"run", run_},
                        {"state", draining_           ? "draining"
                                  : ServesAny(tables) ? "serving"
                                                      : "joining"},
                        {"loading", !open},
                        {"why", Trouble()},
                        {"clock_ns", std::to_string(now.time_since_epoch().count())},
                        {"sessions", std::to_string(open ? session_count() : 0)},
                        {"rows_sent", std::to_string(service_metrics_.outcomes.rows_served())},
                        {"recent_lookups", std::to_string(recent.served + recent.unreadable)},
                        {"recent_unreadable", std::to_string(recent.unreadable)},
                        {"service_bounds_us", std::move(bounds)},
                        {"service_counts", std::move(counts)}};
  if (open) {
    const ClusterMember::View cluster = cluster_->view();
    reply["change"] = cluster.state.change;
    reply["change_problem"] = cluster.problem;
    reply["keeper"] = membership_->health().message();
  }
  for (const auto& [key, value] : tables) reply[key] = value;
  return reply;
}

// Why /health or /ready is 503, but for what the state says.
std::string Node::Trouble() const {
  net::HttpResponse seen = Health();
  if (seen.status == 200 && ready_ && !draining_) seen = Ready();
  if (seen.status == 200) return "";
  while (seen.body.ends_with('\n')) seen.body.pop_back();
  return seen.body;
}

net::HttpResponse Node::Health() const {
  if (!ready_) return {.body = "alive\n"};
  for (size_t i = 0; i < services_.size(); ++i) {
    const Nanos since = services_[i].service->SinceLastRound();
    if (since < std::chrono::milliseconds(config_.limits_stuck_ms)) continue;
    const std::chrono::duration<double> seconds = since;
    return {.status = 503,
            .body = fmt::format("data thread {} has stood still for {:.1f} s: restart this node\n",
                                i, seconds.count())};
  }
  return {.body = "alive\n"};
}

net::HttpResponse Node::Ready() const {
  if (draining_) return {.status = 503, .body = "draining\n"};
  if (!ready_) return {.status = 503, .body = "loading\n"};
  const LookupOutcomes& outcomes = service_metrics_.outcomes;
  const std::string why = tables_->NotReady(outcomes.MeanRows());
  if (!why.empty()) return {.status = 503, .body = why + "\n"};
  const LookupOutcomes::Counts recent = outcomes.Recent(Clock::Real().Now());
  const uint64_t ended = recent.served + recent.unreadable;
  if (ended >= kLookupsToJudge && 2 * recent.unreadable >= ended) {
    return {.status = 503,
            .body = fmt::format("{} of {} lookups of the last {} s failed: their rows could not be "
                                "read; the log and engramctl verify say why\n",
                                recent.unreadable, ended, LookupOutcomes::kWindowSeconds)};
  }
  return {.body = "ready\n"};
}

void Node::Drain() {
  draining_ = true;
  for (const Service& worker : services_) worker.service->Drain();
  const TimePoint deadline =
      Clock::Real().Now() + std::chrono::milliseconds(config_.limits_drain_timeout_ms);
  while (session_count() > 0 && Clock::Real().Now() < deadline) {
    std::this_thread::sleep_for(kDrainPoll);
  }
  obs::LogInfo(fmt::format("drained sessions_left={}", session_count()));
}

std::string Node::control_address() const {
  return io::FormatHostPort(control_host_, control_->port());
}

std::string Node::http_address() const { return io::FormatHostPort(http_host_, http_->port()); }

}  // namespace engram::memnode
