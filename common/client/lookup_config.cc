#include "common/client/lookup_config.h"

namespace engram::client {

void LookupConfig::Describe(config::Fields& fields) {
  fields.Add("memnodes", &memnodes,
             "memory nodes, host:port each; empty: the tables are in this process");
  fields.Add("connect_timeout_ms", &connect_timeout_ms, 1, 3'600'000,
             "to reach every memory node at start");
  fields.Add("lookup.path", &path,
             "auto, local (mapped memory of the same host), gather or one_sided (RDMA reads)");
  fields.Add("lookup.spin_us", &spin_us, 0, 1'000'000,
             "how long a waiting thread polls before it sleeps");
  wire.Describe(fields);
}

Status LookupConfig::Validate() const {
  RETURN_IF_ERROR(ParsePathChoice(path).status().WithContext("lookup.path"));
  return wire.Validate();
}

Result<LookupClientOptions> LookupConfig::Options() const {
  LookupClientOptions options;
  options.memnodes = memnodes;
  options.connect_timeout_ms = static_cast<uint32_t>(connect_timeout_ms);
  options.spin_us = static_cast<uint32_t>(spin_us);
  ASSIGN_OR_RETURN(options.path, ParsePathChoice(path));
  ASSIGN_OR_RETURN(options.security, net::LoadSecurity(wire.security));
  options.make_transport = [wire = wire, security = options.security] {
    return net::MakeTransport(wire, security, "", 0);
  };
  return options;
}

}  // namespace engram::client
