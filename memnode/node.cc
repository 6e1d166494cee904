#include "memnode/node.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <thread>

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/net/wire_config.h"
#include "common/obs/log.h"
#include "memnode/procedural_loader.h"
#include "memnode/rocks_store.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kKnownAnswerSeed = 20261123;
constexpr Nanos kDrainPoll = std::chrono::milliseconds(2);

// The first owned row and one anywhere in the owned partitions; none when nothing is owned.
std::vector<uint64_t> RowsToTell(const LayerPlan& layer, uint64_t seed) {
  if (layer.owned.empty()) return {};
  Rng rng(seed);
  const uint32_t partition = layer.owned[rng.NextBelow(layer.owned.size())];
  const uint64_t row = rng.NextBelow(layer.cut.RowCount(partition));
  return {layer.cut.FirstRow(layer.owned.front()), layer.cut.FirstRow(partition) + row};
}

}  // namespace

Result<std::unique_ptr<Node>> Node::Start(const NodeConfig& config,
                                          TransportFactory make_transport) {
  auto node = std::unique_ptr<Node>(new Node(config));
  RETURN_IF_ERROR(node->OpenSockets());
  RETURN_IF_ERROR(node->OpenTables());
  RETURN_IF_ERROR(node->OpenServices(make_transport));
  RETURN_IF_ERROR(node->ChooseKnownAnswers());
  node->ready_ = true;
  return node;
}

Node::~Node() {
  // The sockets' threads call into the service, so they end first.
  control_.reset();
  http_.reset();
  local_.reset();
  services_.clear();
}

Status Node::OpenSockets() {
  ASSIGN_OR_RETURN(security_, net::LoadSecurity(config_.wire.security));
  ASSIGN_OR_RETURN(const net::HostPort control, net::ParseHostPort(config_.control_listen));
  ASSIGN_OR_RETURN(const net::HostPort http, net::ParseHostPort(config_.http_listen));
  control_host_ = control.host;
  http_host_ = http.host;
  ASSIGN_OR_RETURN(http_, net::HttpServer::Start(
                              http.host, http.port,
                              {{"/health", [] { return net::HttpResponse{.body = "alive\n"}; }},
                               {"/ready", [this] { return Ready(); }},
                               {"/metrics", [this] {
                                  TellCpuSeconds();
                                  return net::HttpResponse{
                                      .content_type = "text/plain; version=0.0.4; charset=utf-8",
                                      .body = metrics_.Text()};
                                }}}));
  ASSIGN_OR_RETURN(control_,
                   net::ControlServer::Start(
                       control.host, control.port,
                       {.on_hello = [this](const net::Hello& hello) { return Welcome(hello); },
                        .on_gone = [this](uint64_t session) { CloseSession(session); }},
                       security_));
  return OkStatus();
}

Status Node::OpenTables() {
  const TimePoint begin = Clock::Real().Now();
  LoadOptions options;
  options.model_path = config_.model_path;
  options.model_name = config_.ModelName();
  options.model_version = config_.model_version;
  options.map = config_.Map();
  options.member = config_.node_name;
  options.arena.pages = config_.ArenaBacking();
  options.arena.shared = config_.SharesArena();
  options.arena.numa_node = static_cast<int>(config_.arena_numa_node);
  if (config_.procedural()) {
    ASSIGN_OR_RETURN(
        tables_, LoadProcedural(config_.Procedural(), options.map, options.member, options.arena));
  } else {
    ASSIGN_OR_RETURN(const std::unique_ptr<RowStore> store, OpenRocksStore(config_.store_path));
    ASSIGN_OR_RETURN(tables_, LoadTables(options, *store));
  }
  metrics_.GetGauge("engram_memnode_arena_bytes", "Memory of the rows")
      .Set(static_cast<double>(tables_.arena.size_bytes()));
  metrics_.GetGauge("engram_memnode_owned_rows", "Rows this node serves")
      .Set(static_cast<double>(tables_.plan.OwnedRows()));
  const std::chrono::duration<double> took = Clock::Real().Now() - begin;
  obs::LogInfo(fmt::format(
      "tables in memory model={} version={} imported={} owned_rows={} of={} bytes={} pages={} "
      "shared={} seconds={:.2f} digest={}",
      tables_.identity.model, tables_.identity.version, tables_.imported, tables_.plan.OwnedRows(),
      tables_.plan.TotalRows(), tables_.arena.size_bytes(),
      PageBackingName(tables_.arena.backing()), tables_.arena.shared_fd() >= 0, took.count(),
      tables_.identity.content_digest));
  return OkStatus();
}

Status Node::OpenServices(const TransportFactory& make_transport) {
  service_metrics_ = std::make_unique<ServiceMetrics>(metrics_, tables_.plan);
  RowServiceOptions options;
  options.epoch = static_cast<uint32_t>(config_.cluster_epoch);
  options.sessions_max = static_cast<size_t>(config_.limits_sessions_max);
  options.window = static_cast<size_t>(config_.limits_window);
  options.send_buffers = static_cast<size_t>(config_.limits_send_buffers);
  options.spin = std::chrono::microseconds(config_.transport_spin_us);
  for (int64_t worker = 0; worker < config_.transport_workers; ++worker) {
    ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport,
                     make_transport ? make_transport() : MakeTransport(worker));
    std::string key;
    if (transport->one_sided()) {
      ASSIGN_OR_RETURN(key, transport->ShareMemory(tables_.arena.bytes()));
    }
    if (config_.transport_cpu >= 0) {
      options.cpu = static_cast<int>(config_.transport_cpu + worker);
    }
    ASSIGN_OR_RETURN(auto service, RowService::Start(tables_.arena, std::move(transport), options,
                                                     *service_metrics_));
    services_.push_back({std::move(service), std::move(key)});
  }
  if (tables_.arena.shared_fd() < 0) return OkStatus();
  ASSIGN_OR_RETURN(local_, net::FdServer::Start(tables_.arena.shared_fd()));
  return OkStatus();
}

// Workers listen on the port asked for and the ones after it.
Result<std::unique_ptr<net::Transport>> Node::MakeTransport(int64_t worker) const {
  net::HostPort listen = {control_host_, 0};
  if (!config_.transport_listen.empty()) {
    ASSIGN_OR_RETURN(listen, net::ParseHostPort(config_.transport_listen));
    if (listen.port != 0) listen.port = static_cast<uint16_t>(listen.port + worker);
  }
  return net::MakeTransport(config_.wire, security_, listen.host, listen.port);
}

const Node::Worker& Node::LeastBusy() const {
  return *std::min_element(services_.begin(), services_.end(), [](const auto& a, const auto& b) {
    return a.service->session_count() < b.service->session_count();
  });
}

// Session ids are random: only the worker it belongs to knows this one.
void Node::CloseSession(uint64_t session) {
  for (const Worker& worker : services_) worker.service->CloseSession(session);
}

size_t Node::session_count() const {
  size_t count = 0;
  for (const Worker& worker : services_) count += worker.service->session_count();
  return count;
}

void Node::TellCpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  cpu_seconds_.Set(seconds(usage.ru_utime) + seconds(usage.ru_stime));
}

Status Node::ChooseKnownAnswers() {
  std::vector<std::byte> bytes(tables_.arena.row_bytes());
  for (uint32_t i = 0; i < tables_.plan.layers.size(); ++i) {
    for (const uint64_t row : RowsToTell(tables_.plan.layers[i], kKnownAnswerSeed + i)) {
      RETURN_IF_ERROR(tables_.arena.GatherRows(i, {&row, 1}, bytes));
      Sha256 hash;
      hash.Update(bytes);
      known_answers_.push_back({.layer_index = i, .row = row, .sha256_hex = ToHex(hash.Finish())});
    }
  }
  return OkStatus();
}

Result<net::Welcome> Node::Welcome(const net::Hello& hello) {
  if (!ready_) return Unavailable("this memory node is still loading its tables");
  if (draining_) return Unavailable("this memory node is shutting down");
  const std::string us = fmt::format("memory node {}", config_.node_name);
  RETURN_IF_ERROR(table::CheckSameIdentity(hello.identity, tables_.identity, us));
  const Worker& worker = LeastBusy();
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
  net::Welcome welcome;
  ASSIGN_OR_RETURN(welcome.session, worker.service->OpenSession(hello.address));
  welcome.member = config_.node_name;
  welcome.map = config_.Map();
  welcome.identity = tables_.identity;
  welcome.settings = service.settings();
  welcome.transport = service.transport_name();
  welcome.address = service.address();
  welcome.known_answers = known_answers_;
  welcome.window = static_cast<uint32_t>(config_.limits_window);
  welcome.one_sided_key = worker.one_sided_key;
  if (local_ != nullptr) {
    ASSIGN_OR_RETURN(welcome.local_token, local_->NewToken());
    welcome.local_socket = local_->socket_name();
  }
  return welcome;
}

net::HttpResponse Node::Ready() const {
  if (draining_) return {.status = 503, .body = "draining\n"};
  if (!ready_) return {.status = 503, .body = "loading\n"};
  return {.body = "ready\n"};
}

void Node::Drain() {
  draining_ = true;
  for (const Worker& worker : services_) worker.service->Drain();
  const TimePoint deadline =
      Clock::Real().Now() + std::chrono::milliseconds(config_.limits_drain_timeout_ms);
  while (session_count() > 0 && Clock::Real().Now() < deadline) {
    std::this_thread::sleep_for(kDrainPoll);
  }
  obs::LogInfo(fmt::format("drained sessions_left={}", session_count()));
}

std::string Node::control_address() const {
  return fmt::format("{}:{}", control_host_, control_->port());
}

std::string Node::http_address() const { return fmt::format("{}:{}", http_host_, http_->port()); }

}  // namespace engram::memnode
