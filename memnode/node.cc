#include "memnode/node.h"

#include <fmt/format.h>

#include <thread>

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/net/ucx_transport.h"
#include "common/obs/log.h"
#include "memnode/rocks_store.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kKnownAnswerSeed = 20261123;
constexpr Nanos kDrainPoll = std::chrono::milliseconds(2);

Result<std::unique_ptr<net::Transport>> MakeUcx(const NodeConfig& config) {
  net::UcxOptions options;
  options.tls = config.transport_tls;
  options.net_devices = config.transport_net_devices;
  return net::MakeUcxTransport(options);
}

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
  RETURN_IF_ERROR(node->OpenService(make_transport));
  RETURN_IF_ERROR(node->ChooseKnownAnswers());
  node->ready_ = true;
  return node;
}

Node::~Node() {
  // The sockets' threads call into the service, so they end first.
  control_.reset();
  http_.reset();
  service_.reset();
}

Status Node::OpenSockets() {
  ASSIGN_OR_RETURN(const net::HostPort control, net::ParseHostPort(config_.control_listen));
  ASSIGN_OR_RETURN(const net::HostPort http, net::ParseHostPort(config_.http_listen));
  control_host_ = control.host;
  http_host_ = http.host;
  ASSIGN_OR_RETURN(http_, net::HttpServer::Start(
                              http.host, http.port,
                              {{"/health", [] { return net::HttpResponse{.body = "alive\n"}; }},
                               {"/ready", [this] { return Ready(); }},
                               {"/metrics", [this] {
                                  return net::HttpResponse{
                                      .content_type = "text/plain; version=0.0.4; charset=utf-8",
                                      .body = metrics_.Text()};
                                }}}));
  ASSIGN_OR_RETURN(control_,
                   net::ControlServer::Start(
                       control.host, control.port,
                       {.on_hello = [this](const net::Hello& hello) { return Welcome(hello); },
                        .on_gone = [this](uint64_t session) { service_->CloseSession(session); }}));
  return OkStatus();
}

Status Node::OpenTables() {
  const TimePoint begin = Clock::Real().Now();
  ASSIGN_OR_RETURN(const std::unique_ptr<RowStore> store, OpenRocksStore(config_.store_path));
  LoadOptions options;
  options.model_path = config_.model_path;
  options.model_name = config_.ModelName();
  options.model_version = config_.model_version;
  options.map = config_.Map();
  options.member = config_.node_name;
  options.arena.pages = config_.ArenaBacking();
  ASSIGN_OR_RETURN(tables_, LoadTables(options, *store));
  metrics_.GetGauge("engram_memnode_arena_bytes", "Memory of the rows")
      .Set(static_cast<double>(tables_.arena.size_bytes()));
  metrics_.GetGauge("engram_memnode_owned_rows", "Rows this node serves")
      .Set(static_cast<double>(tables_.plan.OwnedRows()));
  const std::chrono::duration<double> took = Clock::Real().Now() - begin;
  obs::LogInfo(fmt::format(
      "tables in memory model={} version={} imported={} owned_rows={} of={} bytes={} pages={} "
      "seconds={:.2f} digest={}",
      tables_.identity.model, tables_.identity.version, tables_.imported, tables_.plan.OwnedRows(),
      tables_.plan.TotalRows(), tables_.arena.size_bytes(),
      PageBackingName(tables_.arena.backing()), took.count(), tables_.identity.content_digest));
  return OkStatus();
}

Status Node::OpenService(const TransportFactory& make_transport) {
  ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport,
                   make_transport ? make_transport() : MakeUcx(config_));
  service_metrics_ = std::make_unique<ServiceMetrics>(metrics_, tables_.plan);
  RowServiceOptions options;
  options.epoch = static_cast<uint32_t>(config_.cluster_epoch);
  options.sessions_max = static_cast<size_t>(config_.limits_sessions_max);
  options.queued_requests_max = static_cast<size_t>(config_.limits_queued_requests_max);
  options.send_buffers = static_cast<size_t>(config_.limits_send_buffers);
  options.spin = std::chrono::microseconds(config_.transport_spin_us);
  options.cpu = static_cast<int>(config_.transport_cpu);
  ASSIGN_OR_RETURN(
      service_, RowService::Start(tables_.arena, std::move(transport), options, *service_metrics_));
  return OkStatus();
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
  if (hello.transport != service_->transport_name()) {
    return FailedPrecondition(fmt::format("transport is \"{}\" here, \"{}\" at {}: use the same",
                                          hello.transport, service_->transport_name(), us));
  }
  if (hello.settings != service_->settings()) {
    return FailedPrecondition(
        fmt::format("transport settings are \"{}\" here, \"{}\" at {}: they must be equal",
                    hello.settings, service_->settings(), us));
  }
  net::Welcome welcome;
  ASSIGN_OR_RETURN(welcome.session, service_->OpenSession(hello.address));
  welcome.member = config_.node_name;
  welcome.map = config_.Map();
  welcome.identity = tables_.identity;
  welcome.settings = service_->settings();
  welcome.address = service_->address();
  welcome.known_answers = known_answers_;
  return welcome;
}

net::HttpResponse Node::Ready() const {
  if (draining_) return {.status = 503, .body = "draining\n"};
  if (!ready_) return {.status = 503, .body = "loading\n"};
  return {.body = "ready\n"};
}

void Node::Drain() {
  draining_ = true;
  service_->Drain();
  const TimePoint deadline =
      Clock::Real().Now() + std::chrono::milliseconds(config_.limits_drain_timeout_ms);
  while (service_->session_count() > 0 && Clock::Real().Now() < deadline) {
    std::this_thread::sleep_for(kDrainPoll);
  }
  obs::LogInfo(fmt::format("drained sessions_left={}", service_->session_count()));
}

std::string Node::control_address() const {
  return fmt::format("{}:{}", control_host_, control_->port());
}

std::string Node::http_address() const { return fmt::format("{}:{}", http_host_, http_->port()); }

}  // namespace engram::memnode
