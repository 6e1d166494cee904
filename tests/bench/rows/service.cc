#include "tests/bench/rows/service.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <string>
#include <vector>

namespace engram::bench {
namespace {

constexpr auto kDeadline = std::chrono::seconds(10);

class SourceReader : public BatchReader {
 public:
  SourceReader(client::RowSource& source, size_t depth) : source_(source), steps_(depth) {}

  Status Begin(const Batch& batch, std::span<std::byte> out) override {
    Step& step = steps_[begun_++ % steps_.size()];
    const size_t layer_bytes = out.size() / kLayers;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      step.lookups[layer].layer_index = layer;
      step.lookups[layer].rows = batch.rows[layer];
      step.lookups[layer].out = out.subspan(layer * layer_bytes, layer_bytes);
    }
    auto ticket = source_.Submit(step.lookups, std::chrono::steady_clock::now() + kDeadline);
    if (!ticket.ok()) return ticket.status();
    step.ticket = std::move(*ticket);
    return OkStatus();
  }

  Status End() override {
    Step& step = steps_[ended_++ % steps_.size()];
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      RETURN_IF_ERROR(step.ticket->Wait(layer));
    }
    step.ticket.reset();
    return OkStatus();
  }

 private:
  struct Step {
    std::array<client::LayerLookup, kLayers> lookups;
    std::unique_ptr<client::Ticket> ticket;
  };
  client::RowSource& source_;
  std::vector<Step> steps_;
  size_t begun_ = 0;
  size_t ended_ = 0;
};

}  // namespace

Result<std::unique_ptr<Service>> Service::Start(const FilledArena& filled, const Tables& tables,
                                                const ServiceOptions& options) {
  std::unique_ptr<Service> made(new Service(tables, filled.plan));
  ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport, options.make_transport());
  memnode::RowServiceOptions service_options;
  service_options.cpu = options.cores.server;
  service_options.gather = options.gather;
  ASSIGN_OR_RETURN(made->service_, memnode::RowService::Start(filled.arena, std::move(transport),
                                                              service_options, made->metrics_));
  if (options.path == client::Path::kLocal) {
    ASSIGN_OR_RETURN(made->files_, net::FdServer::Start(filled.arena.shared_fd()));
    made->welcome_.local_socket = made->files_->socket_name();
  }
  made->welcome_.member = "m0";
  made->welcome_.map = {.epoch = 1, .members = {"m0"}};
  made->welcome_.settings = made->service_->settings();
  made->welcome_.address = made->service_->address();
  ASSIGN_OR_RETURN(
      made->control_,
      net::ControlServer::Start(
          "127.0.0.1", 0,
          {.on_hello = [raw = made.get()](const net::Hello& hello) { return raw->Welcome(hello); },
           .on_gone = [raw = made.get()](uint64_t id) { raw->service_->CloseSession(id); }}));
  client::LookupClientOptions client_options;
  client_options.memnodes = {fmt::format("127.0.0.1:{}", made->control_->port())};
  client_options.identity = made->welcome_.identity;
  client_options.caller_driven = true;
  client_options.path = options.path;
  client_options.check_rows = options.gather;
  client_options.make_transport = options.make_transport;
  ASSIGN_OR_RETURN(made->client_, client::LookupClient::Connect(client_options, tables.layout));
  return made;
}

Service::~Service() {
  client_.reset();
  control_.reset();  // calls into service_ until it is gone
}

Result<net::Welcome> Service::Welcome(const net::Hello& hello) {
  net::Welcome welcome = welcome_;
  ASSIGN_OR_RETURN(welcome.session, service_->OpenSession(hello.address));
  if (files_ != nullptr) {
    ASSIGN_OR_RETURN(welcome.local_token, files_->NewToken());
  }
  return welcome;
}

std::unique_ptr<BatchReader> Service::MakeReader(size_t depth) {
  return MakeSourceReader(*client_, depth);
}

std::unique_ptr<BatchReader> MakeSourceReader(client::RowSource& source, size_t depth) {
  return std::make_unique<SourceReader>(source, depth);
}

}  // namespace engram::bench
