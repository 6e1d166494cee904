// The settings of the wire that every program shares, and the transport they ask for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/config/config.h"
#include "common/net/tcp/security.h"
#include "common/net/transport.h"

namespace engram::net {

struct WireConfig {
  std::string kind = "tcp";
  std::string ucx_transports = "tcp,self";
  std::string ucx_net_devices = "all";
  SecurityOptions security;

  void Describe(config::Fields& fields);
  // INVALID_ARGUMENT names the key, the value and what to do.
  Status Validate() const;
};

// A transport that listens at host:port for the data of clients, or, with an empty host, one that
// only dials. `config` is valid.
Result<std::unique_ptr<Transport>> MakeTransport(const WireConfig& config,
                                                 std::shared_ptr<const Security> security,
                                                 const std::string& listen_host,
                                                 uint16_t listen_port);

}  // namespace engram::net
