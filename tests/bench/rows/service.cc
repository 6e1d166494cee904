#include "tests/bench/rows/service.h"

#include <fmt/format.h>

#include "common/client/lookup/config.h"
#include "memnode/tables/arena_tables.h"
#include "tests/bench/harness/source_reader.h"

namespace engram::bench {
net::WireConfig LoopbackWire(const std::string& kind) {
  net::WireConfig wire;
  wire.kind = kind;
  wire.ucx_net_devices = "lo";
  return wire;
}

Result<std::unique_ptr<Service>> Service::Start(const FilledArena& filled, const Tables& tables,
                                                const ServiceOptions& options) {
  RETURN_IF_ERROR(options.wire.Validate());
  ASSIGN_OR_RETURN(const std::shared_ptr<const net::Security> security, net::LoadSecurity({}));
  std::unique_ptr<Service> made(new Service(tables));
  const std::shared_ptr<const memnode::Arena> arena(&filled.arena, [](const auto*) {});
  made->welcome_.map = {.epoch = 1, .members = {"m0"}};
  ASSIGN_OR_RETURN(made->tables_, memnode::ArenaTables::Make({.identity = made->welcome_.identity,
                                                              .map = made->welcome_.map,
                                                              .plan = filled.plan},
                                                             arena, made->registry_));
  ASSIGN_OR_RETURN(std::unique_ptr<net::Transport> transport,
                   net::MakeTransport(options.wire, security, "127.0.0.1", 0));
  memnode::RowServiceOptions service_options;
  service_options.cpu = options.cores.server;
  service_options.gather = options.gather;
  ASSIGN_OR_RETURN(made->service_, memnode::RowService::Start(std::move(transport), service_options,
                                                              made->metrics_));
  if (options.path == client::Path::kLocal) {
    ASSIGN_OR_RETURN(made->files_, net::FdServer::Start(filled.arena.shared_fd()));
    made->welcome_.local_socket = made->files_->socket_name();
  }
  made->welcome_.member = "m0";
  made->welcome_.settings = made->service_->settings();
  made->welcome_.address = made->service_->address();
  ASSIGN_OR_RETURN(
      made->control_,
      net::ControlServer::Start(
          "127.0.0.1", 0,
          {.on_hello = [raw = made.get()](const net::Hello& hello,
                                          const auto& answer) { raw->Hello(hello, answer); },
           .on_gone = [raw = made.get()](uint64_t id) { raw->service_->CloseSession(id); }}));
  client::LookupConfig config;
  config.memnodes = {fmt::format("127.0.0.1:{}", made->control_->port())};
  config.wire = options.wire;
  ASSIGN_OR_RETURN(client::LookupClientOptions client_options, config.Options());
  client_options.identity = made->welcome_.identity;
  client_options.path = options.path;
  client_options.check_rows = options.gather;
  ASSIGN_OR_RETURN(made->client_, client::LookupClient::Connect(client_options, tables.layout));
  return made;
}

Service::~Service() {
  client_.reset();
  control_.reset();  // calls into service_ until it is gone
}

void Service::Hello(const net::Hello& hello, const net::ControlServer::AnswerHello& answer) {
  service_->OpenSession(hello.address, tables_, [this, answer](Result<uint64_t> session) {
    if (!session.ok()) return answer(session.status());
    net::Welcome welcome = welcome_;
    welcome.session = *session;
    if (files_ != nullptr) {
      Result<std::string> token = files_->NewToken();
      if (!token.ok()) return answer(token.status());
      welcome.local_token = *std::move(token);
    }
    answer(std::move(welcome));
  });
}

std::unique_ptr<BatchReader> Service::MakeReader(size_t depth) {
  return MakeSourceReader(*client_, depth);
}

}  // namespace engram::bench
