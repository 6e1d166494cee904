// Connecting a lookup client: hello to every memory node, and the checks that they form one whole,
// right cluster.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "common/client/lookup/loop.h"
#include "common/net/control/control.h"

namespace engram::client {

// The nodes in the order of the map's members.
struct Cluster {
  table::ClusterMap map;
  std::vector<std::unique_ptr<net::ControlClient>> controls;
  std::vector<std::string> labels;  // "m0 (127.0.0.1:7400)"
  std::vector<std::string> hosts;   // where each was reached: "127.0.0.1"
};

// Says hello to every address with `transport`'s settings and address. Errors as
// LookupClient::Connect.
Result<Cluster> ConnectCluster(const LookupClientOptions& options, const net::Transport& transport);

// Connects the transport to every node and opens the paths to its rows.
Result<std::vector<NodeLink>> LinkNodes(Cluster cluster, const LookupClientOptions& options,
                                        const table::TableLayout& layout,
                                        net::Transport& transport);

// A row a node vouches for.
struct KnownRow {
  std::string node;  // its label
  net::KnownAnswer answer;
};
std::vector<KnownRow> KnownRowsOf(const Cluster& cluster);

// Fetches the known rows over the data path and compares. DATA_LOSS names node, layer and row.
Status CheckKnownRows(RowSource& source, const std::vector<KnownRow>& known,
                      const table::TableLayout& layout, TimePoint deadline);

}  // namespace engram::client
