#include "tests/bench/rows/transports.h"

#include <fmt/format.h>

#include "common/net/ucx_transport.h"

namespace engram::bench {

Result<TransportFactory> TransportNamed(const std::string& name) {
  if (name == "ucx") {
    return TransportFactory(
        [] { return net::MakeUcxTransport({.tls = "tcp,self", .net_devices = "lo"}); });
  }
  return InvalidArgument(fmt::format("transport \"{}\", must be ucx", name));
}

}  // namespace engram::bench
