// Connecting a lookup client: hello to every memory node, and the checks that they form one whole,
// right cluster.
#pragma once

#include <memory>
#include <optional>
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
  std::vector<std::unique_ptr<net::ControlClient>> controls;  // null: that member is away
  std::vector<std::string> labels;                            // "m0 (127.0.0.1:7400)"
  // Of the control connections; empty: not known yet.
  std::vector<std::string> addresses;
  std::vector<std::string> unplaced;  // addresses that none has answered at
  Status unreached;                   // why members are away
};

// Whether a later try may succeed.
inline bool MeansUnreachable(const Status& status) {
  return status.code() == Code::kUnavailable || status.code() == Code::kDeadlineExceeded;
}

// Says hello to every address with `transport`'s settings and address, and to members whose address
// the latest map told tells. With one replica every member must answer, with more some may be away.
// Errors as LookupClient::Connect.
Result<Cluster> ConnectCluster(const LookupClientOptions& options, const net::Transport& transport);

// Hello again to one member of a cluster that was connected to, or the first time to one that was
// away: it must be that member of the same map, with the same tables. Else FAILED_PRECONDITION
// names the difference. Notes the address of a member that was away. `later` is set to the node's
// epoch where that is a later one, to 0 where it says that it is no member.
Result<std::unique_ptr<net::ControlClient>> ReachMember(const LookupClientOptions& options,
                                                        Cluster& cluster, size_t node,
                                                        const net::Transport& transport,
                                                        Nanos timeout,
                                                        std::optional<uint32_t>& later);

}  // namespace engram::client
