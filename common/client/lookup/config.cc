#include "common/client/lookup/config.h"

#include "common/client/cached_source.h"
#include "common/obs/log.h"

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
  fields.Add("lookup.probe_timeout_ms", &probe_timeout_ms, 10, 3'600'000,
             "memory nodes are probed once a second: one that says nothing for so long is down");
  fields.Add("lookup.hedge_us", &hedge_us, 0, 1'000'000,
             "rows of several owners that have not come after so long are asked of another one as "
             "well; 0: twice the 99th percentile of the node's answers, 500 at least");
  fields.Add("lookup.cache_mib", &cache_mib, 0, INT64_MAX >> 20,
             "memory of the n-gram cache; 0: none. Pays from 17 % hits on against remote rows");
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
  options.hedge_us = static_cast<uint32_t>(hedge_us);
  ASSIGN_OR_RETURN(options.path, ParsePathChoice(path));
  ASSIGN_OR_RETURN(options.security, net::LoadSecurity(wire.security));
  options.make_transport = [wire = wire, security = options.security] {
    return net::MakeTransport(wire, security, "", 0);
  };
  return options;
}

Result<std::unique_ptr<RowSource>> LookupConfig::Connect(
    const table::TableLayout& layout, const table::TableIdentity& identity,
    const std::function<Status(LookupClient&)>& check) const {
  RETURN_IF_ERROR(Validate());
  ASSIGN_OR_RETURN(LookupClientOptions options, Options());
  options.identity = identity;
  options.check = check;
  options.probe_timeout_ms = static_cast<uint32_t>(probe_timeout_ms);
  ASSIGN_OR_RETURN(std::unique_ptr<LookupClient> client, LookupClient::Connect(options, layout));
  for (const std::string& line : client->DescribePaths()) obs::LogInfo("paths to node " + line);
  if (cache_mib == 0) return std::unique_ptr<RowSource>(std::move(client));
  const NgramCacheOptions cache = {static_cast<uint64_t>(cache_mib) << 20};
  ASSIGN_OR_RETURN(std::unique_ptr<CachedSource> cached,
                   CachedSource::Make(std::move(client), layout, cache));
  return std::unique_ptr<RowSource>(std::move(cached));
}

}  // namespace engram::client
