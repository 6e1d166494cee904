#include "memnode/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "common/client/model_tables.h"

namespace engram::memnode {
namespace {

// "auto" asks for reserved huge pages, which fall back by themselves to transparent ones.
std::optional<PageBacking> BackingOf(const std::string& text) {
  if (text == "auto" || text == "hugetlb") return PageBacking::kHugeTlb;
  if (text == "transparent") return PageBacking::kTransparent;
  if (text == "small") return PageBacking::kSmall;
  return std::nullopt;
}

}  // namespace

void NodeConfig::Describe(config::Fields& f) {
  f.Add("node.name", &node_name, "this node's name; one of cluster.members");
  f.Add("cluster.members", &cluster_members, "all memory nodes, the same list on each");
  f.Add("cluster.epoch", &cluster_epoch, 1, UINT32_MAX, "version of the member list");
  f.Add("model.path", &model_path,
        "folder of the checkpoint; needed to import, not to restart from a complete store");
  f.Add("model.name", &model_name, "name of the table set; empty: the folder's name");
  f.Add("model.version", &model_version, "version of the table set");
  f.Add("store.path", &store_path, "folder of this node's RocksDB store");
  f.Add("arena.pages", &arena_pages,
        "memory of the rows: auto, small, transparent or hugetlb; auto takes the best there is");
  f.Add("control.listen", &control_listen, "host:port of the control socket; port 0 picks one");
  f.Add("http.listen", &http_listen, "host:port of /health, /ready and /metrics");
  f.Add("transport.tls", &transport_tls, "UCX transports, as UCX_TLS");
  f.Add("transport.net_devices", &transport_net_devices, "network devices, as UCX_NET_DEVICES");
  f.Add("transport.spin_us", &transport_spin_us, 0, 1'000'000,
        "how long the idle data thread polls before it sleeps");
  f.Add("transport.cpu", &transport_cpu, -1, 4095, "CPU of the data thread; -1: not pinned");
  f.Add("limits.sessions_max", &limits_sessions_max, 1, 65536, "clients connected at once");
  f.Add("limits.queued_requests_max", &limits_queued_requests_max, 1, 65536,
        "lookups waiting; beyond it they are refused");
  f.Add("limits.drain_timeout_ms", &limits_drain_timeout_ms, 0, 3'600'000,
        "how long SIGTERM waits for clients to leave");
  f.Add("limits.send_buffers", &limits_send_buffers, 2, 4096,
        "replies under way at once, about 124 KiB each");
  f.Add("log.level", &log_level, "trace, debug, info, warn, error or off");
}

Status NodeConfig::Validate() const {
  RETURN_IF_ERROR(table::Validate(Map()).WithContext("cluster.members"));
  if (std::find(cluster_members.begin(), cluster_members.end(), node_name) ==
      cluster_members.end()) {
    return InvalidArgument(fmt::format("node.name '{}' is not among cluster.members [{}]",
                                       node_name, fmt::join(cluster_members, ", ")));
  }
  if (model_path.empty() && model_name.empty()) {
    return InvalidArgument("no model: set model.path to the folder of a checkpoint");
  }
  if (model_version.empty()) {
    return InvalidArgument("model.version is empty: name the version this node serves, e.g. 1");
  }
  if (store_path.empty()) {
    return InvalidArgument("no store: set store.path to a folder for this node's tables");
  }
  if (!BackingOf(arena_pages)) {
    return InvalidArgument(fmt::format(
        "arena.pages is '{}', expected auto, small, transparent or hugetlb", arena_pages));
  }
  return OkStatus();
}

table::ClusterMap NodeConfig::Map() const {
  return {.epoch = static_cast<uint32_t>(cluster_epoch), .members = cluster_members};
}

std::string NodeConfig::ModelName() const {
  return model_name.empty() ? client::FolderName(model_path) : model_name;
}

PageBacking NodeConfig::ArenaBacking() const {
  const std::optional<PageBacking> backing = BackingOf(arena_pages);
  CHECK(backing.has_value()) << arena_pages;
  return *backing;
}

}  // namespace engram::memnode
