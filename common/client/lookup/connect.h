// Connecting a lookup client: hello to every memory node, and the checks that they form one whole,
// right cluster.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "common/net/control/control.h"

namespace engram::client {

// The nodes in the order of the map's members.
struct Cluster {
  table::ClusterMap map;
  table::TableIdentity identity;  // as the nodes told it, with version and content digest
  std::vector<std::unique_ptr<net::ControlClient>> controls;
  std::vector<std::string> labels;     // "m0 (127.0.0.1:7400)"
  std::vector<std::string> addresses;  // of the control connections: "127.0.0.1:7400"
};

// Says hello to every address with `transport`'s settings and address. Errors as
// LookupClient::Connect.
Result<Cluster> ConnectCluster(const LookupClientOptions& options, const net::Transport& transport);

// Hello again to one member of a cluster that was connected to: it must be the same member of the
// same map, with the same tables. Else FAILED_PRECONDITION names the difference.
Result<std::unique_ptr<net::ControlClient>> ReachMember(const LookupClientOptions& options,
                                                        const Cluster& cluster, size_t node,
                                                        const net::Transport& transport,
                                                        Nanos timeout);

}  // namespace engram::client
