// What a member asks of the other members of its cluster: over their control ports, as a tool does,
// and their rows as a client.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/table_source.h"
#include "common/io/json.h"
#include "common/net/tcp/security.h"
#include "common/net/transport.h"
#include "common/table/identity.h"
#include "common/table/placement.h"
#include "memnode/cluster/cluster_state.h"
#include "memnode/store/manifest.h"
#include "memnode/store/version_catalog.h"

namespace engram::memnode {

// A version that a member keeps in memory; of its info the names, and how it is published and
// pinned.
struct KeptVersion {
  VersionInfo info;
  table::TableIdentity identity;
};
// {"state", "versions": [...]}, a part of a member's reply to "cluster" (node.h).
json::object ClusterFacts(const ClusterState& state, const std::vector<KeptVersion>& versions);
// INVALID_ARGUMENT when the reply is none of a memory node's.
Result<std::vector<KeptVersion>> VersionsFrom(const json::object& reply);
// {"total", "text"} of a manifest's text from `offset` on, as much as fits a reply.
Result<json::object> ManifestPart(const Manifest& manifest, uint64_t offset);

class Peers {
 public:
  struct Options {
    std::string member;  // the one that asks
    std::shared_ptr<const net::Security> security;
    std::function<Result<std::unique_ptr<net::Transport>>()> make_transport;  // of a client
    uint64_t mib_per_s = 0;  // rows read from all of them together; 0: as fast as they come
  };
  // Of `map`'s members those are asked whose addresses it tells.
  Peers(Options options, table::ClusterMap map)
      : options_(std::move(options)), map_(std::move(map)) {}

  // The state of the latest revision that one of the first three members to answer tells. Takes
  // seconds where members are away. NOT_FOUND: none was reached.
  Result<ClusterState> NewestState() const;
  // Versions that are published or pinned at the first member that answers; UNAVAILABLE: none does.
  Result<std::vector<VersionInfo>> Versions() const;
  // Of the first member that has it; nothing of it is held by the one that asks.
  Result<Manifest> FetchManifest(const std::string& model, const std::string& version) const;
  // The rows of a version, read from their owners. `identity` with its content digest; reading ends
  // with CANCELLED soon after `cancel` was set, which outlives it. Errors as
  // LookupClient::Connect's.
  Result<std::unique_ptr<client::TableSource>> OpenRows(const table::TableIdentity& identity,
                                                        const std::atomic<bool>& cancel) const;

 private:
  std::vector<std::string> Others() const;
  Result<json::object> Ask(const std::string& address, const json::object& request) const;

  const Options options_;
  const table::ClusterMap map_;
};

}  // namespace engram::memnode
