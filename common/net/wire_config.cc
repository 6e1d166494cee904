#include "common/net/wire_config.h"

#include <fmt/format.h>

#include "common/net/tcp/transport.h"
#include "common/net/ucx/transport.h"

namespace engram::net {

void WireConfig::Describe(config::Fields& fields) {
  fields.Add("transport.kind", &kind,
             "tcp: own framed sockets, for any network; ucx: RDMA fabrics, trusted hosts only");
  fields.Add("ucx.transports", &ucx_transports, "UCX transports, as UCX_TLS");
  fields.Add("ucx.net_devices", &ucx_net_devices, "UCX network devices, as UCX_NET_DEVICES");
  fields.Add(
      "security.secret_file", &security.secret_file,
      "file with the cluster's secret, mode 600; empty: every host that reaches the ports is "
      "trusted");
  fields.Add("security.tls_certificate", &security.tls_certificate,
             "PEM certificate chain; empty: no TLS");
  fields.Add("security.tls_key", &security.tls_key, "PEM key of the certificate");
  fields.Add("security.tls_ca", &security.tls_ca,
             "PEM of the authority that signed the certificate of every peer");
}

Status WireConfig::Validate() const {
  if (kind != "tcp" && kind != "ucx") {
    return InvalidArgument(fmt::format("transport.kind is '{}', expected tcp or ucx", kind));
  }
  if (kind == "ucx" && !security.tls_certificate.empty()) {
    return InvalidArgument(
        "security.tls_certificate is set, but transport.kind is ucx, which cannot encrypt: use "
        "tcp");
  }
  return OkStatus();
}

Result<std::unique_ptr<Transport>> MakeTransport(const WireConfig& config,
                                                 std::shared_ptr<const Security> security,
                                                 const std::string& listen_host,
                                                 uint16_t listen_port) {
  if (config.kind == "ucx") {
    UcxOptions options;
    options.tls = config.ucx_transports;
    options.net_devices = config.ucx_net_devices;
    return MakeUcxTransport(options);
  }
  TcpOptions options;
  options.listen_host = listen_host;
  options.listen_port = listen_port;
  options.security = std::move(security);
  return MakeTcpTransport(options);
}

}  // namespace engram::net
