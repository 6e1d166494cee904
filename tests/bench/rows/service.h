// The row service as it is used, in one process: a RowService on the server's core, a LookupClient
// on the caller's, and a transport between them. The only place of these benchmarks that
// knows how service and client are put together.
#pragma once

#include <memory>

#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "common/net/control/control.h"
#include "common/net/control/fd_passing.h"
#include "common/net/wire_config.h"
#include "common/obs/metrics.h"
#include "memnode/serve/row_service.h"
#include "memnode/serve/service_metrics.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/harness/tables.h"
#include "tests/bench/rows/gather_legs.h"

namespace engram::bench {

// "tcp" or "ucx", the latter over TCP on lo.
net::WireConfig LoopbackWire(const std::string& kind);

struct ServiceOptions {
  // False: everything but the gather and the comparison of the rows' checks; bytes mean nothing.
  bool gather = true;
  client::Path path = client::Path::kGather;  // kLocal: `filled` must be shared
  net::WireConfig wire;
  Cores cores;
};

class Service {
 public:
  // `filled` and `tables` outlive it.
  static Result<std::unique_ptr<Service>> Start(const FilledArena& filled, const Tables& tables,
                                                const ServiceOptions& options);
  ~Service();
  // Steps of both layers, `depth` of them outstanding. One reader at work at any time.
  std::unique_ptr<BatchReader> MakeReader(size_t depth);

 private:
  explicit Service(const Tables& tables) : metrics_(registry_) {
    welcome_.identity = table::MakeProceduralIdentity(tables.spec, tables.layout);
  }
  void Hello(const net::Hello& hello, const net::ControlServer::AnswerHello& answer);

  obs::Metrics registry_;
  memnode::ServiceMetrics metrics_;
  net::Welcome welcome_;
  std::shared_ptr<const memnode::ServedTables> tables_;
  std::unique_ptr<net::FdServer> files_;  // hands the arena to a client that maps it
  std::unique_ptr<memnode::RowService> service_;
  std::unique_ptr<net::ControlServer> control_;
  std::unique_ptr<client::LookupClient> client_;
};

}  // namespace engram::bench
